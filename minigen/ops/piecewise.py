"""Piecewise functions: the derivative is a mask, constant between the kinks, and the second derivative is zero."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.autograd import Op
from minigen.device import is_array
from minigen.ops.arithmetic import pair, sum_to
from minigen.ops.example import example, off_kink
from minigen.tensor import Tensor


def slopes(x: Any, slope: float) -> Any:
    """The derivative of a leaky ReLU: 1 where x > 0, `slope` elsewhere. (np.where takes 30 times as long: it branches.)"""
    above = (x > 0).astype(x.dtype)
    return above if slope == 0.0 else above + x.dtype.type(slope) * (1 - above)


class LeakyReLU(Op):
    """y = x for x > 0, slope * x elsewhere (the slope also at 0, as in PyTorch)."""

    def __init__(self, slope: float) -> None:
        self.slope = slope

    def forward(self, x):
        if self.slope == 0.0:
            return np.maximum(x, 0)
        y = x * x.dtype.type(self.slope)
        return np.maximum(x, y) if self.slope < 1 else np.minimum(x, y)

    def backward(self, d):
        return (d * Tensor(slopes(self.inputs[0]._data, self.slope)),)


class Abs(Op):
    """dx = dy sign(x), 0 at 0."""

    def forward(self, x):
        return np.abs(x)

    def backward(self, d):
        return (d * Tensor(np.sign(self.inputs[0]._data)),)


class Maximum(Op):
    """max(x, y); where they are equal the gradient is shared equally, as in PyTorch."""

    def forward(self, x, y):
        return np.maximum(x, y)

    def backward(self, d):
        x, y = self.inputs
        half = x._data.dtype.type(0.5)
        to_x = Tensor((x._data > y._data) + half * (x._data == y._data))
        dx = d * to_x
        return (
            sum_to(dx, x._data.shape) if self.needs[0] else None,
            sum_to(d - dx, y._data.shape) if self.needs[1] else None,
        )


class Where(Op):
    """x where the condition holds, y elsewhere. The condition is an array, not an input: it has no gradient."""

    def __init__(self, condition: Any) -> None:
        self.condition = condition

    def forward(self, x, y):
        return np.where(self.condition, x, y)

    def backward(self, d):
        sx, sy = self.input_shapes
        zero = Tensor(np.zeros((), dtype=d.dtype))
        return (
            sum_to(Where(self.condition)(d, zero), sx) if self.needs[0] else None,
            sum_to(Where(self.condition)(zero, d), sy) if self.needs[1] else None,
        )


class Clip(Op):
    """min(max(x, low), high); the gradient passes where low <= x <= high."""

    def __init__(self, low: float | None, high: float | None) -> None:
        self.low, self.high = low, high

    def forward(self, x):
        return np.clip(x, self.low, self.high)

    def backward(self, d):
        x = self.inputs[0]._data
        inside = np.ones_like(x, dtype=bool)
        if self.low is not None:
            inside &= x >= self.low
        if self.high is not None:
            inside &= x <= self.high
        return (d * Tensor(inside.astype(x.dtype)),)


def relu(x: Tensor) -> Tensor:
    return LeakyReLU(0.0)(x)


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x where x > 0, negative_slope * x elsewhere."""
    return LeakyReLU(negative_slope)(x)


def abs(x: Tensor) -> Tensor:
    return Abs()(x)


def maximum(x: Any, y: Any) -> Tensor:
    return Maximum()(*pair(x, y))


def minimum(x: Any, y: Any) -> Tensor:
    x, y = pair(x, y)
    return -Maximum()(-x, -y)


def where(condition: Any, x: Any, y: Any) -> Tensor:
    """x where `condition` (a boolean Tensor or array) holds, else y; all three broadcast."""
    held = condition._data if isinstance(condition, Tensor) else condition
    held = held.copy() if is_array(held) else np.array(held)  # backward needs it as it was
    return Where(held)(*pair(x, y))


def clip(x: Tensor, low: float | None = None, high: float | None = None) -> Tensor:
    """x limited to [low, high]; None leaves a side open."""
    return Clip(low, high)(x)


_COND = np.arange(12).reshape(3, 4) % 3 == 0

EXAMPLES = {
    "relu": [example(relu, off_kink(3, 4))],
    "leaky_relu": [example(lambda x: leaky_relu(x, 0.2), off_kink(3, 4)), example(lambda x: leaky_relu(x, 2.0), off_kink(5))],
    "abs": [example(abs, off_kink(3, 4))],
    "maximum": [example(maximum, off_kink(3, 4), (1,)), example(lambda x: minimum(x, 0.0), off_kink(3, 4))],
    "where": [example(lambda x, y: where(_COND, x, y), (3, 4), (4,))],
    "clip": [
        example(lambda x: clip(x, -0.5, 0.7), off_kink(4, 4, kinks=(-0.5, 0.7))),
        example(lambda x: clip(x, high=0.5), off_kink(4, kinks=(0.5,))),
    ],
}
