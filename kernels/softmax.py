"""Softmax, its logarithm and the cross-entropy on the CPU: up to three passes over a row, in vector lanes.

    the maximum        of integers that are in the order of the floats: one of floats would look out for NaN, number by number
    e^(x - maximum)    and its sum (`gates.py`)
    the result         scaled, or with the sum's logarithm subtracted

A row is read from memory once and stays in the first-level cache between the passes. A task owns whole rows, so no result
depends on how many threads there are. The maximum overlooks NaN, but the sum does not, and every number of a row is made of it.
"""

import math

import numpy as np
from numba import njit, prange, types
from numba.extending import overload

from . import threads  # noqa: F401  before the first kernel is compiled
from .cuda import launch
from .device_array import dense_copy, empty
from .gates import exp
from .gather import index_array

SMALL = 4096    # numbers: about 2 microseconds on one core; to wake the others takes longer
# Reassociation lets sums run in vector lanes; NaN and infinity keep their meaning.
FAST = {"reassoc", "contract"}
SIGN32, REST32, SIGN64, REST64 = np.int32(-2**31), np.int32(2**31 - 1), np.int64(-2**63), np.int64(2**63 - 1)


def largest(x_k):
    """The maximum, NaN aside."""
    return np.fmax.reduce(x_k)


# Bits of floats, read as integers, are in their order; but those with a sign run backwards.


@njit
def _largest32(x_k):
    most = SIGN32
    for k in range(len(x_k)):
        bits = np.float32(x_k[k]).view(np.int32)
        most = max(most, np.int32(bits ^ ((bits >> np.int32(31)) & REST32)))
    return np.int32(most ^ ((most >> np.int32(31)) & REST32)).view(np.float32)


@njit
def _largest64(x_k):
    most = SIGN64
    for k in range(len(x_k)):
        bits = np.float64(x_k[k]).view(np.int64)
        most = max(most, bits ^ ((bits >> np.int64(63)) & REST64))
    return np.int64(most ^ ((most >> np.int64(63)) & REST64)).view(np.float64)


@overload(largest)
def _largest(x_k):
    if x_k.dtype == types.float32:
        return lambda x_k: _largest32(x_k)
    return lambda x_k: _largest64(x_k)


# --- one row ----------------------------------------------------------------------------------------------------------

@njit(fastmath=FAST)
def _exponentials(x_k, e_k):
    """e = e^(x - max); returns their sum."""
    most, total = largest(x_k), x_k.dtype.type(0)
    for k in range(len(x_k)):
        e = exp(x_k[k] - most)
        e_k[k] = e
        total += e
    return total


@njit(fastmath=FAST)
def _max_and_log(x_k):
    """max x, and log sum e^(x - max)."""
    most, total = largest(x_k), x_k.dtype.type(0)
    for k in range(len(x_k)):
        total += exp(x_k[k] - most)
    return most, x_k.dtype.type(math.log(total))


@njit(fastmath=FAST)
def _sum(x_k):
    total = x_k.dtype.type(0)
    for k in range(len(x_k)):
        total += x_k[k]
    return total


@njit(fastmath=FAST)
def _dot(x_k, y_k):
    total = x_k.dtype.type(0)
    for k in range(len(x_k)):
        total += x_k[k] * y_k[k]
    return total


@njit
def _softmax_row(x_k, y_k):
    total = _exponentials(x_k, y_k)
    scale = x_k.dtype.type(1) / total
    for k in range(len(y_k)):
        y_k[k] *= scale


@njit
def _softmax_back_row(dy_k, y_k, dx_k):
    total = _dot(dy_k, y_k)
    for k in range(len(y_k)):
        dx_k[k] = y_k[k] * (dy_k[k] - total)


@njit
def _log_softmax_row(x_k, l_k):
    most, log = _max_and_log(x_k)
    for k in range(len(l_k)):
        l_k[k] = (x_k[k] - most) - log


