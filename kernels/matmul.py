"""Matrix products, shared among threads.

    c_mn = a_mk @ b_kn

The result is cut into a grid of tiles and every tile is one single-threaded BLAS product, so the threads that run this are
the ones that run every other kernel (see `blas.py`):

        b_kn:       |    |    |          The grid depends on the shapes alone, never on the number of threads: a BLAS may
                    |    |    |          round differently when a product is cut elsewhere, and one more core must not
        a_mk:  ---  c00  c01  c02        change a result.
               ---  c10  c11  c12

A transposed view costs nothing (BLAS reads it as it is); a view with other strides is copied. Below `SMALL` operations,
waking the other threads takes longer than the product.
"""

import numpy as np
from numba import njit, prange

from . import blas

SMALL = 200_000         # multiply-adds: about 3 microseconds on one core
TILE = 2_000_000        # multiply-adds that pay for one tile
NARROWEST = 32          # rows or columns of a tile


def _grid(m, n, k):
    """Tiles down and across: as square as possible, of at least TILE work, never thinner than NARROWEST; 64 at most."""
    tiles = min(64, max(1, m * n * k // TILE))
    down = across = 1
    while 2 * down * across <= tiles:
        if m // down >= n // across and m // (2 * down) >= NARROWEST:
            down *= 2
        elif n // (2 * across) >= NARROWEST:
            across *= 2
        else:
            break
    return down, across


@njit(cache=True, parallel=True)
def _tiles(a_mk, b_kn, c_mn, down, across):
    blas_threads = blas.only_one_thread()
    m, n = c_mn.shape
    for tile in prange(down * across):
        i, j = tile // across, tile % across
        m0, m1, n0, n1 = i * m // down, (i + 1) * m // down, j * n // across, (j + 1) * n // across
        blas.gemm(a_mk[m0:m1], b_kn[:, n0:n1], 0.0, c_mn[m0:m1, n0:n1])
    blas.restore_threads(blas_threads)


def _adjacent(matrix):
    """The matrix itself if its rows or its columns lie adjacent in memory, otherwise a copy."""
    rows, cols = matrix.strides
    item = matrix.itemsize
    if (cols == item and rows >= item * matrix.shape[1]) or (rows == item and cols >= item * matrix.shape[0]):
        return matrix
    return np.ascontiguousarray(matrix)


def matmul_forward_cpu(a_mk, b_kn):
    """c_mn, in the dtype of the inputs. With more than two axes: NumPy's batched product."""
    if a_mk.ndim != 2 or b_kn.ndim != 2 or not blas.available or a_mk.dtype not in (np.float32, np.float64):
        return np.matmul(a_mk, b_kn)
    if a_mk.shape[1] != b_kn.shape[0] or a_mk.dtype != b_kn.dtype:
        raise ValueError(f"a_mk {a_mk.shape} {a_mk.dtype} and b_kn {b_kn.shape} {b_kn.dtype} do not agree")
    (m, k), n = a_mk.shape, b_kn.shape[1]
    if m * n * k < SMALL:
        return np.matmul(a_mk, b_kn)
    c_mn = np.empty((m, n), a_mk.dtype)
    down, across = _grid(m, n, k)
    _tiles(_adjacent(a_mk), _adjacent(b_kn), c_mn, down, across)
    return c_mn
