"""Picking rows by index, and its adjoint: adding rows at an index.

    gather:       y[i] = w[index[i]]                 embedding lookup
    scatter_add:  w[j] = sum of y[i] over index[i] = j

Each is linear, and each is the other's gradient, so every order of differentiation exists. The index has none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.autograd import Op
from minigen.dispatch import kernel
from minigen.ops.example import example
from minigen.tensor import Tensor


@kernel("gather")
def gather_forward(w_vd, index_n):
    """w (V, ...), index (...) of ints -> w[index], shape index.shape + w.shape[1:]."""
    return w_vd[index_n]


@kernel("gather")
def scatter_add_forward(y_nd, index_n, size):
    """y: index.shape + (...) -> (size, ...), rows with equal index added up in order."""
    w_vd = np.zeros_like(y_nd, shape=(size, *y_nd.shape[index_n.ndim :]))
    np.add.at(w_vd, index_n, y_nd)
    return w_vd


class Gather(Op):
    def __init__(self, index: Any) -> None:
        self.index = index

    def forward(self, w):
        return gather_forward(w, self.index)

    def backward(self, dy):
        return (ScatterAdd(self.index, self.input_shapes[0][0])(dy),)


class ScatterAdd(Op):
    def __init__(self, index: Any, size: int) -> None:
        self.index, self.size = index, size

    def forward(self, y):
        return scatter_add_forward(y, self.index, self.size)

    def backward(self, dw):
        return (Gather(self.index)(dw),)


def _as_index(index: Any, size: int) -> Any:
    index = np.array(index._data if isinstance(index, Tensor) else index)  # a copy: backward needs it as it was
    if index.dtype.kind not in "iu":
        raise TypeError(f"an index is made of integers, not {index.dtype}")
    if index.size and not (int(index.min()) >= 0 and int(index.max()) < size):
        raise IndexError(f"index out of range: found {int(index.min())}..{int(index.max())}, rows are 0..{size - 1}")
    return index


def gather(weight: Tensor, index: Any) -> Tensor:
    """weight[index]: rows of `weight` (V, ...) at an integer array or Tensor, which has no gradient."""
    return Gather(_as_index(index, weight.shape[0]))(weight)


embedding = gather


def scatter_add(y: Tensor, index: Any, size: int) -> Tensor:
    """Zeros (size, ...) with row y[i] added at index[i]."""
    return ScatterAdd(_as_index(index, size), size)(y)


_INDEX = np.array([[0, 3], [3, 1]])

EXAMPLES = {
    "gather": [example(lambda w: gather(w, _INDEX), (5, 3))],
    "scatter_add": [example(lambda y: scatter_add(y, _INDEX, 5), (2, 2, 3))],
}
