"""What the recurrent scans share on the CPU: slices of the batch, and cells that are compiled as one loop over a slice.

**No step waits for another thread.** The sequences of a batch do not touch each other, so each task takes a slice of ROWS of
them through all time steps. Nothing synchronises inside a scan, and the state of a slice stays in the core's own cache. Slices
depend on the batch alone, so results do not depend on the number of threads.

The weight is put into panels (`panels.py`) once for the whole scan.
"""

import numpy as np
from numba import njit, prange
from numba.core.cpu import CPUTargetOptions
from numba.core.options import TargetOptions

from . import blas
from .gates import BRANCHLESS
from .matmul import matmul_forward_cpu
from .panels import ROWS
from .threads import address_of, call

# contract lets a multiplication and an addition become one instruction.
JIT = BRANCHLESS | {"cache": True}

# A cell is a loop over the numbers of a row, and a row is short: what happens before the loop counts. Measured for an LSTM of
# 128 units: two fifths of a forward cell's time, four fifths of a backward one's.
#   noalias       Rows that a cell is given never overlap. LLVM, which does not know, compares the addresses of each pair before
#                 each row, and where there are more than 128 pairs computes one number at a time. Numba sets this flag for the
#                 bodies of its own parallel loops; here it gets a name among njit's options.
#   forceinline   What is the same for all rows, such as the polynomials' coefficients, is loaded once for all.
CPUTargetOptions.noalias = TargetOptions.Mapping("noalias")
CELL = JIT | {"noalias": True, "forceinline": True}


@njit(cache=True, parallel=True)
def _over_slices(body, batch, arguments):
    blas_threads = blas.only_one_thread()
    for s in prange((batch + ROWS - 1) // ROWS):
        call(body, s * ROWS, min((s + 1) * ROWS, batch), arguments)
    blas.restore_threads(blas_threads)


def over_slices(body, batch, *arguments):
    """body(n0, n1, arguments) for every slice n0:n1 of the batch, on all threads."""
    blas.require()
    _over_slices(address_of(body, arguments[0].dtype, 0, batch, arguments), batch, arguments)


def sum_of_outer(d_tng, h_tnd):
    """sum over t and n of d h^T: (G, D), one product."""
    g, d = d_tng.shape[2], h_tnd.shape[2]
    return matmul_forward_cpu(d_tng.reshape(-1, g).T, h_tnd.reshape(-1, d))


@njit(**CELL)
def add(total, more):
    """total += more, two rows."""
    for j in range(total.size):
        total[j] += more[j]


# `to[:] = source` and `row[:] = 0` do the same, and take two seconds to compile: they say what does not fit.

@njit(**CELL)
def copy(to, source):
    for j in range(to.size):
        to[j] = source[j]


@njit(**CELL)
def clear(row):
    for j in range(row.size):
        row[j] = 0


@njit(cache=True)
def thirds(row):
    """The parts of a row of three gates: views."""
    d = row.size // 3
    return row[:d], row[d:2 * d], row[2 * d:]


@njit(cache=True)
def quarters(row):
    d = row.size // 4
    return row[:d], row[d:2 * d], row[2 * d:3 * d], row[3 * d:]


def rz_and_last(a_gd):
    """The parts of a (3D, D) for the gates r and z, and for the last third: views; of no array, none."""
    return (None, None) if a_gd is None else (a_gd[:2 * a_gd.shape[1]], a_gd[2 * a_gd.shape[1]:])


def sum_of_outer_in_parts(d_tng, h_tnd, last_tnd, last_h_tnd):
    """sum over t and n of (d_r, d_z) h^T, above that of last last_h^T: (3D, D)."""
    return np.concatenate([sum_of_outer(d_tng[..., :2 * h_tnd.shape[2]], h_tnd), sum_of_outer(last_tnd, last_h_tnd)])


def slice_sums(batch, like):
    """Zeros (slices, G): each task sums its slice's part of a bias's gradient. G is the length of `like`'s last axis."""
    return np.zeros((-(-batch // ROWS), like.shape[-1]), like.dtype)


def unused(like):
    """Zeros that take no memory, for a gradient nobody asked for."""
    return np.broadcast_to(np.zeros((), like.dtype), like.shape)


def checked(name, *arrays):
    """C-contiguous, and beside the mask of one dtype, float32 or float64."""
    kinds = {a.dtype for a in arrays if a.dtype != bool}
    if len(kinds) != 1 or not kinds <= {np.dtype(np.float32), np.dtype(np.float64)}:
        raise TypeError(f"{name}: all arrays must be float32, or all float64, not {', '.join(sorted(map(str, kinds)))}")
    return [np.ascontiguousarray(a) for a in arrays]