@njit
def _log_softmax_back_row(dl_k, l_k, dx_k):
    total = _sum(dl_k)
    for k in range(len(l_k)):
        dx_k[k] = dl_k[k] - exp(l_k[k]) * total


@njit
def _cross_entropy_row(x_k, target):
    if not 0 <= target < len(x_k):
        return x_k.dtype.type(np.nan)
    most, log = _max_and_log(x_k)
    return log - (x_k[target] - most)


@njit
def _cross_entropy_back_row(dnll, x_k, target, dx_k):
    if not 0 <= target < len(x_k):
        dx_k[:] = np.nan
        return
    scale = x_k.dtype.type(1) / _exponentials(x_k, dx_k)
    chosen = (dx_k[target] * scale - x_k.dtype.type(1)) * dnll
    for k in range(len(dx_k)):
        dx_k[k] *= scale * dnll
    dx_k[target] = chosen


# --- all rows: on this thread, or shared ------------------------------------------------------------------------------

@njit(cache=True, parallel=True)
def _softmax(x_nk, y_nk):
    if x_nk.size < SMALL:
        for n in range(len(x_nk)):
            _softmax_row(x_nk[n], y_nk[n])
    else:
        for n in prange(len(x_nk)):
            _softmax_row(x_nk[n], y_nk[n])


@njit(cache=True, parallel=True)
def _softmax_back(dy_nk, y_nk, dx_nk):
    if y_nk.size < SMALL:
        for n in range(len(y_nk)):
            _softmax_back_row(dy_nk[n], y_nk[n], dx_nk[n])
    else:
        for n in prange(len(y_nk)):
            _softmax_back_row(dy_nk[n], y_nk[n], dx_nk[n])


@njit(cache=True, parallel=True)
def _log_softmax(x_nk, l_nk):
    if x_nk.size < SMALL:
        for n in range(len(x_nk)):
            _log_softmax_row(x_nk[n], l_nk[n])
    else:
        for n in prange(len(x_nk)):
            _log_softmax_row(x_nk[n], l_nk[n])


@njit(cache=True, parallel=True)
def _log_softmax_back(dl_nk, l_nk, dx_nk):
    if l_nk.size < SMALL:
        for n in range(len(l_nk)):
            _log_softmax_back_row(dl_nk[n], l_nk[n], dx_nk[n])
    else:
        for n in prange(len(l_nk)):
            _log_softmax_back_row(dl_nk[n], l_nk[n], dx_nk[n])


@njit(cache=True, parallel=True)
def _cross_entropy(x_nk, target_n, nll_n):
    if x_nk.size < SMALL:
        for n in range(len(x_nk)):
            nll_n[n] = _cross_entropy_row(x_nk[n], target_n[n])
    else:
        for n in prange(len(x_nk)):
            nll_n[n] = _cross_entropy_row(x_nk[n], target_n[n])


@njit(cache=True, parallel=True)
def _cross_entropy_back(dnll_n, x_nk, target_n, dx_nk):
    if x_nk.size < SMALL:
        for n in range(len(x_nk)):
            _cross_entropy_back_row(dnll_n[n], x_nk[n], target_n[n], dx_nk[n])
    else:
        for n in prange(len(x_nk)):
            _cross_entropy_back_row(dnll_n[n], x_nk[n], target_n[n], dx_nk[n])


def _filled(x_nk):
    """x itself. ValueError if its rows are empty: there is no maximum, and a kernel would read beyond the end."""
    if not x_nk.shape[1]:
        raise ValueError(f"softmax: rows without a number, shape {x_nk.shape}")
    return x_nk


def _checked(x_nk, *of_rows):
    """x itself, and arrays of one entry for each of its rows. ValueError if they have not as many."""
    for a_n in of_rows:
        if a_n.shape != x_nk.shape[:1]:
            raise ValueError(f"cross_entropy: {x_nk.shape} has {len(x_nk)} rows, and with them came an array {a_n.shape}")
    return _filled(x_nk)


