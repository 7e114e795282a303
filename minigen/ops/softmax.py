"""Softmax, its logarithm, and the cross-entropy that is made of it, for each row x of an array (N, K):

    softmax         y_k = e^(x_k) / sum_j e^(x_j)               dx = y (dy - sum(dy y))
    log_softmax     l_k = x_k - log sum_j e^(x_j)               dx = dl - e^l sum(dl)
    cross_entropy   nll = log sum_j e^(x_j) - x_t               dx = (softmax(x) - onehot(t)) dnll

All subtract the row's maximum first, which changes nothing and cannot overflow. Each gradient is one kernel, an Op of its own,
and its gradient is composed of ops: with v the cotangent of dx, sums over k, and p = softmax(x),

    softmax         ddy = y (v - sum(v y)), dx once more: the matrix dx/dy is symmetric
                    dy  = v (dy - sum(dy y)) - dy sum(v y)
    log_softmax     ddl = v - sum(v e^l)                        dl = -v e^l sum(dl)
    cross_entropy   ddnll = sum(v (p - onehot(t)))              dx = dnll p (v - sum(v p))
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigen.autograd import Op
from minigen.dispatch import kernel
from minigen.ops.elementwise import exp
from minigen.ops.example import example
from minigen.tensor import Tensor


def _exponentials(x, axis):
    """x - max, and e to that."""
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted, np.exp(shifted)


def _softmax(x, axis):
    _, e = _exponentials(x, axis)
    return e / e.sum(axis=axis, keepdims=True)


def _softmax_back(dy, y, axis):
    return y * (dy - (dy * y).sum(axis=axis, keepdims=True))


def _log_softmax(x, axis):
    shifted, e = _exponentials(x, axis)
    return shifted - np.log(e.sum(axis=axis, keepdims=True))


def _log_softmax_back(dl, l, axis):
    return dl - np.exp(l) * dl.sum(axis=axis, keepdims=True)


@kernel("softmax")
def softmax_forward(x_nk):
    """-> y (N, K)."""
    return _softmax(x_nk, 1)


@kernel("softmax")
def softmax_backward(dy_nk, y_nk):
    """-> dx (N, K)."""
    return _softmax_back(dy_nk, y_nk, 1)


@kernel("softmax")
def log_softmax_forward(x_nk):
    """-> l (N, K)."""
    return _log_softmax(x_nk, 1)


@kernel("softmax")
def log_softmax_backward(dl_nk, l_nk):
    """-> dx (N, K)."""
    return _log_softmax_back(dl_nk, l_nk, 1)


# A target that is none of the K classes gives NaN in its row. On a device nothing can raise; the host looks before.

@kernel("softmax")
def cross_entropy_forward(x_nk, target_n):
    """x (N, K), target (N,) of ints -> nll (N,)."""
    shifted_nk, e_nk = _exponentials(x_nk, 1)
    known_n = (target_n >= 0) & (target_n < x_nk.shape[1])
    chosen_n = shifted_nk[np.arange(len(x_nk)), np.where(known_n, target_n, 0)]
    return np.where(known_n, np.log(e_nk.sum(axis=1)) - chosen_n, np.nan)


@kernel("softmax")
def cross_entropy_backward(dnll_n, x_nk, target_n):
    """-> dx (N, K)."""
    _, e_nk = _exponentials(x_nk, 1)
    known_n = (target_n >= 0) & (target_n < x_nk.shape[1])
    onehot_nk = target_n[:, None] == np.arange(x_nk.shape[1])
    return (e_nk / e_nk.sum(axis=1, keepdims=True) - onehot_nk) * np.where(known_n, dnll_n, np.nan)[:, None]


class _AlongDim(Op):
    """A kernel of rows, on arrays of any shape whose rows lie along axis `dim`."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def along(self, of_rows: Any, formula: Any, *arrays: Any) -> Any:
        """of_rows(*arrays), or in NumPy, where rows are not dense, its formula: to turn the arrays round would take longer."""
        shape, dim = arrays[0].shape, self.dim
        if dim in (-1, len(shape) - 1):
            return of_rows(*[a.reshape(_by_row(shape)) for a in arrays]).reshape(shape)
        if isinstance(arrays[0], np.ndarray):
            return formula(*arrays, dim)
        turned = [a.swapaxes(dim, -1) for a in arrays]
        by_row = [a.reshape(_by_row(a.shape)) for a in turned]
        return of_rows(*by_row).reshape(turned[0].shape).swapaxes(dim, -1)


def _by_row(shape: tuple[int, ...]) -> tuple[int, int]:
    """(..., K) -> (N, K). Counted, because reshape's -1 has no answer where there are no rows."""
    return math.prod(shape[:-1]), shape[-1]


class Softmax(_AlongDim):
    def forward(self, x):
        self.y = self.along(softmax_forward, _softmax, x)
        return self.y

    def backward(self, dy):
        return (SoftmaxGrad(self.dim)(dy, self.output(self.y)),)


class SoftmaxGrad(_AlongDim):
    def forward(self, dy, y):
        return self.along(softmax_backward, _softmax_back, dy, y)

    def backward(self, v):
        dy, y = self.inputs
        to_dy = SoftmaxGrad(self.dim)(v, y) if self.needs[0] else None
        to_y = v * (dy - _sum(dy * y, self.dim)) - dy * _sum(v * y, self.dim) if self.needs[1] else None
        return to_dy, to_y


class LogSoftmax(_AlongDim):
    def forward(self, x):
        self.y = self.along(log_softmax_forward, _log_softmax, x)
        return self.y

    def backward(self, dl):
        return (LogSoftmaxGrad(self.dim)(dl, self.output(self.y)),)


class LogSoftmaxGrad(_AlongDim):
    def forward(self, dl, l):
        return self.along(log_softmax_backward, _log_softmax_back, dl, l)

    def backward(self, v):
        dl, l = self.inputs
        weighted = v * exp(l)
        to_dl = v - _sum(weighted, self.dim) if self.needs[0] else None
        to_l = -weighted * _sum(dl, self.dim) if self.needs[1] else None
        return to_dl, to_l


class CrossEntropy(Op):
    """x (N, K) -> nll (N,). The targets (N,) are an array where x is; they have no gradient."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def forward(self, x):
        return cross_entropy_forward(x, self.target)

    def backward(self, dnll):
        return (CrossEntropyGrad(self.target)(dnll, self.inputs[0]),)


class CrossEntropyGrad(Op):
    def __init__(self, target: Any) -> None:
        self.target = target

    def forward(self, dnll, x):
        return cross_entropy_backward(dnll, x, self.target)

    def backward(self, v):
        dnll, x = self.inputs
        to_dnll = to_x = None
        if self.needs[0]:  # at dnll = 1 this Op's value is p - onehot(t)
            to_dnll = (v * CrossEntropyGrad(self.target)(Tensor(np.ones_like(dnll._data)), x)).sum(1)
        if self.needs[1]:
            to_x = SoftmaxGrad(1)(v * dnll.reshape(-1, 1), softmax(x))
        return to_dnll, to_x


def _sum(x: Tensor, dim: int) -> Tensor:
    return x.sum(dim, keepdim=True)


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
