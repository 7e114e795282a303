"""The raw kernels: plain functions from arrays to arrays, one file per family, for the CPU (Numba) and for CUDA.

Nothing is imported here: reading one kernel should cost no more than that kernel.
"""
