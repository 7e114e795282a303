"""Arithmetic with broadcasting, and the pair that broadcasting is made of.

For z = f(x, y) applied to each element, a cotangent dz gives dx = dz * df/dx. Where a shape was broadcast, the gradient is
summed back over the broadcast axes: `sum_to` is the adjoint of `broadcast_to`, and the reverse. Each backward is written with
these same operations, so every order of differentiation exists. NumPy's functions dispatch on the array's type, so this file
serves device arrays too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minigen.autograd import NonDifferentiable, Op
from minigen.device import is_array
from minigen.ops.elementwise import log
from minigen.ops.example import example, positive
from minigen.tensor import FLOATS, Tensor


def as_tensor(x: Any, like: Tensor | None = None) -> Tensor:
    """x itself if it is a Tensor; else a constant, in `like`'s dtype if it is a plain number."""
    if isinstance(x, Tensor):
        return x
    if like is not None and isinstance(x, (int, float)):
        weak = like._data.dtype if like._data.dtype in FLOATS else None
        return Tensor(np.asarray(x, dtype=weak))
    return Tensor(x if is_array(x) else np.asarray(x))


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


class PowerBy(Op):
    """y = x^p for a number p: dx = p x^(p-1) dy; for p = 0 that is zero, whatever x."""

    def __init__(self, p: float) -> None:
        self.p = p

    def forward(self, x):
        return x**self.p

    def backward(self, d):
        return (d * 0.0 if self.p == 0 else d * self.p * power(self.inputs[0], self.p - 1),)


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
        self.source = x.dtype
        return x.astype(self.dtype)

    def backward(self, d):
        return (d.astype(self.source),)


class AstypeInteger(NonDifferentiable):
    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)

    def forward(self, x):
        return x.astype(self.dtype)


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
    if isinstance(x, Tensor) and isinstance(p, (int, float)):
        return Square()(x) if p == 2 else PowerBy(p)(x)
    return Power()(*pair(x, p))


def square(x: Tensor) -> Tensor:
    return Square()(x)


def astype(x: Tensor, dtype: Any) -> Tensor:
    if x._data.dtype == dtype:
        return x
    return Astype(dtype)(x) if np.dtype(dtype) in FLOATS else AstypeInteger(dtype)(x)


def compare(relation: Callable[[Any, Any], Any], x: Any, y: Any) -> Tensor:
    """A boolean Tensor; it has no gradient."""
    return Compare(relation)(*pair(x, y))


EXAMPLES = {
    "broadcast_to": [example(lambda x: broadcast_to(x, (2, 3, 4)), (3, 1))],
    "add": [example(add, (3, 4), (3, 4)), example(add, (2, 3, 4), (3, 1)), example(lambda x: 2.0 + x, (3,))],
    "sub": [example(sub, (3, 4), (4,)), example(lambda x: 2.0 - x, (3,))],
    "mul": [example(mul, (3, 4), (3, 4)), example(mul, (2, 1, 4), (3, 1)), example(lambda x: x * x, (3,))],
    "div": [example(div, (3, 4), positive(3, 4)), example(div, (4,), positive(2, 1))],
    "neg": [example(neg, (3, 4))],
    "power": [example(lambda x: x**3, (3, 4)), example(power, positive(3, 4), (4,)), example(lambda x: x**2, (3,))],
    "square": [example(square, (3, 4))],
}
