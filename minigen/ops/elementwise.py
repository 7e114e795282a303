"""Element-wise operations with broadcasting.

For y = f(x) applied to each element, a cotangent dy gives dx = dy * f'(x). Where a shape was broadcast, the gradient is
summed back over the broadcast axes: `sum_to`. Each backward below is written with these same operations, so every order
of differentiation exists. NumPy's functions dispatch on the array's type, so this file serves device arrays too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minigen.autograd import NonDifferentiable, Op
from minigen.ops.example import example, off_kink, positive
from minigen.tensor import FLOATS, Tensor


def as_tensor(x: Any, like: Tensor | None = None) -> Tensor:
    """x itself if it is a Tensor; else a constant, in `like`'s dtype if it is a plain number."""
    if isinstance(x, Tensor):
        return x
    if like is not None and isinstance(x, (int, float)):
        weak = like._data.dtype if like._data.dtype in FLOATS else None
        return Tensor(np.asarray(x, dtype=weak))
    return Tensor(np.asarray(x))


def pair(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    if isinstance(x, Tensor):
        return x, y if isinstance(y, Tensor) else as_tensor(y, x)
    y = as_tensor(y)
    return as_tensor(x, y), y


# --- broadcasting and its adjoint -------------------------------------------------------------------------------------


class BroadcastTo(Op):
    view = True

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def forward(self, x):
        return np.broadcast_to(x, self.shape)

    def backward(self, dy):
        return (sum_to(dy, self.input_shapes[0]),)


class SumTo(Op):
    """Sum over the axes that broadcasting `shape` to x's shape would add or stretch."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def forward(self, x):
        added = x.ndim - len(self.shape)
        stretched = tuple(i + added for i, n in enumerate(self.shape) if n == 1 and x.shape[i + added] != 1)
        return x.sum(axis=tuple(range(added)) + stretched).reshape(self.shape)

    def backward(self, dy):
        return (broadcast_to(dy, self.input_shapes[0]),)


def broadcast_to(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """x repeated along new or size-1 axes to `shape`."""
    return x if x._data.shape == tuple(shape) else BroadcastTo(tuple(shape))(x)


def sum_to(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The adjoint of `broadcast_to`: x summed down to `shape`."""
    return x if x._data.shape == shape else SumTo(shape)(x)


# --- arithmetic -------------------------------------------------------------------------------------------------------


class Add(Op):
    def forward(self, x, y):
        return x + y

    def backward(self, d):
        sx, sy = self.input_shapes
        return sum_to(d, sx) if self.needs[0] else None, sum_to(d, sy) if self.needs[1] else None


class Sub(Op):
    def forward(self, x, y):
        return x - y

    def backward(self, d):
        sx, sy = self.input_shapes
        return sum_to(d, sx) if self.needs[0] else None, sum_to(-d, sy) if self.needs[1] else None


class Mul(Op):
    def forward(self, x, y):
        return x * y

    def backward(self, d):
        x, y = self.inputs
        return (
            sum_to(d * y, x._data.shape) if self.needs[0] else None,
            sum_to(d * x, y._data.shape) if self.needs[1] else None,
        )


class Div(Op):
    """y = a / b: da = dy / b, db = -dy * a / b^2."""

    def forward(self, a, b):
        return a / b

    def backward(self, d):
        a, b = self.inputs
        da = d / b
        return (
            sum_to(da, a._data.shape) if self.needs[0] else None,
            sum_to(-da * (a / b), b._data.shape) if self.needs[1] else None,
        )


class Neg(Op):
    def forward(self, x):
        return -x

    def backward(self, d):
        return (-d,)


class Power(Op):
    """y = x^p: dx = p x^(p-1) dy and dp = y log(x) dy, which needs x > 0."""

    def forward(self, x, p):
        return x**p

    def backward(self, d):
        x, p = self.inputs
        dx = sum_to(d * p * x ** (p - 1.0), x._data.shape) if self.needs[0] else None
        dp = sum_to(d * x**p * log(x), p._data.shape) if self.needs[1] else None
        return dx, dp


class Square(Op):
    def forward(self, x):
        return x * x

    def backward(self, d):
        (x,) = self.inputs
        return (d * x * 2.0,)


class Astype(Op):
    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)

    def forward(self, x):
        return x.astype(self.dtype)

    def backward(self, d):
        return (d.astype(self.inputs[0].dtype),)


