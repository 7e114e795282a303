"""Picking rows by index, and its adjoint: adding rows at an index.

    gather:       y[i] = w[index[i]]                 embedding lookup
    scatter_add:  w[j] = sum of y[i] over index[i] = j

Each is linear, and each is the other's gradient, so every order of differentiation exists. The index has none.

An index of the host is looked at: one out of range raises. An index on the device stays there, and nothing can raise where it
is read: picking a row that does not exist gives NaN (0 in integers), and what would be added to one is left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.autograd import Op
from minigen.device import constant, is_array, to_device
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


def on_device(index: Any) -> bool:
    """Whether this is an array in a device's memory."""
    return is_array(index) and not isinstance(index, np.ndarray)


def together(index: Any, device: str) -> Any:
    """The index where the data is, on `device`, as kernels take it. TypeError if it would have to come from another device."""
    if device != "cpu":
        return to_device(index.astype(np.int64, copy=False), device)
    if on_device(index):
        raise TypeError("the index is on the device and the data is not: move one of them with .to()")
    return index


def _as_index(index: Any, size: int, device: str) -> Any:
    index = index._data if isinstance(index, Tensor) else index
    index = index if on_device(index) else np.array(index)  # a copy: backward needs it as it was
    if index.dtype.kind not in "iu":
        raise TypeError(f"an index is made of integers, not {index.dtype}")
    if not on_device(index) and index.size and not (int(index.min()) >= 0 and int(index.max()) < size):
        raise IndexError(f"index out of range: found {int(index.min())}..{int(index.max())}, rows are 0..{size - 1}")
    return together(index, device)


def gather(weight: Tensor, index: Any) -> Tensor:
    """weight[index]: rows of `weight` (V, ...) at an integer array or Tensor, which has no gradient.

    Raises IndexError if an index of the host is out of range; TypeError if the index is on the device and the weight is not.
    """
    return Gather(_as_index(index, weight.shape[0], weight.device))(weight)


embedding = gather


def scatter_add(y: Tensor, index: Any, size: int) -> Tensor:
    """Zeros (size, ...) with row y[i] added at index[i]. Raises as `gather` does."""
    return ScatterAdd(_as_index(index, size, y.device), size)(y)


def one_hot(index: Any, classes: int) -> Tensor:
    """Integers (...) -> float32 (..., classes), where the index is. On a device, one out of range becomes a row of zeros."""
    index = index._data if isinstance(index, Tensor) else index
    if on_device(index):
        return Tensor((index[..., None] == constant(np.arange, classes)).astype(np.float32))
    return Tensor(np.eye(classes, dtype=np.float32)[index])


_INDEX = np.array([[0, 3], [3, 1]])

EXAMPLES = {
    "gather": [example(lambda w: gather(w, _INDEX), (5, 3))],
    "scatter_add": [example(lambda y: scatter_add(y, _INDEX, 5), (2, 2, 3))],
}
