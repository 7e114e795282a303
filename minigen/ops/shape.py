"""Moving elements without changing them. Each op's adjoint puts the elements back; slicing and padding are a pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigen.autograd import Op
from minigen.device import to_device
from minigen.ops.example import example
from minigen.tensor import Tensor


class Reshape(Op):
    view = True

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def forward(self, x):
        return x.reshape(self.shape)

    def backward(self, dy):
        return (reshape(dy, self.input_shapes[0]),)


class Permute(Op):
    view = True

    def __init__(self, dims: tuple[int, ...]) -> None:
        self.dims = dims

    def forward(self, x):
        return x.transpose(self.dims)

    def backward(self, dy):
        return (Permute(tuple(int(i) for i in np.argsort(self.dims)))(dy),)


class Concatenate(Op):
    def __init__(self, dim: int) -> None:
        self.dim = dim

    def forward(self, *xs):
        return np.concatenate(xs, axis=self.dim)

    def backward(self, dy):
        grads = []
        start = 0
        for shape, need in zip(self.input_shapes, self.needs, strict=True):
            stop = start + shape[self.dim]
            grads.append(getitem(dy, (slice(None),) * self.dim + (slice(start, stop),)) if need else None)
            start = stop
        return grads


class GetItem(Op):
    """x[index] for ints, slices, None and Ellipsis: a view. Its adjoint writes dy into zeros at the same place."""

    view = True

    def __init__(self, index: Any) -> None:
        self.index = index

    def forward(self, x):
        return x[self.index]

    def backward(self, dy):
        return (PutItem(self.index, self.input_shapes[0])(dy),)


class PutItem(Op):
    def __init__(self, index: Any, shape: tuple[int, ...]) -> None:
        self.index, self.shape = index, shape

    def forward(self, y):
        x = np.zeros_like(y, shape=self.shape)
        x[self.index] = y
        return x

    def backward(self, dx):
        return (GetItem(self.index)(dx),)


class To(Op):
    def __init__(self, device: str) -> None:
        self.device = device

    def forward(self, x):
        return to_device(x, self.device)

    def backward(self, dy):
        return (to(dy, self.inputs[0].device),)


def to(x: Tensor, device: str) -> Tensor:
    """The same elements in the memory of "cpu" or "cuda"."""
    return x if x.device == device else To(device)(x)


def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    """The same elements in row-major order under a new shape; one size may be -1."""
    return Reshape(tuple(shape))(x)


def permute(x: Tensor, dims: Sequence[int]) -> Tensor:
    """Axes in a new order: axis i of the result is axis dims[i] of x."""
    return Permute(tuple(d % x.ndim for d in dims))(x)


def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two axes exchanged."""
    dims = list(range(x.ndim))
    dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
    return permute(x, dims)


def concatenate(xs: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors joined along an existing axis."""
    return Concatenate(dim % xs[0].ndim)(*xs)


def stack(xs: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape joined along a new axis."""
    dim = dim % (xs[0].ndim + 1)
    return concatenate([reshape(x, x.shape[:dim] + (1,) + x.shape[dim:]) for x in xs], dim)


def getitem(x: Tensor, index: Any) -> Tensor:
    """x[index]: ints, slices, None, Ellipsis; an integer array or Tensor picks rows of axis 0, as `gather` does."""
    parts = index if isinstance(index, tuple) else (index,)
    if all(p is None or p is Ellipsis or isinstance(p, (int, np.integer, slice)) for p in parts):
        return GetItem(index)(x)
    if len(parts) == 1:
        from minigen.ops.gather import gather

        return gather(x, parts[0])
    raise TypeError("a tensor is indexed by ints, slices, None and Ellipsis, or by one integer array on axis 0")


def pad(x: Tensor, widths: Sequence[tuple[int, int]]) -> Tensor:
    """Zeros around x: one (before, after) for each axis, as in numpy.pad. The adjoint of a slice."""
    if len(widths) != x.ndim:
        raise ValueError(f"{len(widths)} pairs of widths for {x.ndim} axes")
    index = tuple(slice(a, a + n) for (a, _), n in zip(widths, x.shape, strict=True))
    shape = tuple(a + n + b for (a, b), n in zip(widths, x.shape, strict=True))
    return PutItem(index, shape)(x)


EXAMPLES = {
    "to": [example(lambda x: 2.0 * to(x, "cpu"), (2, 3))],
    "reshape": [example(lambda x: reshape(x, (4, -1)), (2, 3, 4))],
    "permute": [example(lambda x: permute(x, (2, 0, 1)), (2, 3, 4)), example(lambda x: transpose(x, 0, -1), (2, 3, 4))],
    "concatenate": [example(lambda x, y: concatenate([x, y], 1), (2, 3), (2, 4))],
    "stack": [example(lambda x, y: stack([x, y], -1), (2, 3), (2, 3))],
    "getitem": [
        example(lambda x: x[1], (3, 4)),
        example(lambda x: x[:, ::2, None], (3, 5)),
        example(lambda x: x[..., -1], (2, 3, 4)),
    ],
    "pad": [example(lambda x: pad(x, [(1, 0), (2, 3)]), (2, 3))],
}
