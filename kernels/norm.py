"""Batch and layer normalisation on the CPU: the equations of `minigen/ops/norm.py`, few passes over memory.

    batch norm    one task owns a channel: its (N, L) values pass through the cache for the mean, the variance, the output
    layer norm    one task owns a row; the sums over rows (dweight, dbias) are a second loop in which a task owns columns

No sum is shared between tasks, so results do not depend on how many threads there are. Sums run in float64 from image to
image: 64 images of 32 x 32 would cost a float32 sum three digits.
"""

import numpy as np
from numba import njit, prange

from . import threads  # noqa: F401  before the first kernel is compiled
from .bias_act import act, through
from .device_array import dense_copy, empty, launch_each, launch_sums

COLUMNS = 64
# Reassociation lets a sum over one image run in vector lanes; NaN and infinity keep their meaning.
FAST = {"reassoc", "contract"}


@njit(cache=True, parallel=True, fastmath=FAST, error_model="numpy")
def _batch_forward(x_ncl, weight_c, bias_c, eps, slope, y_ncl, mean_c, inv_std_c):
    count, channels, length = x_ncl.shape
    zero = x_ncl.dtype.type(0)
    for c in prange(channels):
        total = 0.0
        for n in range(count):
            part = zero
            for l in range(length):
                part += x_ncl[n, c, l]
            total += part
        mean = x_ncl.dtype.type(total / (count * length))
        total = 0.0
        for n in range(count):
            part = zero
            for l in range(length):
                part += (x_ncl[n, c, l] - mean) * (x_ncl[n, c, l] - mean)
            total += part
        inv_std = x_ncl.dtype.type(1.0 / np.sqrt(total / (count * length) + eps))
        mean_c[c], inv_std_c[c] = mean, inv_std
        scale, shift = weight_c[c] * inv_std, bias_c[c]
        for n in range(count):
            for l in range(length):
                y_ncl[n, c, l] = act((x_ncl[n, c, l] - mean) * scale + shift, slope)


@njit(cache=True, parallel=True, fastmath=FAST, error_model="numpy")
def _batch_backward(dy_ncl, x_ncl, y_ncl, mean_c, inv_std_c, weight_c, slope, dx_ncl, dweight_c, dbias_c):
    count, channels, length = x_ncl.shape
    zero = x_ncl.dtype.type(0)
    for c in prange(channels):
        mean, inv_std = mean_c[c], inv_std_c[c]
        dbias, dweight = 0.0, 0.0
        for n in range(count):
            part_b, part_w = zero, zero
            for l in range(length):
                d = through(dy_ncl[n, c, l], y_ncl[n, c, l], slope)
                part_b += d
                part_w += d * (x_ncl[n, c, l] - mean)
            dbias += part_b
            dweight += part_w * inv_std
        dbias_c[c], dweight_c[c] = dbias, dweight
        scale = weight_c[c] * inv_std
        mean_d = x_ncl.dtype.type(dbias / (count * length))
        mean_dxh = x_ncl.dtype.type(dweight / (count * length)) * inv_std
        for n in range(count):
            for l in range(length):
                d = through(dy_ncl[n, c, l], y_ncl[n, c, l], slope)
                dx_ncl[n, c, l] = scale * (d - mean_d - (x_ncl[n, c, l] - mean) * mean_dxh)


@njit(cache=True, parallel=True, fastmath=FAST, error_model="numpy")
def _layer_forward(x_nd, weight_d, bias_d, eps, y_nd, mean_n, inv_std_n):
    count, size = x_nd.shape
    for n in prange(count):
        total = 0.0
        for d in range(size):
            total += x_nd[n, d]
        mean = x_nd.dtype.type(total / size)
        total = 0.0
        for d in range(size):
            total += (x_nd[n, d] - mean) * (x_nd[n, d] - mean)
        inv_std = x_nd.dtype.type(1.0 / np.sqrt(total / size + eps))
        mean_n[n], inv_std_n[n] = mean, inv_std
        for d in range(size):
            y_nd[n, d] = (x_nd[n, d] - mean) * inv_std * weight_d[d] + bias_d[d]