# --- smooth functions -------------------------------------------------------------------------------------------------


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


# --- piecewise functions: the derivative is a constant mask, the second derivative zero ---------------------------------


class LeakyReLU(Op):
    """y = x for x > 0, slope * x elsewhere (the slope also at 0, as in PyTorch)."""

    def __init__(self, slope: float) -> None:
        self.slope = slope

    def forward(self, x):
        if self.slope == 0.0:
            return np.maximum(x, 0)
        y = x * x.dtype.type(self.slope)
        return np.maximum(x, y, out=y) if self.slope < 1 else np.minimum(x, y, out=y)

    def backward(self, d):
        x = self.inputs[0]._data
        mask = np.where(x > 0, x.dtype.type(1), x.dtype.type(self.slope))
        return (d * Tensor(mask),)


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
        inside = np.ones(x.shape, dtype=bool)
        if self.low is not None:
            inside &= x >= self.low
        if self.high is not None:
            inside &= x <= self.high
        return (d * Tensor(inside.astype(x.dtype)),)


class Compare(NonDifferentiable):
    def __init__(self, relation: Callable[[Any, Any], Any]) -> None:
        self.relation = relation

    def forward(self, x, y):
        return self.relation(x, y)


# --- the functions ----------------------------------------------------------------------------------------------------


def add(x: Any, y: Any) -> Tensor:
    return Add()(*pair(x, y))


def sub(x: Any, y: Any) -> Tensor:
    return Sub()(*pair(x, y))


def mul(x: Any, y: Any) -> Tensor:
    return Mul()(*pair(x, y))


def div(x: Any, y: Any) -> Tensor:
    return Div()(*pair(x, y))


def neg(x: Tensor) -> Tensor:
    return Neg()(x)


def power(x: Any, p: Any) -> Tensor:
    """x ** p. The gradient with respect to p needs x > 0."""
    return Square()(x) if type(p) in (int, float) and p == 2 else Power()(*pair(x, p))


def square(x: Tensor) -> Tensor:
    return Square()(x)


def astype(x: Tensor, dtype: Any) -> Tensor:
    return x if x._data.dtype == dtype else Astype(dtype)(x)


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
    return Where(condition._data if isinstance(condition, Tensor) else np.asarray(condition))(*pair(x, y))


def clip(x: Tensor, low: float | None = None, high: float | None = None) -> Tensor:
    """x limited to [low, high]; None leaves a side open."""
    return Clip(low, high)(x)


def compare(relation: Callable[[Any, Any], Any], x: Any, y: Any) -> Tensor:
    """A boolean Tensor; it has no gradient."""
    return Compare(relation)(*pair(x, y))


_COND = np.arange(12).reshape(3, 4) % 3 == 0

EXAMPLES = {
    "broadcast_to": [example(lambda x: broadcast_to(x, (2, 3, 4)), (3, 1))],
    "add": [example(add, (3, 4), (3, 4)), example(add, (2, 3, 4), (3, 1)), example(lambda x: 2.0 + x, (3,))],
    "sub": [example(sub, (3, 4), (4,)), example(lambda x: 2.0 - x, (3,))],
    "mul": [example(mul, (3, 4), (3, 4)), example(mul, (2, 1, 4), (3, 1)), example(lambda x: x * x, (3,))],
    "div": [example(div, (3, 4), positive(3, 4)), example(div, (4,), positive(2, 1))],
    "neg": [example(neg, (3, 4))],
    "power": [example(lambda x: x**3, (3, 4)), example(power, positive(3, 4), (4,)), example(lambda x: x**2, (3,))],
    "square": [example(square, (3, 4))],
    "exp": [example(exp, (3, 4))],
    "log": [example(log, positive(3, 4))],
    "sqrt": [example(sqrt, positive(3, 4))],
    "tanh": [example(tanh, (3, 4))],
    "sigmoid": [example(sigmoid, (3, 4))],
    "softplus": [example(softplus, (3, 4))],
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
