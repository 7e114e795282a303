"""What the recurrent scans share on the host side of CUDA: which version runs, how it is launched, products over all steps.

    version 1   for each step a product with the recurrent weight, by `matmul.cu`, and a launch of the cell: any hidden size
    version 2   one launch for all steps, a few sequences a block (`scan.cuh`), and each block reads the weight in each step:
                for small hidden sizes, whose weight stays in a multiprocessor's own cache (3 gates of 128 units: 196 kB)

Both take the same arguments but for the first, which is a step's product or the weight.
"""

import numpy as np

from .cuda import launch
from .device_array import dense_copy, empty, full, launch_each, to_device
from .matmul import matmul_forward_cuda

PERSISTENT = 128            # units up to which version 2 runs
ROWS, THREADS = 4, 512      # as in scan.cuh


def persistent(w_gd):
    return w_gd.shape[1] <= PERSISTENT


def dense(mask_tn, *arrays):
    """The mask on the device, and all without gaps."""
    return [dense_copy(a) for a in (to_device(mask_tn), *arrays)]


def states(first_nd, steps):
    """(T+1, N, D) that begins with an initial state; the rest is to be written."""
    made = empty((steps + 1, *first_nd.shape), first_nd.dtype)
    made[0] = first_nd
    return made


def transposed(w_gd):
    """U^T of each gate, one behind the other, for version 2."""
    g, d = w_gd.shape
    return dense_copy(w_gd.reshape(g // d, d, d).transpose(0, 2, 1))


def step(stem, kernel, t, like_nd, arguments):
    """Version 1's launch for step t."""
    launch_each(stem, kernel, like_nd.dtype, like_nd.size, [*arguments, t, like_nd.size, like_nd.shape[1]])


def scan(stem, kernel, steps, like_nd, gates, room, arguments):
    """Version 2's launch. `gates` of its widest product; `room`: how many arrays (ROWS, D) it keeps in shared memory."""
    batch, d = like_nd.shape
    threads = min(-(-gates * d // 32) * 32, THREADS)
    launch(stem, kernel, like_nd.dtype, -(-batch // ROWS), threads, [*arguments, steps, like_nd.size, d],
           shared=room * ROWS * d * like_nd.itemsize)


def forward_sweep(stem, kernel, w_gd, h_tnd, arrays):
    """t = 1 .. T, of a cell with one product, U h, in a step. The kernel writes h_tnd, which is among the arrays too."""
    steps, (g, d) = len(h_tnd) - 1, w_gd.shape
    if persistent(w_gd):
        scan(stem, f"{kernel}_scan", steps, h_tnd[0], g // d, g // d + 1, [transposed(w_gd), *arrays])
    else:
        for t in range(steps):
            step(stem, f"{kernel}_step", t, h_tnd[0], [matmul_forward_cuda(h_tnd[t], w_gd.T), *arrays])


def backward_sweep(stem, kernel, w_gd, e_tng, dh_nd, arrays):
    """t = T .. 1, of a cell with one product, U^T e, in a step; it adds to the state's gradient dh."""
    g, d = w_gd.shape
    if persistent(w_gd):
        scan(stem, f"{kernel}_scan", len(e_tng), dh_nd, g // d, 2 * g // d, [w_gd, *arrays])
    else:
        u_nd = np.zeros_like(dh_nd)
        for t in reversed(range(len(e_tng))):
            step(stem, f"{kernel}_step", t, dh_nd, [u_nd, *arrays])
            u_nd = matmul_forward_cuda(e_tng[t], w_gd)
        dh_nd += u_nd


def times(a_tnk, b_km):
    """(T, N, K) @ (K, M) -> (T, N, M), all steps at once."""
    return matmul_forward_cuda(a_tnk.reshape(-1, a_tnk.shape[2]), b_km).reshape(*a_tnk.shape[:2], b_km.shape[1])


def sum_of_outer(d_tng, h_tnd):
    """sum over t and n of d h^T: (G, D), one product, so that the order of the sum is the same in every run."""
    return matmul_forward_cuda(d_tng.reshape(-1, d_tng.shape[2]).T, h_tnd.reshape(-1, h_tnd.shape[2]))


def weight_gradients(d_tng, h_tnd, want_w):
    """dw = sum d h^T and db = sum d; where nobody wants them, zeros that take no memory."""
    if want_w:
        return sum_of_outer(d_tng, h_tnd), d_tng.sum(axis=(0, 1))
    g, d = d_tng.shape[2], h_tnd.shape[2]
    return zeros((g, d), d_tng.dtype), zeros((g,), d_tng.dtype)


def zeros(shape, dtype):
    return np.broadcast_to(full((), 0, dtype), shape)


def outside_the_sweeps(vw_gd, e_tng, h_tnd, w_gd):
    """The products of a double backward that wait for no sweep: h vU^T, e U, and e vU; without a vw two of them are zeros.

    h (T, N, D) are the states before each step, e (T, N, G) what the backward sweep multiplies by U. On the CPU each step does
    its part of them; here one large product is faster than many small ones.
    """
    eu_tnd = times(e_tng, w_gd)
    if vw_gd is None:
        return zeros(e_tng.shape, e_tng.dtype), eu_tnd, np.zeros_like(eu_tnd)
    return times(h_tnd, vw_gd.T), eu_tnd, times(e_tng, vw_gd)
