"""Matrix products, shared among threads, and the linear layer: a product, then bias and activation over it.

    c_mn = a_mk @ b_kn

The result is cut into a grid of tiles and every tile is one single-threaded BLAS product, so the threads that run this are
the ones that run every other kernel (see `blas.py`):

        b_kn:       |    |    |          The grid depends on the shapes alone, never on the number of threads: a BLAS may
                    |    |    |          round differently when a product is cut elsewhere, and one more core must not
        a_mk:  ---  c00  c01  c02        change a result.
               ---  c10  c11  c12

A transposed view costs nothing (BLAS reads it as it is); a view with other strides is copied. Below `SMALL` multiply-adds,
waking the other threads takes longer than the product.

A product much deeper than it is wide (a weight's gradient, summed over many steps or samples) is cut along k instead: each
task reads its rows of a and b once, from one end to the other, and the parts are added in a fixed order. Where one side is
narrow besides, packing the other costs a fifth to a half of the time: each number of it is used for so few sums. Then blocks
are kept so small that OpenBLAS packs nothing (measured on one core: 512x128 sums of 19,200 terms at 169, then 214 GFLOP/s).

**Where the time goes.** A product of one tile packs its part of a and b, so few large tiles waste less; many small ones keep
more cores busy. Two tiles at SMALL, and twice as many for every 20 times the work, lose a few per cent of either.
"""

import functools
import math

import numpy as np
from numba import njit, prange

from . import blas, layout
from .bias_act import bias_act_in_place
from .cuda import launch
from .device_array import dense_copy, empty, launch_gemm, origin
from .threads import in_any_order

SMALL = 200_000     # multiply-adds: about 2 microseconds on one core
NARROW = 32         # rows or columns a tile has at least
DEPTH = 512         # terms of a sum in one call, where sums are long
WIDE = 256          # rows and columns from which packing costs less than small blocks
BLOCK = (96, 128)   # rows and columns of a small block
MOST_PARTS = 8      # of such a sum, one task each
EDGE = 16           # tiles begin at multiples of this: a whole number of vector registers


@functools.lru_cache(maxsize=1024)  # a network has few shapes, and Python takes longer over this than BLAS over a small tile
def _tile(m, n, k):
    """Rows and columns of a tile, as square as may be."""
    tiles, work, down, across = 1, SMALL, 1, 1
    while m * n * k >= work:
        tiles, work = 2 * tiles, 20 * work
    while down * across < tiles:
        if n // across >= m // down and n // across >= 2 * NARROW:
            across *= 2
        elif m // down >= 2 * NARROW:
            down *= 2
        else:
            break
    return _cut(m, down), _cut(n, across)


@njit(cache=True)
def _one(a_mk, b_kn, c_mn):
    """Everything on this thread. NumPy's matmul might wake BLAS's own threads, which go on spinning beside ours."""
    blas_threads = blas.only_one_thread()
    blas.gemm(a_mk, b_kn, 0.0, c_mn)
    blas.restore_threads(blas_threads)


