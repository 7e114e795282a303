"""Random numbers on a device: the state is an array there, which kernels read and move on. The host never looks at it.

On the CPU the reference in minigen/ops/philox.py is for tests: NumPy's own generator draws there, and faster.
"""

import numpy as np

from . import cuda
from .device_array import empty, launch_each

BLOCK_BYTES = 16    # of the numbers that one block of words makes: four float32 or two float64
FLOATS = np.dtype(np.float32), np.dtype(np.float64)


def philox_uniform_cuda(state_2, shape, dtype):
    return _drawn("philox_uniform", state_2, shape, np.dtype(dtype))


def philox_normal_cuda(state_2, shape, dtype):
    return _drawn("philox_normal", state_2, shape, np.dtype(dtype))


def _drawn(kernel, state_2, shape, dtype):
    if dtype not in FLOATS:
        raise TypeError(f"philox: random numbers are float32 or float64, not {dtype}")
    y = empty(shape, dtype)
    blocks = -(-y.nbytes // BLOCK_BYTES)
    launch_each("philox", kernel, dtype, blocks, [state_2, y, y.size])
    cuda.launch("philox", "philox_advance", dtype, min(blocks, 1), 1, [state_2, blocks])
    return y