@njit(cache=True, parallel=True, fastmath=FAST, error_model="numpy")
def _layer_backward(dy_nd, x_nd, mean_n, inv_std_n, weight_d, dx_nd, dweight_d, dbias_d):
    count, size = x_nd.shape
    for n in prange(count):
        mean, inv_std = mean_n[n], inv_std_n[n]
        sum_d, sum_dxh = 0.0, 0.0
        for d in range(size):
            scaled = dy_nd[n, d] * weight_d[d]
            sum_d += scaled
            sum_dxh += scaled * (x_nd[n, d] - mean)
        mean_d = x_nd.dtype.type(sum_d / size)
        mean_dxh = x_nd.dtype.type(sum_dxh / size) * inv_std * inv_std
        for d in range(size):
            dx_nd[n, d] = inv_std * (dy_nd[n, d] * weight_d[d] - mean_d - (x_nd[n, d] - mean) * mean_dxh)
    for block in prange((size + COLUMNS - 1) // COLUMNS):
        for n in range(count):
            for d in range(block * COLUMNS, min(size, (block + 1) * COLUMNS)):
                dweight_d[d] += dy_nd[n, d] * (x_nd[n, d] - mean_n[n]) * inv_std_n[n]
                dbias_d[d] += dy_nd[n, d]


def _by_channel(a_ncl):
    """Contiguous (N, C, L). For L = 1 the batch takes L's place, (1, C, N), so that a channel's values are neighbours."""
    return np.ascontiguousarray(a_ncl.transpose(2, 1, 0) if a_ncl.shape[2] == 1 else a_ncl)


def _as_given(a_ncl, shape):
    return a_ncl if a_ncl.shape == shape else a_ncl.transpose(2, 1, 0)


def batch_norm_forward_cpu(x_ncl, weight_c, bias_c, eps, negative_slope):
    """x (N, C, L) -> y (N, C, L), mean (C,), 1 / std (C,)."""
    shape, real = x_ncl.shape, x_ncl.dtype.type
    x_ncl = _by_channel(x_ncl)
    y_ncl, mean_c, inv_std_c = np.empty_like(x_ncl), np.empty(shape[1], real), np.empty(shape[1], real)
    weight_c, bias_c = np.ascontiguousarray(weight_c), np.ascontiguousarray(bias_c)
    _batch_forward(x_ncl, weight_c, bias_c, eps, real(negative_slope), y_ncl, mean_c, inv_std_c)
    return _as_given(y_ncl, shape), mean_c, inv_std_c


def batch_norm_backward_cpu(dy_ncl, x_ncl, y_ncl, mean_c, inv_std_c, weight_c, negative_slope):
    """-> dx (N, C, L), dweight (C,), dbias (C,)."""
    shape, real = x_ncl.shape, x_ncl.dtype.type
    dy_ncl, x_ncl, y_ncl = _by_channel(dy_ncl), _by_channel(x_ncl), _by_channel(y_ncl)
    dx_ncl, dweight_c, dbias_c = np.empty_like(x_ncl), np.empty(shape[1], real), np.empty(shape[1], real)
    saved = np.ascontiguousarray(mean_c), np.ascontiguousarray(inv_std_c), np.ascontiguousarray(weight_c)
    _batch_backward(dy_ncl, x_ncl, y_ncl, *saved, real(negative_slope), dx_ncl, dweight_c, dbias_c)
    return _as_given(dx_ncl, shape), dweight_c, dbias_c


def layer_norm_forward_cpu(x_nd, weight_d, bias_d, eps):
    """x (N, D) -> y (N, D), mean (N,), 1 / std (N,)."""
    x_nd = np.ascontiguousarray(x_nd)
    y_nd, mean_n, inv_std_n = np.empty_like(x_nd), np.empty(len(x_nd), x_nd.dtype), np.empty(len(x_nd), x_nd.dtype)
    _layer_forward(x_nd, np.ascontiguousarray(weight_d), np.ascontiguousarray(bias_d), eps, y_nd, mean_n, inv_std_n)
    return y_nd, mean_n, inv_std_n


def layer_norm_backward_cpu(dy_nd, x_nd, mean_n, inv_std_n, weight_d):
    """-> dx (N, D), dweight (D,), dbias (D,)."""
    dy_nd, x_nd = np.ascontiguousarray(dy_nd), np.ascontiguousarray(x_nd)
    dx_nd, dweight_d, dbias_d = np.empty_like(x_nd), np.zeros(x_nd.shape[1], x_nd.dtype), np.zeros(x_nd.shape[1], x_nd.dtype)
    saved = np.ascontiguousarray(mean_n), np.ascontiguousarray(inv_std_n), np.ascontiguousarray(weight_d)
    _layer_backward(dy_nd, x_nd, *saved, dx_nd, dweight_d, dbias_d)
    return dx_nd, dweight_d, dbias_d


# --- CUDA -------------------------------------------------------------------------------------------------------------

def batch_norm_forward_cuda(x_ncl, weight_c, bias_c, eps, negative_slope):
    real, channels = x_ncl.dtype, x_ncl.shape[1]
    made = empty(x_ncl.shape, real), empty((channels,), real), empty((channels,), real)
    given = [dense_copy(a) for a in (x_ncl, weight_c, bias_c)]
    launch_sums("norm", "batch_norm_forward", real, channels, [*given, eps, negative_slope, *made, *x_ncl.shape])
    return made


def batch_norm_backward_cuda(dy_ncl, x_ncl, y_ncl, mean_c, inv_std_c, weight_c, negative_slope):
    real, channels = x_ncl.dtype, x_ncl.shape[1]
    made = empty(x_ncl.shape, real), empty((channels,), real), empty((channels,), real)
    given = [dense_copy(a) for a in (dy_ncl, x_ncl, y_ncl, mean_c, inv_std_c, weight_c)]
    launch_sums("norm", "batch_norm_backward", real, channels, [*given, negative_slope, *made, *x_ncl.shape])
    return made


def layer_norm_forward_cuda(x_nd, weight_d, bias_d, eps):
    real, rows = x_nd.dtype, x_nd.shape[0]
    made = empty(x_nd.shape, real), empty((rows,), real), empty((rows,), real)
    given = [dense_copy(a) for a in (x_nd, weight_d, bias_d)]
    launch_sums("norm", "layer_norm_forward", real, rows, [*given, eps, *made, x_nd.shape[1]])
    return made


def layer_norm_backward_cuda(dy_nd, x_nd, mean_n, inv_std_n, weight_d):
    real, (rows, size) = x_nd.dtype, x_nd.shape
    dx_nd, dweight_d, dbias_d = empty(x_nd.shape, real), empty((size,), real), empty((size,), real)
    dy, x, mean, inv_std, weight = [dense_copy(a) for a in (dy_nd, x_nd, mean_n, inv_std_n, weight_d)]
    launch_sums("norm", "layer_norm_backward", real, rows, [dy, x, mean, inv_std, weight, dx_nd, size])
    launch_each("norm", "layer_norm_parameters", real, size, [dy, x, mean, inv_std, dweight_d, dbias_d, rows, size])
    return dx_nd, dweight_d, dbias_d
