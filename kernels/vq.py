"""The nearest code on the CPU: a matrix product, a few vectors at a time, whose scores never leave the first-level cache.

    score_nk = |e_k|^2 / 2 - z_n . e_k          its argmin over k is that of |z_n - e_k|^2, which is 2 score_nk + |z_n|^2

              K codes
         +----------------+     A task takes its vectors in slices of ROWS. The product, with the codes in panels (`panels.py`),
    ROWS |   z_n . e_k    |     fills a slice's scores; a first pass over each row finds the least score m, a second one which
         +----------------+     scores are at most m + margin. Both run in vector lanes.

The product rounds, and may round otherwise in another BLAS. `margin` bounds what that can do to a score, so whatever the true
nearest code is, it is among those of the second pass. There is nearly always one; where there are more (ties, and codes a hair
apart) their distances are computed as the reference does, in float64 and in order. So the index is exact, the same on every
machine, and of equal distances it is the lowest index.
"""

import numpy as np
from numba import njit, prange

from . import blas
from .device_array import dense_copy, empty, launch_sums
from .panels import ROWS, panels, product

available = blas.available
TASK = 16 * ROWS    # vectors
LANES = {"reassoc", "contract"}  # a sum may run in vector lanes
ROW = {"cache": True, "forceinline": True}  # a row is short: what would happen at each call counts


@njit(**ROW, fastmath=LANES)
def _square_sum(x_d):
    total = x_d.dtype.type(0)
    for d in range(len(x_d)):
        total += x_d[d] * x_d[d]
    return total


@njit(**ROW)
def _scores(score_k, half_k, shift, bits_k):
    """From products to scores, all positive; returns the bits of the least.

    Positive floats are in the order of their bits, read as integers. A minimum of integers runs in vector lanes; one of floats
    does not, for it has to look out for NaN.
    """
    for k in range(len(score_k)):
        score_k[k] = half_k[k] - score_k[k] + shift
    least = bits_k[0]
    for k in range(len(bits_k)):
        least = min(least, bits_k[k])
    return least


@njit(**ROW)
def _within(score_k, limit):
    """How many scores are at most `limit`, and the sum of their indices: the index, if there is one."""
    count, where = np.int32(0), np.int32(0)
    for k in range(len(score_k)):
        near = np.int32(score_k[k] <= limit)
        count += near
        where += near * np.int32(k)
    return count, where


@njit(**ROW, fastmath=LANES)
def _distance(z_d, code_d):
    total = 0.0
    for d in range(len(z_d)):
        total += (np.float64(z_d[d]) - np.float64(code_d[d])) ** 2
    return total


@njit(**ROW)
def _distance_in_order(z_d, code_d):
    total = 0.0
    for d in range(len(z_d)):
        difference = np.float64(z_d[d]) - np.float64(code_d[d])
        total += difference * difference
    return total


@njit(**ROW)
def _choose(z_d, codes_kd, half_k, largest, rounding, score_k, bits_k, least_bits):
    """The index of the nearest code. score (K,): z . e on entry, and overwritten; `bits` is the same memory as integers."""
    size = np.sqrt(_square_sum(z_d))
    least_bits[0] = _scores(score_k, half_k, size * largest, bits_k)  # no product is larger than the shift
    limit = least_bits.view(score_k.dtype)[0] + rounding * largest * (size + largest)
    count, where = _within(score_k, limit)
    if count == 1:
        return np.int64(where)
    best, nearest = np.inf, np.int64(0)
    for k in range(len(codes_kd)):
        if count == 0 or score_k[k] <= limit:  # 0: NaN or infinity are about
            distance = _distance_in_order(z_d, codes_kd[k])
            if distance < best:
                best, nearest = distance, np.int64(k)
    return nearest


@njit(cache=True, parallel=True)
def _nearest(z_nd, codes_kd, code_panels, half_k, largest, rounding, bits, index_n, distance_n):
    blas_threads = blas.only_one_thread()
    count = len(z_nd)
    for task in prange((count + TASK - 1) // TASK):
        score_nk = np.empty((ROWS, len(codes_kd)), z_nd.dtype)
        bits_nk, least_bits = score_nk.view(bits), np.empty(1, bits)
        for start in range(task * TASK, min((task + 1) * TASK, count), ROWS):
            stop = min(start + ROWS, count)
            product(z_nd[start:stop], code_panels, 0.0, score_nk[:stop - start])
            for n in range(start, stop):
                i = n - start
                k = _choose(z_nd[n], codes_kd, half_k, largest, rounding, score_nk[i], bits_nk[i], least_bits)
                index_n[n], distance_n[n] = k, _distance(z_nd[n], codes_kd[k])
    blas.restore_threads(blas_threads)


def _check(z_nd, codes_kd):
    if codes_kd.ndim != 2 or codes_kd.shape[1] != z_nd.shape[1] or not len(codes_kd) or codes_kd.dtype != z_nd.dtype:
        raise ValueError(f"vq_forward: {z_nd.dtype} {z_nd.shape} does not fit codes {codes_kd.dtype} {codes_kd.shape}")


def vq_forward_cpu(z_nd, codes_kd):
    (count, size), dtype = z_nd.shape, z_nd.dtype
    _check(z_nd, codes_kd)
    z_nd, codes_kd = np.ascontiguousarray(z_nd), np.ascontiguousarray(codes_kd)
    index_n, distance_n = np.empty(count, np.int64), np.empty(count, dtype)
    half_k = 0.5 * np.einsum("kd,kd->k", codes_kd, codes_kd)
    largest = np.sqrt(2 * half_k.max())
    # A sum of D products of size at most |z| |e| is off by at most D eps |z| |e| (Higham 2002, section 3.1); so is half_k.
    # Twice, for the least score and the other one.
    rounding = dtype.type(2 * (size + 4) * np.finfo(dtype).eps)
    bits = np.int32 if dtype == np.float32 else np.int64
    _nearest(z_nd, codes_kd, panels(codes_kd.T), half_k, largest, rounding, bits, index_n, distance_n)
    return index_n, distance_n


# --- CUDA -------------------------------------------------------------------------------------------------------------

def vq_forward_cuda(z_nd, codes_kd):
    (count, size), dtype = z_nd.shape, z_nd.dtype
    _check(z_nd, codes_kd)
    index_n, distance_n = empty((count,), np.int64), empty((count,), dtype)
    given = [dense_copy(z_nd), dense_copy(codes_kd), index_n, distance_n, len(codes_kd), size]
    launch_sums("vq", "nearest_code", dtype, count, given, shared=size * dtype.itemsize)
    return index_n, distance_n
