"""What NumPy's functions are for device arrays: the tables that `DeviceArray` looks them up in."""

import numpy as np

from . import layout
from .device_array import (
    DeviceArray,
    binary,
    common,
    empty,
    full,
    launch_each,
    operand,
    origin,
    put,
    real,
    to_device,
    unary,
)


def where(held, a, b):
    (a, b), dtype = common(a, b)
    held = to_device(held).astype(bool, copy=False)
    shape = np.broadcast_shapes(held.shape, *(x.shape for x in (a, b) if isinstance(x, DeviceArray)))
    y = empty(shape, dtype)
    (pa, na, sa), (pb, nb, sb) = operand(a, shape), operand(b, shape)
    at = layout.layout(shape, layout.spread(held, shape), sa, sb)
    launch_each("arithmetic", "where", real(dtype), y.size, [origin(held), pa, pb, na, nb, y, at, y.size])
    return y


def _of(stem, kernel, result=None, swap=False):
    return lambda a, b: binary(stem, kernel, a, b, result, swap)


def _at(stem, kernel, result=None):
    return lambda x: unary(stem, kernel, x, result)


def _power(a, b):
    return a * a if isinstance(b, int) and b == 2 else binary("elementwise", "power", a, b)


UFUNCS = {name: _of("arithmetic", name) for name in ("add", "subtract", "multiply", "maximum", "minimum")}
UFUNCS |= {name: _of("arithmetic", name, np.bool_) for name in ("less", "less_equal", "equal", "not_equal")}
UFUNCS |= {name: _of("arithmetic", name, np.bool_) for name in ("bitwise_and", "bitwise_or")}
UFUNCS |= {f"greater{equal}": _of("arithmetic", f"less{equal}", np.bool_, True) for equal in ("", "_equal")}
UFUNCS |= {"divide": _of("elementwise", "divide"), "power": _power, "square": lambda x: x * x}
UFUNCS |= {name: _at("arithmetic", name) for name in ("negative", "absolute", "sign")}
UFUNCS |= {"invert": _at("arithmetic", "invert", np.bool_)}
UFUNCS |= {name: _at("elementwise", f"{name}_") for name in ("exp", "log", "log1p", "sqrt", "tanh")}
UFUNCS |= {name: _at("elementwise", f"{name}_", np.bool_) for name in ("isnan", "isfinite")}


def concatenate(parts, axis=0):
    shape = list(parts[0].shape)
    shape[axis] = sum(p.shape[axis] for p in parts)
    y, start = empty(shape, np.result_type(*[p.dtype for p in parts])), 0
    for part in parts:
        put(y[(slice(None),) * (axis % len(shape)) + (slice(start, start + part.shape[axis]),)], part)
        start += part.shape[axis]
    return y


def clip(x, low=None, high=None):
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def matmul(a, b):
    from .matmul import matmul_forward_cuda  # Numba is loaded only where it is needed

    left, right = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
    c = matmul_forward_cuda(left, right)
    return c.reshape(c.shape[: c.ndim - 2] + (() if a.ndim == 1 else c.shape[-2:-1]) + (() if b.ndim == 1 else c.shape[-1:]))


UFUNCS["matmul"] = matmul

FUNCTIONS = {
    "outer": lambda a, b: a.reshape(-1, 1) * b.reshape(1, -1),
    "vdot": lambda a, b: (a * b).sum(), "norm": lambda x: np.sqrt((x * x).sum()),
    "where": where, "concatenate": concatenate, "clip": clip,
    "argmax": DeviceArray.argmax, "argmin": DeviceArray.argmin, "sum": DeviceArray.sum, "mean": DeviceArray.mean,
    "zeros_like": lambda x, dtype=None, shape=None: full(x.shape if shape is None else shape, 0, dtype or x.dtype),
    "ones_like": lambda x, dtype=None, shape=None: full(x.shape if shape is None else shape, 1, dtype or x.dtype),
    "empty_like": lambda x, dtype=None, shape=None: empty(x.shape if shape is None else shape, dtype or x.dtype),
    "broadcast_to": lambda x, shape: x._view(tuple(shape), layout.spread(x, tuple(shape))),
    "swapaxes": DeviceArray.swapaxes, "reshape": DeviceArray.reshape, "transpose": DeviceArray.transpose,
    "shape": lambda x: x.shape,
}
