"""Adam's update on the CPU: p, m, v read and written once, g read once, nothing in between.

NumPy needs a dozen passes and as many temporary arrays for the same line; here the time is that of seven arrays' traffic.
The corrections 1 - beta^t are the same for every element and are worked out before the loop.
"""

import numpy as np
from numba import njit, prange

from . import threads  # noqa: F401  before the first kernel is compiled
from .cuda import Table, launch
from .device_array import BLOCK, dense_copy, to_device

TASK = 16384  # elements that one task updates


# error_model: a division that may raise ZeroDivisionError cannot be vectorised.
@njit(cache=True, parallel=True, fastmath={"contract"}, error_model="numpy")
def _update(p, m, v, g, rate, keep, b1, b2, root, eps):
    for block in prange((p.size + TASK - 1) // TASK):
        # Slices, so that indices count from 0: one that might be negative would mean "from the end", and be tested.
        part = slice(block * TASK, min(p.size, (block + 1) * TASK))
        p_b, m_b, v_b, g_b = p[part], m[part], v[part], g[part]
        for i in range(p_b.size):
            m_i = m_b[i] + b1 * (g_b[i] - m_b[i])
            v_i = v_b[i] + b2 * (g_b[i] * g_b[i] - v_b[i])
            m_b[i], v_b[i] = m_i, v_i
            p_b[i] = keep * p_b[i] - rate * m_i / (np.sqrt(v_i) * root + eps)


def _check(p, m, v, g):
    if not p.shape == m.shape == v.shape == g.shape:
        raise ValueError(f"adam_update: shapes differ: p {p.shape}, m {m.shape}, v {v.shape}, g {g.shape}")


def adam_update_cpu(p, m, v, g, rates_3, beta1, beta2, eps):
    """Move p, m, v (arrays of one shape) by one step along g."""
    _check(p, m, v, g)
    real, (rate, keep, root) = p.dtype.type, rates_3.tolist()
    flat = [np.ascontiguousarray(a, p.dtype).reshape(-1) for a in (p, m, v, g)]
    _update(*flat, real(rate), real(keep), real(1 - beta1), real(1 - beta2), real(root), real(eps))
    for array, moved in zip((p, m, v), flat, strict=False):
        if not array.flags.c_contiguous:  # then a copy was moved
            array[...] = moved.reshape(p.shape)


# --- CUDA -------------------------------------------------------------------------------------------------------------

MANY = 24           # parameters of a launch: their addresses are its arguments
MOST_BLOCKS = 256   # of one parameter; each thread then moves several elements


def adam_update_cuda(p, m, v, g, rates_3, beta1, beta2, eps):
    """p, m and v without gaps: they are written where they are."""
    update_many([p], [m], [v], [g], rates_3.reshape(1, 3), beta1, beta2, eps)


def update_many(p, m, v, g, rates_n3, beta1, beta2, eps):
    """The same for lists of arrays of one dtype; rates_n3 may be read from device memory."""
    for arrays in zip(p, m, v, g, strict=True):
        _check(*arrays)
    rates_n3 = dense_copy(to_device(rates_n3).astype(p[0].dtype, copy=False))
    for i in range(0, len(p), MANY):
        some = slice(i, i + MANY)
        tables = [Table(arrays) for arrays in (p[some], m[some], v[some], [dense_copy(g_i) for g_i in g[some]])]
        sizes = [p_i.size for p_i in p[some]]
        numbers = [1 - beta1, 1 - beta2, eps, [*sizes, *[0] * (MANY - len(sizes))]]
        grid = min(-(-max(sizes) // BLOCK), MOST_BLOCKS), len(sizes)
        launch("adam", "adam_update", p[0].dtype, grid, BLOCK, [*tables, rates_n3[some], *numbers])
