"""The raw kernels: plain functions from arrays to arrays, one file per family, for the CPU (Numba) and for CUDA.

Reading one kernel should cost no more than that kernel, so none is imported here; but the heap must know its work before any
array is made.
"""

from . import heap  # noqa: F401
