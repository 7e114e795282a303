"""Adam's update on the CPU: p, m, v read and written once, g read once, nothing in between.

NumPy needs a dozen passes and as many temporary arrays for the same line; here the time is that of seven arrays' traffic.
The corrections 1 - beta^t are the same for every element and are worked out before the loop.
"""

import numpy as np
from numba import njit, prange

from . import threads  # noqa: F401  before the first kernel is compiled
from .device_array import dense_copy, launch_each

BLOCK = 16384  # elements that one task updates


# error_model: a division that may raise ZeroDivisionError cannot be vectorised.
@njit(cache=True, parallel=True, fastmath={"contract"}, error_model="numpy")
def _update(p, m, v, g, rate, keep, b1, b2, root, eps):
    for block in prange((p.size + BLOCK - 1) // BLOCK):
        # Slices, so that indices count from 0: one that might be negative would mean "from the end", and be tested.
        part = slice(block * BLOCK, min(p.size, (block + 1) * BLOCK))
        p_b, m_b, v_b, g_b = p[part], m[part], v[part], g[part]
        for i in range(p_b.size):
            m_i = m_b[i] + b1 * (g_b[i] - m_b[i])
            v_i = v_b[i] + b2 * (g_b[i] * g_b[i] - v_b[i])
            m_b[i], v_b[i] = m_i, v_i
            p_b[i] = keep * p_b[i] - rate * m_i / (np.sqrt(v_i) * root + eps)


def _check(p, m, v, g):
    if not p.shape == m.shape == v.shape == g.shape:
        raise ValueError(f"adam_update: shapes differ: p {p.shape}, m {m.shape}, v {v.shape}, g {g.shape}")


def _rates(lr, beta1, beta2, weight_decay, step):
    """What m is multiplied with, what p is, and what sqrt(v) is."""
    return lr / (1 - beta1**step), 1 - lr * weight_decay, 1 / np.sqrt(1 - beta2**step)


def adam_update_cpu(p, m, v, g, lr, beta1, beta2, eps, weight_decay, step):
    """Move p, m, v (arrays of one shape) by one step along g."""
    _check(p, m, v, g)
    real = p.dtype.type
    flat = [np.ascontiguousarray(a, p.dtype).reshape(-1) for a in (p, m, v, g)]
    rate, keep, root = _rates(lr, beta1, beta2, weight_decay, step)
    _update(*flat, real(rate), real(keep), real(1 - beta1), real(1 - beta2), real(root), real(eps))
    for array, moved in zip((p, m, v), flat, strict=False):
        if not array.flags.c_contiguous:  # then a copy was moved
            array[...] = moved.reshape(p.shape)


# --- CUDA -------------------------------------------------------------------------------------------------------------

def adam_update_cuda(p, m, v, g, lr, beta1, beta2, eps, weight_decay, step):
    """p, m and v without gaps: they are written where they are."""
    _check(p, m, v, g)
    rate, keep, root = _rates(lr, beta1, beta2, weight_decay, step)
    numbers = [rate, keep, 1 - beta1, 1 - beta2, root, eps, p.size]
    launch_each("adam", "adam_update", p.dtype, p.size, [p, m, v, dense_copy(g), *numbers])
