"""Smooth functions of each element. A cotangent dy gives dx = dy * f'(x), written with ops, so every order exists."""

from __future__ import annotations

import numpy as np

from minigen.autograd import Op
from minigen.ops.example import example, positive
from minigen.tensor import Tensor


class Exp(Op):
    def forward(self, x):
        self.y = np.exp(x)
        return self.y

    def backward(self, d):
        return (d * self.output(self.y),)


class Log(Op):
    def forward(self, x):
        return np.log(x)

    def backward(self, d):
        return (d / self.inputs[0],)


class Sqrt(Op):
    """y = sqrt(x): dx = dy / (2 y). Infinite at 0: add a small constant under the root of a norm."""

    def forward(self, x):
        self.y = np.sqrt(x)
        return self.y

    def backward(self, d):
        return (d * 0.5 / self.output(self.y),)


class Tanh(Op):
    """dx = dy (1 - y^2)."""

    def forward(self, x):
        self.y = np.tanh(x)
        return self.y

    def backward(self, d):
        y = self.output(self.y)
        return (d - d * (y * y),)


class Sigmoid(Op):
    """y = 1 / (1 + e^-x) = (1 + tanh(x/2)) / 2, which cannot overflow; dx = dy y (1 - y)."""

    def forward(self, x):
        self.y = 0.5 * np.tanh(0.5 * x) + 0.5
        return self.y

    def backward(self, d):
        y = self.output(self.y)
        return (d * (y - y * y),)


class Softplus(Op):
    """y = log(1 + e^x) = max(x, 0) + log(1 + e^-|x|), which cannot overflow; dx = dy sigmoid(x)."""

    def forward(self, x):
        return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))

    def backward(self, d):
        return (d * sigmoid(self.inputs[0]),)


def exp(x: Tensor) -> Tensor:
    return Exp()(x)


def log(x: Tensor) -> Tensor:
    return Log()(x)


def sqrt(x: Tensor) -> Tensor:
    return Sqrt()(x)


def tanh(x: Tensor) -> Tensor:
    return Tanh()(x)


def sigmoid(x: Tensor) -> Tensor:
    return Sigmoid()(x)


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), without overflow."""
    return Softplus()(x)


EXAMPLES = {
    "exp": [example(exp, (3, 4))],
    "log": [example(log, positive(3, 4))],
    "sqrt": [example(sqrt, positive(3, 4))],
    "tanh": [example(tanh, (3, 4))],
    "sigmoid": [example(sigmoid, (3, 4))],
    "softplus": [example(softplus, (3, 4))],
}
