"""Bias and leaky ReLU on the CPU, in one pass over memory.

    forward     y = act(x + b)                     reads x, writes y
    backward    dx = dy act'(y), db = sum dx       reads dy and y, writes dx

Nothing here is arithmetic: the time is the memory's. NumPy would make three passes and as many temporary arrays. Images
(N, C, L) are cut by channel, so that each sum of db is one thread's and does not depend on how many there are; rows (N, C),
which is L = 1, are cut into blocks of columns for the same reason.
"""

import numpy as np
from numba import njit, prange

from . import threads  # noqa: F401  before the first kernel is compiled
from .device_array import dense_copy, empty, launch_each, launch_sums

COLUMNS = 64  # of a block of rows: a cache line is 16
SMALL = 2**15  # numbers: one core is done with them by the time that it would have woken the others
# Reassociation lets the sums of db run in vector lanes; NaN and infinity keep their meaning.
FAST = {"reassoc", "contract"}


@njit(inline="always")
def act(v, slope):
    """Leaky ReLU. ReLU of -inf is 0, not 0 * inf; NaN stays NaN."""
    return v if not v <= 0 else v * slope if slope > 0 else slope


@njit(inline="always")
def through(d, y, slope):
    """d act', read off the sign of y."""
    return d if y > 0 else d * slope if slope > 0 else slope


@njit(cache=True, parallel=True, fastmath=FAST)
def _forward(x_ncl, bias_c, slope, y_ncl):
    count, channels, length = x_ncl.shape
    for c in prange(channels):
        for n in range(count):
            for l in range(length):
                v = x_ncl[n, c, l] + bias_c[c]
                y_ncl[n, c, l] = act(v, slope)


@njit(cache=True, parallel=True, fastmath=FAST)
def _backward(dy_ncl, y_ncl, slope, dx_ncl, dbias_c):
    count, channels, length = y_ncl.shape
    for c in prange(channels):
        total = dbias_c[c]
        for n in range(count):
            for l in range(length):
                d = through(dy_ncl[n, c, l], y_ncl[n, c, l], slope)
                dx_ncl[n, c, l] = d
                total += d
        dbias_c[c] = total


# Rows. Slices, so that indices count from 0: one that might be negative would mean "from the end", and be tested each time.


@njit(cache=True, parallel=True, fastmath=FAST)
def _forward_rows(x_nc, bias_c, slope, y_nc):
    count, channels = x_nc.shape
    for block in prange((channels + COLUMNS - 1) // COLUMNS):
        part = slice(block * COLUMNS, min(channels, (block + 1) * COLUMNS))
        bias = bias_c[part]
        for n in range(count):
            x, y = x_nc[n, part], y_nc[n, part]
            for c in range(bias.size):
                y[c] = act(x[c] + bias[c], slope)


@njit(cache=True, parallel=True, fastmath=FAST)
def _backward_rows(dy_nc, y_nc, slope, dx_nc, dbias_c):
    count, channels = y_nc.shape
    for block in prange((channels + COLUMNS - 1) // COLUMNS):
        part = slice(block * COLUMNS, min(channels, (block + 1) * COLUMNS))
        dbias = dbias_c[part]
        for n in range(count):
            dy, y, dx = dy_nc[n, part], y_nc[n, part], dx_nc[n, part]
            for c in range(dbias.size):
                d = through(dy[c], y[c], slope)
                dx[c] = d
                dbias[c] += d


# A loop that reads one array and writes another runs number by number where they turn out to be the same. This one knows it.


@njit(cache=True, parallel=True, fastmath=FAST)
def _in_place(y_nc, bias_c, slope):
    if y_nc.size < SMALL:
        for n in range(len(y_nc)):
            _in_place_row(y_nc[n], bias_c, slope)
    else:
        for n in prange(len(y_nc)):
            _in_place_row(y_nc[n], bias_c, slope)


@njit(fastmath=FAST)
def _in_place_row(y_c, bias_c, slope):
    for c in range(len(y_c)):
        y_c[c] = act(y_c[c] + bias_c[c], slope)


def bias_act_in_place(y_nc, bias_c, negative_slope):
    """y = act(y + b), for the end of a product: y (N, C) is contiguous, bias (C,)."""
    _in_place(y_nc, np.ascontiguousarray(bias_c), y_nc.dtype.type(negative_slope))


def bias_act_forward_cpu(x_ncl, bias_c, negative_slope):
    """x (N, C, L), bias (C,) -> y (N, C, L)."""
    x_ncl, bias_c, slope = np.ascontiguousarray(x_ncl), np.ascontiguousarray(bias_c), x_ncl.dtype.type(negative_slope)
    y_ncl = np.empty_like(x_ncl)
    if x_ncl.shape[2] == 1:
        _forward_rows(x_ncl[:, :, 0], bias_c, slope, y_ncl[:, :, 0])
    else:
        _forward(x_ncl, bias_c, slope, y_ncl)
    return y_ncl


def bias_act_backward_cpu(dy_ncl, y_ncl, negative_slope):
    """dy, y (N, C, L) -> dx (N, C, L), dbias (C,)."""
    dy_ncl, y_ncl, slope = np.ascontiguousarray(dy_ncl), np.ascontiguousarray(y_ncl), y_ncl.dtype.type(negative_slope)
    dx_ncl, dbias_c = np.empty_like(dy_ncl), np.zeros(dy_ncl.shape[1], dy_ncl.dtype)
    if dy_ncl.shape[2] == 1:
        _backward_rows(dy_ncl[:, :, 0], y_ncl[:, :, 0], slope, dx_ncl[:, :, 0], dbias_c)
    else:
        _backward(dy_ncl, y_ncl, slope, dx_ncl, dbias_c)
    return dx_ncl, dbias_c


# --- CUDA -------------------------------------------------------------------------------------------------------------

def bias_act_forward_cuda(x_ncl, bias_c, negative_slope):
    x_ncl, y_ncl = dense_copy(x_ncl), empty(x_ncl.shape, x_ncl.dtype)
    _, channels, length = x_ncl.shape
    given = [x_ncl, dense_copy(bias_c), negative_slope, y_ncl, channels, length, x_ncl.size]
    launch_each("bias_act", "bias_act_forward", x_ncl.dtype, x_ncl.size, given)
    return y_ncl


def bias_act_backward_cuda(dy_ncl, y_ncl, negative_slope):
    count, channels, length = y_ncl.shape
    dx_ncl, dbias_c = empty(y_ncl.shape, y_ncl.dtype), empty((channels,), y_ncl.dtype)
    given = [dense_copy(dy_ncl), dense_copy(y_ncl), negative_slope, dx_ncl, dbias_c, count, channels, length]
    launch_sums("bias_act", "bias_act_backward", y_ncl.dtype, channels, given)
    return dx_ncl, dbias_c
