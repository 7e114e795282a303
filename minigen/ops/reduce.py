"""Reductions: sum, mean, variance, maximum, logsumexp. A sum's gradient is a broadcast, and the reverse.

`dim` is None (all axes), an int or a tuple, as in PyTorch; `keepdim` keeps reduced axes with size 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.autograd import NonDifferentiable, Op
from minigen.ops.arithmetic import broadcast_to, square
from minigen.ops.elementwise import exp
from minigen.ops.example import distinct, example
from minigen.tensor import Tensor

Dim = int | tuple[int, ...] | None


def _axes(dim: Any, ndim: int) -> tuple[int, ...]:
    if dim is None:
        return tuple(range(ndim))
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    for d in dims:
        if not -ndim <= d < ndim:
            raise IndexError(f"dim {d} of a tensor with {ndim} axes")
    return tuple(d % ndim for d in dims)


class Sum(Op):
    def __init__(self, axes: tuple[int, ...], keepdim: bool) -> None:
        self.axes, self.keepdim = axes, keepdim

    def forward(self, x):
        return x.sum(axis=self.axes, keepdims=self.keepdim)

    def backward(self, dy):
        shape = self.input_shapes[0]
        if not self.keepdim:
            dy = dy.reshape(tuple(1 if i in self.axes else n for i, n in enumerate(shape)))
        return (broadcast_to(dy, shape),)


class Max(Op):
    """The gradient goes to the maximum; several equal maxima share it equally, as in PyTorch's amax."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        self.axes = axes

    def forward(self, x):
        return x.max(axis=self.axes, keepdims=True)

    def backward(self, dy):
        x = self.inputs[0]._data
        hit = (x == x.max(axis=self.axes, keepdims=True)).astype(x.dtype)
        return (dy * Tensor(hit / hit.sum(axis=self.axes, keepdims=True)),)


class LogSumExp(Op):
    """y = m + log sum_i exp(x_i - m) with m = max x, which cannot overflow; dx = dy exp(x - y)."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        self.axes = axes

    def forward(self, x):
        m = x.max(axis=self.axes, keepdims=True)
        m = np.where(np.isfinite(m), m, 0)  # all -inf, or a +inf: nothing to shift by
        with np.errstate(divide="ignore", over="ignore"):
            self.y = np.log(np.exp(x - m).sum(axis=self.axes, keepdims=True)) + m
        return self.y

    def backward(self, dy):
        return (dy * exp(self.inputs[0] - self.output(self.y)),)


class Argmax(NonDifferentiable):
    def __init__(self, dim: int | None) -> None:
        self.dim = dim

    def forward(self, x):
        return np.argmax(x, axis=self.dim)


class Argmin(NonDifferentiable):
    def __init__(self, dim: int | None) -> None:
        self.dim = dim

    def forward(self, x):
        return np.argmin(x, axis=self.dim)


def _squeeze(y: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    return y if keepdim else y.reshape(tuple(n for i, n in enumerate(y.shape) if i not in axes))


def sum(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    return Sum(_axes(dim, x.ndim), keepdim)(x)


def mean(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    return sum(x, dim, keepdim) * (1.0 / count(x, dim))


def count(x: Tensor, dim: Dim) -> int:
    """How many elements each result of a reduction over `dim` is made of."""
    n = 1
    for a in _axes(dim, x.ndim):
        n *= x.shape[a]
    return n


def var(x: Tensor, dim: Dim = None, correction: int = 1, keepdim: bool = False) -> Tensor:
    """Sum of squared deviations over (n - correction): 1 is the unbiased estimate, 0 the biased one of batch norm."""
    return sum(square(x - mean(x, dim, True)), dim, keepdim) * (1.0 / (count(x, dim) - correction))


def max(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Values only (PyTorch's amax); positions are `argmax`'s."""
    axes = _axes(dim, x.ndim)
    return _squeeze(Max(axes)(x), axes, keepdim)


def argmax(x: Tensor, dim: int | None = None) -> Tensor:
    """int64 positions of the maximum, the first of equals; no gradient."""
    return Argmax(dim)(x)


def argmin(x: Tensor, dim: int | None = None) -> Tensor:
    """int64 positions of the minimum, the first of equals; no gradient."""
    return Argmin(dim)(x)


def logsumexp(x: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """log sum_i exp(x_i), without overflow."""
    axes = _axes(dim, x.ndim)
    return _squeeze(LogSumExp(axes)(x), axes, keepdim)


EXAMPLES = {
    "sum": [example(sum, (3, 4)), example(lambda x: sum(x, 1), (2, 3, 4)), example(lambda x: sum(x, (0, -1), True), (2, 3, 4))],
    "mean": [example(lambda x: mean(x, 0), (3, 4))],
    "var": [example(lambda x: var(x, 1), (3, 4)), example(lambda x: var(x, (0, 2), 0, True), (2, 3, 4))],
    "max": [example(lambda x: max(x, 1), distinct(3, 4)), example(max, distinct(3, 4))],
    "logsumexp": [example(lambda x: logsumexp(x, -1), (3, 4)), example(logsumexp, (5,))],
}
