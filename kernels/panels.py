"""Products of a few rows at a time with a matrix that stays the same, which is put in order once for all of them.

A BLAS product first copies its right-hand matrix into an order of its own. For 16 rows that costs as much as the product. Here
the matrix is put into panels,

        b_kn:  | 0 | 1 | 2 |           ->          0, 1, 2 ...       each panel (k, WIDTH), contiguous

and each product is small enough (blas.UNPACKED) for OpenBLAS's routine that does not copy, on processors with AVX-512. Measured
on two cores: 225 GFLOP/s, where one call for the whole (16 x 128 by 128 x 512) product makes 80 to 130, a large square one 200.
What is computed from the rows next, gates or the nearest code, finds them in the first-level cache.
"""

import numpy as np
from numba import njit

from . import blas

ROWS = 16   # of the left-hand matrix at a time
WIDTH = 64  # columns in a panel
DEEPEST = blas.UNPACKED // (ROWS * WIDTH)


def panels(b_kn):
    """b in panels, one behind the other; the last may be narrower. 1-D."""
    k, n = b_kn.shape
    flat = np.empty(k * n, b_kn.dtype)
    for n0 in range(0, n, WIDTH):
        panel = b_kn[:, n0:n0 + WIDTH]
        flat[k * n0:k * n0 + panel.size].reshape(panel.shape)[...] = panel
    return flat


def panels_both_ways(w_gd, dtype):
    """Panels of w^T, for forward products, and of w, for backward ones; nothing where w is None: nobody asked for it."""
    if w_gd is None:
        return np.empty(0, dtype), np.empty(0, dtype)
    w_gd = np.asarray(w_gd, dtype)
    return panels(w_gd.T), panels(w_gd)


@njit(cache=True)
def product(a_mk, b_panels, beta, c_mn):
    """c = a @ b + beta * c for b in panels, and at most ROWS rows."""
    k, n = a_mk.shape[1], c_mn.shape[1]
    for n0 in range(0, n, WIDTH):
        n1 = min(n0 + WIDTH, n)
        panel = b_panels[k * n0:k * n1].reshape(k, n1 - n0)
        for k0 in range(0, k, DEEPEST):
            k1 = min(k0 + DEEPEST, k)
            blas.gemm(a_mk[:, k0:k1], panel[k0:k1], beta if k0 == 0 else 1.0, c_mn[:, n0:n1])


@njit(cache=True)
def add_product(a_mk, b_panels, c_mn):
    """c += a @ b, if there is a b."""
    if b_panels.size:
        product(a_mk, b_panels, 1.0, c_mn)
