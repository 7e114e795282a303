"""Adding up rows that share an index, on the CPU: the gradient of an embedding, and the sums of a codebook.

    w[j] = sum of y[i] over index[i] = j, in the order of i

Tasks own columns, not rows: no two write the same number, and every sum runs in the reference's order, so the result is the
reference's to the last bit. (Picking rows has no version here: NumPy's own is as fast as memory.)
"""

import math

import numpy as np
from numba import get_num_threads, njit, prange

from . import threads  # noqa: F401  before the first kernel is compiled
from .device_array import dense_copy, empty, launch_each, launch_sums, to_device

STRIP = 32  # columns of a task, at least: two cache lines of float32


@njit(cache=True, parallel=True)
def _scatter_add(y_nd, index_n, w_vd, columns):
    count, size = y_nd.shape
    for strip in prange((size + columns - 1) // columns):
        first, last = strip * columns, min((strip + 1) * columns, size)
        for n in range(count):
            y_d, w_d = y_nd[n, first:last], w_vd[index_n[n], first:last]
            for d in range(last - first):
                w_d[d] += y_d[d]


def scatter_add_forward_cpu(y_nd, index_n, size):
    rest = y_nd.shape[index_n.ndim:]
    if y_nd.shape[:index_n.ndim] != index_n.shape:
        raise ValueError(f"scatter_add_forward: y {y_nd.shape} does not begin with the shape of the index {index_n.shape}")
    if index_n.size and not (index_n.min() >= 0 and index_n.max() < size):
        raise IndexError(f"scatter_add_forward: index {index_n.min()}..{index_n.max()} for {size} rows")
    w_vd = np.zeros((size, *rest), y_nd.dtype)
    width = int(np.prod(rest))
    columns = max(STRIP, -(-width // get_num_threads()))
    _scatter_add(np.ascontiguousarray(y_nd).reshape(index_n.size, width),
                 np.ascontiguousarray(index_n, np.int64).reshape(-1), w_vd.reshape(size, width), columns)
    return w_vd


# --- CUDA -------------------------------------------------------------------------------------------------------------

def index_array(index_n):
    """As kernels take indices: int64, dense, in device memory."""
    return dense_copy(to_device(index_n).astype(np.int64, copy=False))


def gather_forward_cuda(w_vd, index_n):
    y_nd = empty((*index_n.shape, *w_vd.shape[1:]), w_vd.dtype)
    given = [dense_copy(w_vd), index_array(index_n), y_nd, len(w_vd), math.prod(w_vd.shape[1:]), y_nd.size]
    launch_each("gather", "gather_rows", w_vd.dtype, y_nd.size, given)
    return y_nd


def scatter_add_forward_cuda(y_nd, index_n, size):
    w_vd = empty((size, *y_nd.shape[index_n.ndim:]), y_nd.dtype)
    given = [dense_copy(y_nd), index_array(index_n), w_vd, index_n.size, w_vd.size // max(size, 1)]
    launch_sums("gather", "scatter_add_rows", y_nd.dtype, size if w_vd.size else 0, given)
    return w_vd
