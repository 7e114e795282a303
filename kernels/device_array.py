"""DeviceArray: an array in device memory that NumPy's functions take.

    x = to_device(np.ones((3, 4), np.float32))
    y = np.tanh(x + 1).sum(axis=0)          three kernels; y is a DeviceArray
    y.get()                                 a NumPy array

NumPy asks an array that is not its own what `add`, `where` or `concatenate` should do with it (NEP 13 and NEP 18): the
definitions in `minigen/ops/` therefore run here as they are, each function as one launch of `arithmetic.cu`, `elementwise.cu`
or `reduce.cu`. What `device_functions.py` does not list raises TypeError: nothing is copied to the host in silence.

Views (transposed, sliced, broadcast) cost nothing, as in NumPy; kernels that want dense memory are given a dense copy.
Arrays have fewer than 2^31 elements and, after neighbouring axes are merged, at most six axes.
"""

import math

import numpy as np

from . import cuda, layout

BLOCK = 256                 # threads of a block
SUMMING, SIDE = 128, 64     # those of a block that sums; rows and columns of a block's part of a product
FEW = 64                    # elements of a sum from which a block is worth it
MOVED = {np.dtype(t): np.dtype(t).name for t in (np.bool_, np.uint8, np.int32, np.int64, np.float32, np.float64)}


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """`memory`, and where in it the elements are: `shape`, `strides` and `offset` in elements, `dtype`."""

    __array_priority__ = 100

    def __init__(self, memory, shape, dtype, strides=None, offset=0):
        self.memory, self.shape, self.dtype, self.offset = memory, tuple(shape), np.dtype(dtype), offset
        self.strides = layout.dense(self.shape) if strides is None else tuple(strides)

    # --- what it is ---------------------------------------------------------------------------------------------------

    @property
    def ndim(self):
        return len(self.shape)

    @property
    def size(self):
        return math.prod(self.shape)

    @property
    def itemsize(self):
        return self.dtype.itemsize

    @property
    def nbytes(self):
        return self.size * self.itemsize

    @property
    def address(self):
        return self.memory.address + self.offset * self.itemsize

    @property
    def contiguous(self):
        return all(n == 1 or a == b for n, a, b in zip(self.shape, self.strides, layout.dense(self.shape), strict=True))

    @property
    def T(self):
        return self.transpose()

    def __len__(self):
        return self.shape[0]

    def __repr__(self):
        return f"DeviceArray({np.array2string(self.get(), prefix='DeviceArray(')}, dtype={self.dtype})"

    # --- to and from the host -----------------------------------------------------------------------------------------

    def get(self):
        """A NumPy array with the same elements."""
        host, dense = np.empty(self.shape, self.dtype), dense_copy(self)
        if host.size:
            cuda.backend().download(dense.memory, dense.offset * self.itemsize, host)
        return host

    def __array__(self, *_, **__):
        raise TypeError("a DeviceArray is no NumPy array, and nothing is copied in silence: .get() makes one")

    def item(self):
        return self.get().item()

    def __bool__(self):
        return bool(self.item())

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __dlpack__(self, **options):
        return cuda.backend().as_theirs(self).__dlpack__(**options)

    def __dlpack_device__(self):
        return cuda.backend().as_theirs(self).__dlpack_device__()

    # --- views --------------------------------------------------------------------------------------------------------

    def _view(self, shape, strides, offset=None):
        return DeviceArray(self.memory, shape, self.dtype, strides, self.offset if offset is None else offset)

    def reshape(self, *shape):
        shape = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
        if -1 in shape:
            known = -math.prod(shape)
            shape = tuple((self.size // known if known else 0) if n == -1 else n for n in shape)
        if math.prod(shape) != self.size:
            raise ValueError(f"cannot reshape {self.shape} into {shape}")
        return dense_copy(self)._view(shape, layout.dense(shape))

    def transpose(self, *axes):
        axes = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        axes = tuple(range(self.ndim))[::-1] if not axes else tuple(a % self.ndim for a in axes)
        return self._view([self.shape[a] for a in axes], [self.strides[a] for a in axes])

    def swapaxes(self, a, b):
        axes = list(range(self.ndim))
        axes[a], axes[b] = axes[b], axes[a]
        return self.transpose(axes)

    def __getitem__(self, index):
        index = index if isinstance(index, tuple) else (index,)
        if any(isinstance(i, (list, np.ndarray, DeviceArray)) for i in index):
            raise TypeError("a DeviceArray is indexed with numbers, slices, None and ..; for arrays of indices there is gather")
        # A view of numbers 0, 1, .. with the same strides is where NumPy itself says what an index selects.
        like = np.lib.stride_tricks.as_strided(np.empty(0, np.int8), self.shape, self.strides)
        part = like[index]
        if not isinstance(part, np.ndarray):
            part = like[(*index, None)].reshape(())
        start = part.__array_interface__["data"][0] - like.__array_interface__["data"][0]
        return self._view(part.shape, part.strides, self.offset + (start if part.size else 0))

    def __setitem__(self, index, value):
        put(self[index], value)

    # --- copies -------------------------------------------------------------------------------------------------------

    def astype(self, dtype, copy=True):
        dtype = np.dtype(dtype)
        if dtype == self.dtype:
            return self.copy() if copy else self
        return unary("arithmetic", f"to_{MOVED[dtype]}", self, dtype)

    def copy(self):
        made = empty(self.shape, self.dtype)
        put(made, self)
        return made

    # --- reductions ---------------------------------------------------------------------------------------------------

    def sum(self, axis=None, dtype=None, out=None, keepdims=False):
        wanted = dtype or (np.int64 if self.dtype.kind in "biu" else self.dtype)
        return reduce("sum", self.astype(wanted, copy=False), axis, keepdims)

    def mean(self, axis=None, dtype=None, out=None, keepdims=False):
        count = math.prod(self.shape[a] for a in axes(axis, self.ndim))
        return self.sum(axis, keepdims=keepdims) * (1.0 / count)

    def max(self, axis=None, out=None, keepdims=False):
        return reduce("largest", self, axis, keepdims)

    def min(self, axis=None, out=None, keepdims=False):
        return reduce("smallest", self, axis, keepdims)

    def any(self, axis=None, out=None, keepdims=False):
        return reduce("largest", self.astype(bool, copy=False), axis, keepdims)

    def all(self, axis=None, out=None, keepdims=False):
        return reduce("smallest", self.astype(bool, copy=False), axis, keepdims)

    def argmax(self, axis=None, out=None):
        return reduce("position", self, axis, False, 1)

    def argmin(self, axis=None, out=None):
        return reduce("position", self, axis, False, -1)

    # --- what NumPy asks ----------------------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        from .device_functions import UFUNCS

        if method != "__call__" or options or ufunc.__name__ not in UFUNCS:
            return NotImplemented
        result = UFUNCS[ufunc.__name__](*inputs)
        if out is None:
            return result
        put(out[0], result)
        return out[0]

    def __array_function__(self, function, types, args, kwargs):
        from .device_functions import FUNCTIONS

        if function.__name__ not in FUNCTIONS:
            return NotImplemented
        return FUNCTIONS[function.__name__](*args, **kwargs)


# --- making arrays ----------------------------------------------------------------------------------------------------

def empty(shape, dtype):
    """Uninitialised: under the emulator, NaN."""
    dtype = np.dtype(dtype)
    if dtype not in MOVED:
        raise TypeError(f"device arrays are {', '.join(MOVED.values())}, not {dtype}")
    size = math.prod(shape)
    if size >= 2**31:
        raise ValueError(f"a device array of shape {tuple(shape)} has 2^31 elements or more")
    return DeviceArray(cuda.backend().allocate(size * dtype.itemsize), shape, dtype)


def full(shape, value, dtype):
    made = empty(shape, dtype)
    put(made, value)
    return made


def to_device(host):
    """A copy in device memory of a NumPy array (or of what np.asarray makes one of); a DeviceArray itself."""
    if isinstance(host, DeviceArray):
        return host
    host = np.asarray(host, order="C")
    made = empty(host.shape, host.dtype)
    if host.size:
        cuda.backend().upload(made.memory, 0, host)
    return made


def from_dlpack(theirs):
    """On the memory of an array that another library keeps on the GPU."""
    return DeviceArray(*cuda.backend().adopted(theirs))


def dense_copy(x):
    """x itself if its elements lie in order without gaps; otherwise a copy of which that is true."""
    return x if x.contiguous else x.copy()


# --- elementwise ------------------------------------------------------------------------------------------------------

def launch_each(stem, kernel, dtype, n, arguments):
    """One thread for each of n elements."""
    cuda.launch(stem, kernel, dtype, -(-n // BLOCK), BLOCK, arguments)


def launch_sums(stem, kernel, dtype, n, arguments, shared=0):
    """One block for each of n sums, or the like: block_sum.cuh."""
    cuda.launch(stem, kernel, dtype, n, SUMMING, arguments, shared)


def launch_gemm(stem, kernel, dtype, m, n, parts, arguments):
    """`parts` products of m rows and n columns: gemm.cuh."""
    cuda.launch(stem, kernel, dtype, (-(-n // SIDE), -(-m // SIDE), parts), BLOCK, arguments)


def real(dtype):
    """What `real` is for elements of this kind: truth values are bytes."""
    return np.dtype(np.uint8) if dtype == np.bool_ else dtype


def origin(x):
    """An array whose address is that of x's first element, whatever its strides: launches want dense arrays."""
    return DeviceArray(x.memory, (1,), x.dtype, (1,), x.offset)


def unary(stem, kernel, x, dtype=None):
    y = empty(x.shape, dtype or x.dtype)
    launch_each(stem, kernel, real(x.dtype), y.size, [origin(x), y, layout.layout(y.shape, layout.spread(x, y.shape)), y.size])
    return y


def common(*xs):
    """Operands of one dtype: device arrays, and numbers. A plain number takes the dtype of the arrays (NEP 50)."""
    xs = [to_device(x) if isinstance(x, np.ndarray) and x.ndim else x.item() if isinstance(x, np.ndarray) else x for x in xs]
    dtype = np.result_type(*[np.empty(0, x.dtype) if isinstance(x, DeviceArray) else x for x in xs])
    return [x.astype(dtype, copy=False) if isinstance(x, DeviceArray) else x for x in xs], dtype


def operand(x, shape):
    """(array or None, number, strides)."""
    if isinstance(x, DeviceArray):
        return origin(x), 0, layout.spread(x, shape)
    return None, x, (0,) * len(shape)


def binary(stem, kernel, a, b, result=None, swap=False):
    (a, b), dtype = common(*((b, a) if swap else (a, b)))
    if dtype.kind in "biu" and stem == "elementwise":
        dtype = np.dtype(np.float64)
        a, b = (x.astype(dtype) if isinstance(x, DeviceArray) else x for x in (a, b))
    shape = np.broadcast_shapes(*(x.shape for x in (a, b) if isinstance(x, DeviceArray)))
    y = empty(shape, result or dtype)
    (pa, na, sa), (pb, nb, sb) = operand(a, shape), operand(b, shape)
    launch_each(stem, kernel, real(dtype), y.size, [pa, pb, na, nb, y, layout.layout(shape, sa, sb), y.size])
    return y


def put(y, value):
    """Write an array or a number into y, which may be any view."""
    if isinstance(value, np.ndarray):
        value = to_device(value) if value.ndim else value.item()
    if isinstance(value, DeviceArray):
        value = value.astype(y.dtype, copy=False)
    source, number, strides = operand(value, y.shape)
    if source is not None and source.memory is y.memory and (source.offset, strides) != (y.offset, y.strides):
        put(y, value.copy())        # they may overlap, and not element by element
        return
    zeros = (0,) * y.ndim
    at = layout.layout(y.shape, strides, zeros, y.strides)
    launch_each("arithmetic", "put", real(y.dtype), y.size, [source, number, origin(y), at, y.size])


# --- reductions -------------------------------------------------------------------------------------------------------

def axes(axis, ndim):
    axis = tuple(range(ndim)) if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
    return tuple(a % ndim for a in axis)


def reduce(kernel, x, axis, keepdims, sign=None):
    over = axes(axis, x.ndim)
    kept = tuple(a for a in range(x.ndim) if a not in over)
    y = empty([x.shape[a] for a in kept], np.int64 if sign else x.dtype)
    kept_shape = tuple(1 if a in over else n for a, n in enumerate(x.shape))
    count = math.prod(x.shape[a] for a in over)
    if count == 0:
        if kernel != "sum":
            raise ValueError("the largest or smallest of no elements")
        put(y, 0)
    elif y.size:
        parts = _merged(x, kept), _merged(x, over)
        if any(len(p) > 3 for p in parts):
            x = dense_copy(x.transpose(kept + over))
            parts = _merged(x, range(len(kept))), _merged(x, range(len(kept), x.ndim))
        outer, inner = (layout.packed(p, 3, 1) for p in parts)
        at = outer[0] + inner[0] + outer[1] + inner[1] + [0] * 2 * layout.AXES
        given = [origin(x), y, *([sign] if sign else []), at, count]
        if count < FEW and not sign:
            launch_each("reduce", f"{kernel}_few", real(x.dtype), y.size, [*given, y.size])
        else:
            launch_sums("reduce", kernel, real(x.dtype), y.size, given)
    return y.reshape(kept_shape) if keepdims else y


def _merged(x, axes):
    return layout.merged([x.shape[a] for a in axes], [x.strides[a] for a in axes])
