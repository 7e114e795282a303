"""Softmax over one axis, and its logarithm.

    y_i = e^(x_i) / sum_j e^(x_j)          dx = y * (dy - sum(dy * y))
    l_i = x_i - log sum_j e^(x_j)          dx = dl - e^l * sum(dl)

Both subtract the maximum first, which changes nothing and cannot overflow.
"""

from __future__ import annotations

import numpy as np

from minigen.autograd import Op
from minigen.ops.elementwise import exp
from minigen.ops.example import example
from minigen.tensor import Tensor


class Softmax(Op):
    def __init__(self, dim: int) -> None:
        self.dim = dim

    def forward(self, x):
        e = np.exp(x - x.max(axis=self.dim, keepdims=True))
        self.y = e / e.sum(axis=self.dim, keepdims=True)
        return self.y

    def backward(self, dy):
        y = self.output(self.y)
        return (y * (dy - (dy * y).sum(self.dim, keepdim=True)),)


class LogSoftmax(Op):
    def __init__(self, dim: int) -> None:
        self.dim = dim

    def forward(self, x):
        shifted = x - x.max(axis=self.dim, keepdims=True)
        self.y = shifted - np.log(np.exp(shifted).sum(axis=self.dim, keepdims=True))
        return self.y

    def backward(self, dy):
        return (dy - exp(self.output(self.y)) * dy.sum(self.dim, keepdim=True),)


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Positive, and summing to one along `dim`."""
    return Softmax(dim)(x)


def log_softmax(x: Tensor, dim: int = -1) -> Tensor:
    """log(softmax(x)), without the rounding of taking both."""
    return LogSoftmax(dim)(x)


EXAMPLES = {
    "softmax": [example(softmax, (3, 4)), example(lambda x: softmax(x, 1), (2, 3, 2))],
    "log_softmax": [example(log_softmax, (3, 4)), example(lambda x: log_softmax(x, 0), (3, 2))],
}
