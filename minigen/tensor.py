"""Tensor: an array that knows where it came from.

The array lives in `.data`; `op` and `index` say which output of which operation it is (None for a leaf). Operators and
methods are thin: each calls the function of the same name in `minigen.ops`, where the mathematics is.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

Array = Any
CUDA = 2  # among DLPack's device types
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class Tensor:
    """An n-dimensional array with a gradient.

    data            the array (NumPy on the CPU)
    requires_grad   whether operations on it are recorded
    grad            Tensor or None; filled by `backward()`, on leaves only
    op, index       the Op that made it and which of its outputs it is; None, 0 for a leaf

    Assigning to `.data`, and `assign`, count as in-place changes: backward through a graph that saved the old value
    raises. After writing *into* the array by hand (`t.data[...] = 0`), call `t.bump()`.
    """

    __slots__ = ("__weakref__", "_data", "_version", "grad", "index", "op", "requires_grad")
    __array_priority__ = 1000  # ndarray + Tensor asks Tensor, not ndarray, to add

    _data: Array
    requires_grad: bool
    grad: Tensor | None
    op: Any
    index: int

    def __init__(self, data: Array, requires_grad: bool = False) -> None:
        if requires_grad and data.dtype not in FLOATS:
            raise TypeError(f"only float32 and float64 tensors can require a gradient, not {data.dtype}")
        self._data = data
        self.requires_grad = requires_grad
        self.grad = None
        self.op = None
        self.index = 0
        self._version = [0]  # a list, so that views and detached Tensors share one count with their base

    # --- what it is -------------------------------------------------------------------------------------------------

    @property
    def data(self) -> Array:
        return self._data

    @data.setter
    def data(self, array: Array) -> None:
        if array.shape != self._data.shape:
            raise ValueError(f"new data of shape {array.shape} for a tensor of shape {self._data.shape}")
        self._data = array
        self._version[0] += 1

    def assign(self, array: Array) -> None:
        """Copy `array` into this Tensor's memory (broadcasting, casting to its dtype)."""
        self._data[...] = array
        self._version[0] += 1

    def bump(self) -> None:
        """Say that the memory was written to: graphs that saved the old value will refuse to use it."""
        self._version[0] += 1

    @property
    def version(self) -> int:
        return self._version[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return self._data.shape  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        return self._data.ndim  # type: ignore[no-any-return]

    @property
    def size(self) -> int:
        return self._data.size  # type: ignore[no-any-return]

    @property
    def dtype(self) -> Any:
        return self._data.dtype

    @property
    def device(self) -> str:
        return "cpu" if isinstance(self._data, np.ndarray) else "cuda"

    @property
    def T(self) -> Tensor:
        return ops.transpose(self, -2, -1)

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        body = np.array2string(self.detach().numpy(), precision=4, separator=", ", threshold=20, prefix="tensor(")
        kind = "" if self._data.dtype == np.float32 else f", dtype={self._data.dtype}"
        made = f", op={self.op.name}" if self.op is not None else ", requires_grad=True" if self.requires_grad else ""
        return f"tensor({body}{kind}{made})"

    # --- out of the graph, and to other libraries -------------------------------------------------------------------

    def detach(self) -> Tensor:
        """The same values without the graph. Shares memory, and therefore the version."""
        t = Tensor(self._data)
        t._version = self._version
        return t

    def numpy(self) -> np.ndarray[Any, Any]:
        """The values as a NumPy array; shares memory on the CPU."""
        if self.requires_grad:
            raise RuntimeError("this tensor is part of a graph; use .detach().numpy()")
        return self._data if isinstance(self._data, np.ndarray) else self._data.get()

    def item(self) -> Any:
        return self._data.item()

    def to(self, device: str) -> Tensor:
        """The same values on "cpu" or "cuda"; itself if it is there. UserError names what is missing for "cuda"."""
        return ops.to(self, device)

    def __dlpack__(self, **kwargs: Any) -> Any:
        if self.requires_grad:
            raise BufferError("this tensor is part of a graph; exchange .detach()")
        return self._data.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return self._data.__dlpack_device__()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def backward(self, gradient: Any = None, create_graph: bool = False, retain_graph: bool | None = None) -> None:
        """Add d(self)/d(leaf) to `.grad` of every leaf; see `minigen.autograd.backward`."""
        autograd.backward(self, gradient, create_graph, retain_graph)

    # --- operators: each is the function of the same name in minigen.ops ----------------------------------------------

    def __add__(self, other: Any) -> Tensor:
        return ops.add(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return ops.add(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return ops.sub(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return ops.sub(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return ops.mul(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return ops.mul(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return ops.div(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return ops.div(other, self)

    def __pow__(self, exponent: Any) -> Tensor:
        return ops.power(self, exponent)

    def __rpow__(self, base: Any) -> Tensor:
        return ops.power(base, self)

    def __matmul__(self, other: Any) -> Tensor:
        return ops.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return ops.matmul(other, self)

    def __neg__(self) -> Tensor:
        return ops.neg(self)

    def __abs__(self) -> Tensor:
        return ops.abs(self)

    def __getitem__(self, index: Any) -> Tensor:
        return ops.getitem(self, index)

    # Comparisons give boolean Tensors, which have no gradient. `==` included: Tensors hash by identity all the same.

    def __lt__(self, other: Any) -> Tensor:
        return ops.compare(operator.lt, self, other)

    def __le__(self, other: Any) -> Tensor:
        return ops.compare(operator.le, self, other)

    def __gt__(self, other: Any) -> Tensor:
        return ops.compare(operator.gt, self, other)

    def __ge__(self, other: Any) -> Tensor:
        return ops.compare(operator.ge, self, other)

    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]
        return ops.compare(operator.eq, self, other)

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]
        return ops.compare(operator.ne, self, other)

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        return bool(self._data)

    # --- methods ------------------------------------------------------------------------------------------------------

    def astype(self, dtype: Any) -> Tensor:
        return ops.astype(self, dtype)

    def reshape(self, *shape: Any) -> Tensor:
        return ops.reshape(self, shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape)

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        return ops.transpose(self, dim0, dim1)

    def permute(self, *dims: Any) -> Tensor:
        return ops.permute(self, dims[0] if len(dims) == 1 and isinstance(dims[0], (tuple, list)) else dims)

    def sum(self, dim: Any = None, keepdim: bool = False) -> Tensor:
        return ops.sum(self, dim, keepdim)

    def mean(self, dim: Any = None, keepdim: bool = False) -> Tensor:
        return ops.mean(self, dim, keepdim)

    def var(self, dim: Any = None, correction: int = 1, keepdim: bool = False) -> Tensor:
        return ops.var(self, dim, correction, keepdim)

    def max(self, dim: Any = None, keepdim: bool = False) -> Tensor:
        return ops.max(self, dim, keepdim)

    def argmax(self, dim: int | None = None) -> Tensor:
        return ops.argmax(self, dim)

    def argmin(self, dim: int | None = None) -> Tensor:
        return ops.argmin(self, dim)

    def exp(self) -> Tensor:
        return ops.exp(self)

    def log(self) -> Tensor:
        return ops.log(self)

    def sqrt(self) -> Tensor:
        return ops.sqrt(self)

    def tanh(self) -> Tensor:
        return ops.tanh(self)

    def sigmoid(self) -> Tensor:
        return ops.sigmoid(self)

    def relu(self) -> Tensor:
        return ops.relu(self)


def tensor(data: Any, requires_grad: bool = False, dtype: Any = None, device: str | None = None) -> Tensor:
    """A new leaf Tensor with a copy of `data` (numbers, nested lists, an array or a Tensor).

    dtype: as given; else a NumPy array keeps its own, Python floats become float32, ints and bools int64 and bool.
    """
    source = data._data if isinstance(data, Tensor) else data
    if dtype is None and not hasattr(source, "dtype"):
        kind = np.asarray(source).dtype.kind
        dtype = np.float32 if kind == "f" or (kind in "iu" and requires_grad) else None
    array = np.array(source, dtype=dtype)
    if array.dtype.kind not in "fiub" or array.dtype == np.float16:
        raise TypeError(f"a tensor holds float32, float64, integers or booleans, not {array.dtype}")
    t = Tensor(array, requires_grad)
    return t if device is None else t.to(device)


def from_dlpack(x: Any) -> Tensor:
    """A Tensor on the memory of another library's array (NumPy, PyTorch, CuPy...), without a copy.

    Changes made on either side are seen on both; they do not bump the version.
    """
    if x.__dlpack_device__()[0] == CUDA:
        from minigen.kernels.device_array import from_dlpack as from_gpu

        return Tensor(from_gpu(x))
    return Tensor(np.from_dlpack(x))


# Tensor's operators are ops, and ops make Tensors: the one cycle in the project. It is closed here, at the end, where
# Tensor is already defined.
from minigen import autograd, ops  # noqa: E402