def softmax_forward_cpu(x_nk):
    x_nk = np.ascontiguousarray(_filled(x_nk))
    y_nk = np.empty_like(x_nk)
    _softmax(x_nk, y_nk)
    return y_nk


def softmax_backward_cpu(dy_nk, y_nk):
    dy_nk, y_nk = np.ascontiguousarray(dy_nk), np.ascontiguousarray(y_nk)
    dx_nk = np.empty_like(y_nk)
    _softmax_back(dy_nk, y_nk, dx_nk)
    return dx_nk


def log_softmax_forward_cpu(x_nk):
    x_nk = np.ascontiguousarray(_filled(x_nk))
    l_nk = np.empty_like(x_nk)
    _log_softmax(x_nk, l_nk)
    return l_nk


def log_softmax_backward_cpu(dl_nk, l_nk):
    dl_nk, l_nk = np.ascontiguousarray(dl_nk), np.ascontiguousarray(l_nk)
    dx_nk = np.empty_like(l_nk)
    _log_softmax_back(dl_nk, l_nk, dx_nk)
    return dx_nk


def cross_entropy_forward_cpu(x_nk, target_n):
    x_nk = np.ascontiguousarray(_checked(x_nk, target_n))
    nll_n = np.empty(len(x_nk), x_nk.dtype)
    _cross_entropy(x_nk, np.ascontiguousarray(target_n, np.int64), nll_n)
    return nll_n


def cross_entropy_backward_cpu(dnll_n, x_nk, target_n):
    x_nk = np.ascontiguousarray(_checked(x_nk, dnll_n, target_n))
    dx_nk = np.empty_like(x_nk)
    _cross_entropy_back(np.ascontiguousarray(dnll_n), x_nk, np.ascontiguousarray(target_n, np.int64), dx_nk)
    return dx_nk


# --- CUDA -------------------------------------------------------------------------------------------------------------

THREADS = 256   # of a block; a row is the work of 32 of them


def _launch(kernel, x_nk, *arguments):
    rows, size = x_nk.shape
    launch("softmax", kernel, x_nk.dtype, -(-rows * 32 // THREADS), THREADS, [*arguments, rows, size])


def softmax_forward_cuda(x_nk):
    y_nk = empty(_filled(x_nk).shape, x_nk.dtype)
    _launch("softmax_forward", x_nk, dense_copy(x_nk), y_nk)
    return y_nk


def softmax_backward_cuda(dy_nk, y_nk):
    dx_nk = empty(y_nk.shape, y_nk.dtype)
    _launch("softmax_backward", y_nk, dense_copy(dy_nk), dense_copy(y_nk), dx_nk)
    return dx_nk


def log_softmax_forward_cuda(x_nk):
    l_nk = empty(_filled(x_nk).shape, x_nk.dtype)
    _launch("log_softmax_forward", x_nk, dense_copy(x_nk), l_nk)
    return l_nk


def log_softmax_backward_cuda(dl_nk, l_nk):
    dx_nk = empty(l_nk.shape, l_nk.dtype)
    _launch("log_softmax_backward", l_nk, dense_copy(dl_nk), dense_copy(l_nk), dx_nk)
    return dx_nk


def cross_entropy_forward_cuda(x_nk, target_n):
    nll_n = empty(_checked(x_nk, target_n).shape[:1], x_nk.dtype)
    _launch("cross_entropy_forward", x_nk, dense_copy(x_nk), index_array(target_n), nll_n)
    return nll_n


def cross_entropy_backward_cuda(dnll_n, x_nk, target_n):
    dx_nk = empty(_checked(x_nk, dnll_n, target_n).shape, x_nk.dtype)
    _launch("cross_entropy_backward", x_nk, dense_copy(dnll_n), dense_copy(x_nk), index_array(target_n), dx_nk)
    return dx_nk