@njit(cache=True, parallel=True)
def _tiles(a_mk, b_kn, c_mn, rows, columns):
    """Tiles of so many rows and columns, the last ones smaller."""
    blas_threads = blas.only_one_thread()
    m, n = c_mn.shape
    across = (n + columns - 1) // columns
    for tile in prange((m + rows - 1) // rows * across):
        m0, n0 = tile // across * rows, tile % across * columns
        m1, n1 = min(m0 + rows, m), min(n0 + columns, n)
        blas.gemm(a_mk[m0:m1], b_kn[:, n0:n1], 0.0, c_mn[m0:m1, n0:n1])
    blas.restore_threads(blas_threads)


@njit(cache=True, parallel=True)
def _deep(a_mk, b_kn, parts_pmn, rows, columns, depth):
    """Sums over parts of k: part p of the products, a block of so many rows, columns and terms after another."""
    blas_threads = blas.only_one_thread()
    (parts, m, n), k = parts_pmn.shape, b_kn.shape[0]
    for p in prange(parts):
        first, last = p * k // parts, (p + 1) * k // parts
        for k0 in range(first, last, depth):
            k1 = min(k0 + depth, last)
            for m0 in range(0, m, rows):
                m1 = min(m0 + rows, m)
                for n0 in range(0, n, columns):
                    n1 = min(n0 + columns, n)
                    c_mn = parts_pmn[p, m0:m1, n0:n1]
                    blas.gemm(a_mk[m0:m1, k0:k1], b_kn[k0:k1, n0:n1], 0.0 if k0 == first else 1.0, c_mn)
    blas.restore_threads(blas_threads)


def _block(m, n):
    """Rows, columns and terms of a block of a deep product."""
    if min(m, n) >= WIDE:
        return m, n, DEPTH
    rows, columns = min(m, BLOCK[0]), min(n, BLOCK[1])
    return rows, columns, min(DEPTH, blas.UNPACKED // (rows * columns))


@njit(cache=True, parallel=True, fastmath={"contract"})
def _outer(a_m, b_n, c_mn):
    """A sum of one term: nothing but writing c."""
    for m in prange(a_m.size):
        for n in range(b_n.size):
            c_mn[m, n] = a_m[m] * b_n[n]


@njit(cache=True, parallel=True)
def _deep_vector(a_mk, x_k, parts_pm):
    """The sums of a product with one vector, cut along k."""
    blas_threads = blas.only_one_thread()
    parts, k = len(parts_pm), x_k.size
    for p in prange(parts):
        k0, k1 = p * k // parts, (p + 1) * k // parts
        blas.gemv(a_mk[:, k0:k1], x_k[k0:k1], parts_pm[p])
    blas.restore_threads(blas_threads)


@njit(cache=True, parallel=True)
def _pieces(a_mk, x_k, y_m, rows):
    """A product with one vector reads a once: pieces of y."""
    blas_threads = blas.only_one_thread()
    for piece in prange((y_m.size + rows - 1) // rows):
        m0 = piece * rows
        m1 = min(m0 + rows, y_m.size)
        blas.gemv(a_mk[m0:m1], x_k, y_m[m0:m1])
    blas.restore_threads(blas_threads)


def _times_vector(a_mk, x_k, y_m):
    m, k = a_mk.shape
    if _is_deep(m, 1, k):
        parts_pm = np.empty((min(MOST_PARTS, k // DEPTH), m), y_m.dtype)
        in_any_order(_deep_vector, a_mk, x_k, parts_pm)
        np.sum(parts_pm, axis=0, out=y_m)
    else:
        in_any_order(_pieces, a_mk, x_k, y_m, _cut(m, 4))


def _is_deep(m, n, k):
    return k >= 2 * max(m, n, DEPTH)


def _adjacent(matrix):
    """The matrix itself if its rows or its columns lie adjacent in memory, one behind the other; otherwise a copy."""
    (rows, columns), (down, across), item = matrix.shape, matrix.strides, matrix.itemsize
    if not matrix.flags.aligned:
        return matrix.copy()
    if (across == item and down >= item * columns) or (down == item and across >= item * rows):
        return matrix
    return np.ascontiguousarray(matrix)


def _cut(length, parts):
    """The length of a part, in whole EDGEs."""
    return -(-length // (parts * EDGE)) * EDGE


def matmul_forward_cpu(a_mk, b_kn):
    """c_mn, float32 or float64 as the inputs. Anything else (more axes, other dtypes) is left to NumPy's matmul."""
    if a_mk.ndim != 2 or b_kn.ndim != 2 or a_mk.dtype != b_kn.dtype or a_mk.dtype.char not in "fd" or not blas.available:
        return np.matmul(a_mk, b_kn)
    if a_mk.shape[1] != b_kn.shape[0]:
        raise ValueError(f"a_mk {a_mk.shape} has {a_mk.shape[1]} columns and b_kn {b_kn.shape} has {b_kn.shape[0]} rows")
    (m, k), n = a_mk.shape, b_kn.shape[1]
    a_mk, b_kn = _adjacent(a_mk), _adjacent(b_kn)
    c_mn = np.empty((m, n), a_mk.dtype)
    if m * n * k < SMALL:
        in_any_order(_one, a_mk, b_kn, c_mn)
    elif n == 1:
        _times_vector(a_mk, np.ascontiguousarray(b_kn[:, 0]), c_mn.reshape(m))
    elif m == 1:
        _times_vector(b_kn.T, np.ascontiguousarray(a_mk[0]), c_mn.reshape(n))
    elif k == 1:
        in_any_order(_outer, np.ascontiguousarray(a_mk[:, 0]), np.ascontiguousarray(b_kn[0]), c_mn)
    elif _is_deep(m, n, k):
        parts_pmn = np.empty((min(MOST_PARTS, k // DEPTH), m, n), c_mn.dtype)
        in_any_order(_deep, a_mk, b_kn, parts_pmn, *_block(m, n))
        np.sum(parts_pmn, axis=0, out=c_mn)
    else:
        in_any_order(_tiles, a_mk, b_kn, c_mn, *_tile(m, n, k))
    return c_mn


def linear_forward_cpu(x_ni, w_oi, bias_o, negative_slope):
    """The product's memory is the result's."""
    _check_bias(w_oi, bias_o)
    y_no = matmul_forward_cpu(x_ni, w_oi.T)
    dtype = np.result_type(y_no, bias_o)
    y_no = y_no.astype(dtype, copy=False)
    bias_act_in_place(y_no, bias_o.astype(dtype, copy=False), negative_slope)
    return y_no


def _check_bias(w_oi, bias_o):
    if bias_o.shape != w_oi.shape[:1]:
        raise ValueError(f"linear_forward: a bias of shape {bias_o.shape} for {w_oi.shape[0]} outputs")


# --- CUDA -------------------------------------------------------------------------------------------------------------

TILE = 16           # rows and columns of a block's part in version 1
REGISTERS = 32      # rows and columns from which version 2 is worth its larger tiles


def matmul_forward_cuda(a_mk, b_kn):
    """c (..., m, n) of any views a (..., m, k) and b (..., k, n); leading axes broadcast."""
    return _product(a_mk, b_kn, None, 1)


def linear_forward_cuda(x_ni, w_oi, bias_o, negative_slope):
    _check_bias(w_oi, bias_o)
    return _product(x_ni, w_oi.T, dense_copy(bias_o), negative_slope)


def _product(a_mk, b_kn, bias_n, slope):
    if a_mk.dtype != b_kn.dtype:
        raise TypeError(f"a_mk is {a_mk.dtype} and b_kn is {b_kn.dtype}")
    (m, k), n = a_mk.shape[-2:], b_kn.shape[-1]
    if b_kn.shape[-2] != k:
        raise ValueError(f"a_mk {a_mk.shape} has {k} columns and b_kn {b_kn.shape} has {b_kn.shape[-2]} rows")
    batch = np.broadcast_shapes(a_mk.shape[:-2], b_kn.shape[:-2])
    c_mn = empty((*batch, m, n), a_mk.dtype)
    a, b = (np.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (a_mk, b_kn))
    at = layout.layout(batch, a.strides[:-2], b.strides[:-2])
    given = [origin(a), origin(b), bias_n, slope, c_mn, m, n, k, *a.strides[-2:], *b.strides[-2:], at]
    if min(m, n) >= REGISTERS:
        launch_gemm("matmul", "matmul_registers", c_mn.dtype, m, n, math.prod(batch), given)
    else:
        launch("matmul", "matmul_tiles", c_mn.dtype, (-(-n // TILE), -(-m // TILE), math.prod(batch)), (TILE, TILE), given)
    return c_mn
