"""Matrix products inside compiled loops: the CBLAS that NumPy already brought, called from Numba.

    gemm(a_mk, b_kn, beta, c_mn)          c = a @ b + beta * c
    gemv(a_mk, x_k, y_m)                  y = a @ x

NumPy's wheels carry OpenBLAS as a shared library. Its `cblas_sgemm` is looked up there, its address is given to LLVM under a
name of our own, and compiled kernels call it like any C function: no copy, no Python, no SciPy.

**One pool of threads.** Each BLAS has threads of its own. If every Numba thread started a threaded product there would be
threads times threads; if products ran on BLAS's threads and the loops between them on Numba's, each pool would wake up
while the other is still spinning. So a kernel calls `only_one_thread()` first and `restore_threads(n)` last, and divides the
work among Numba's threads itself: inside, each product runs on the core that asked for it.

A view is passed as it is: rows or columns must be adjacent in memory, the other step is BLAS's leading dimension. So
`a[m0:m1]`, `a[:, k0:k1]` and `a.T` cost nothing.

With NUMBA_DISABLE_JIT=1 the same names run as plain NumPy, so a kernel can be stepped through in a debugger.
"""

import ctypes
import ctypes.util
import glob
import os
import sys

import numpy as np
from llvmlite import binding as llvm
from numba import types
from numba.extending import overload

from . import threads  # noqa: F401  first, so that Numba starts with the right number of threads

UNPACKED = 1_000_000  # multiply-adds up to which OpenBLAS copies neither matrix first (interface/gemm.c), with AVX-512

_ROW_MAJOR, _AS_IS, _TRANSPOSED = 101, 111, 112

# Sizes are always declared as 64-bit integers. A library built with 32-bit ones takes the low half of each: they arrive in
# registers, or, past those, in stack slots where the low half comes first (on all platforms Numba supports). One
# declaration for both kinds keeps compiled kernels valid in the cache when NumPy is replaced; `_works` checks it.
_INT, _ENUM = ctypes.c_int64, ctypes.c_int32


# --- finding the library ----------------------------------------------------------------------------------------------

def _candidates():
    """Paths of libraries that may hold a CBLAS, best first."""
    package = os.path.dirname(np.__file__)
    for pattern in ("../numpy.libs/*openblas*", ".dylibs/*openblas*", ".libs/*openblas*"):
        yield from sorted(glob.glob(os.path.join(package, pattern)))
    if sys.platform == "darwin":
        yield "/System/Library/Frameworks/Accelerate.framework/Accelerate"
    for pattern in ("lib/libopenblas.*", "lib/libmkl_rt.*", "lib/libcblas.*", "Library/bin/*openblas*.dll"):
        yield from sorted(glob.glob(os.path.join(sys.prefix, pattern)))  # conda keeps them here
    for name in ("openblas", "cblas", "blas"):
        if found := ctypes.util.find_library(name):
            yield found


# What the same function is called in different builds: the pattern of its name.
_SPELLINGS = ("scipy_{}64_", "scipy_{}", "{}64_", "{}")
_SET_THREADS = ("openblas_set_num_threads", "MKL_Set_Num_Threads")
_GET_THREADS = ("openblas_get_num_threads", "MKL_Get_Max_Threads")


def _symbol(library, *names):
    for name in names:
        for spelling in _SPELLINGS:
            if hasattr(library, spelling.format(name)):
                return getattr(library, spelling.format(name))
    return None


def _works(function, dtype) -> bool:
    """Whether `function` computes a product of 2x3 by 3x2 whose rows do not lie end to end."""
    real = {4: ctypes.c_float, 8: ctypes.c_double}[np.dtype(dtype).itemsize]
    function.restype = None
    function.argtypes = [_ENUM] * 3 + [_INT] * 3 + [real] + [ctypes.c_void_p, _INT] * 2 + [real, ctypes.c_void_p, _INT]
    a, b, c = np.arange(8, dtype=dtype).reshape(2, 4), np.arange(15, dtype=dtype).reshape(3, 5), np.ones((2, 3), dtype)
    wanted = a[:, :3] @ b[:, :2] + 0.5
    function(_ROW_MAJOR, _AS_IS, _AS_IS, 2, 2, 3, 1.0, a.ctypes.data, 4, b.ctypes.data, 5, 0.5, c.ctypes.data, 3)
    return np.array_equal(c[:, :2], wanted) and np.all(c[:, 2] == 1)


def _find():
    """Register the first library that works. Returns (available, path or reason, set_num_threads, get_num_threads)."""
    tried = []
    for path in _candidates():
        try:
            library = ctypes.CDLL(path)
        except OSError as error:
            tried.append(f"{path}: {error}")
            continue
        sgemm, dgemm = _symbol(library, "cblas_sgemm"), _symbol(library, "cblas_dgemm")
        if not (sgemm and dgemm and _works(sgemm, np.float32) and _works(dgemm, np.float64)):
            tried.append(f"{path}: no working cblas_sgemm")
            continue
        set_threads, get_threads = _symbol(library, *_SET_THREADS), _symbol(library, *_GET_THREADS)
        # A library that cannot be told (Accelerate) is left to itself: C's abs() takes and returns an int and does nothing.
        nothing = ctypes.CDLL(None if os.name != "nt" else "msvcrt").abs
        for name, function in (("minigen_sgemm", sgemm), ("minigen_dgemm", dgemm),
                               ("minigen_sgemv", _symbol(library, "cblas_sgemv")),
                               ("minigen_dgemv", _symbol(library, "cblas_dgemv")),
                               ("minigen_set_blas_threads", set_threads or nothing),
                               ("minigen_get_blas_threads", get_threads or nothing)):
            llvm.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)
        return True, path, set_threads, get_threads
    return False, "no CBLAS found" + "".join(f"; {line}" for line in tried), None, None


available, where, _set_threads, _get_threads = _find()


def describe() -> str:
    """One line for `minigen doctor`: the library in use and its kernel for this processor, or why there is none."""
    if not available:
        return where
    library = ctypes.CDLL(where)
    core = _symbol(library, "openblas_get_corename")
    if core:
        core.restype = ctypes.c_char_p
        held = ", as OPENBLAS_CORETYPE says" if "OPENBLAS_CORETYPE" in os.environ else ""
    return os.path.realpath(where) + (f" ({core().decode()} kernels{held})" if core else "")


def require() -> None:
    """Raise a RuntimeError that says what to do if no library was found."""
    if not available:
        raise RuntimeError(f"the CPU kernels need a CBLAS: {where}. NumPy's own wheels (pip install numpy) carry one")


# --- inside compiled code ---------------------------------------------------------------------------------------------

def _declare(name, enums, sizes, real):
    """cblas_?gemm and cblas_?gemv: enums, sizes, alpha, a, lda, b, ldb, beta, c, ldc."""
    matrix = (types.CPointer(real), types.int64)
    return types.ExternalFunction(name, types.void(*[types.int32] * enums, *[types.int64] * sizes, real, *matrix, *matrix,
                                                   real, *matrix))


_sgemm, _dgemm = _declare("minigen_sgemm", 3, 3, types.float32), _declare("minigen_dgemm", 3, 3, types.float64)
_sgemv, _dgemv = _declare("minigen_sgemv", 2, 2, types.float32), _declare("minigen_dgemv", 2, 2, types.float64)
_set = types.ExternalFunction("minigen_set_blas_threads", types.void(types.int32))
_get = types.ExternalFunction("minigen_get_blas_threads", types.int32())


def gemm(a_mk, b_kn, beta, c_mn):
    """c = a @ b + beta * c, in place, on the calling thread; where beta is 0 the old c is not read."""
    if beta == 0:
        c_mn[...] = a_mk @ b_kn
    else:
        c_mn[...] = a_mk @ b_kn + beta * c_mn


@overload(gemm)
def _gemm_compiled(a_mk, b_kn, beta, c_mn):
    real, function = (np.float32, _sgemm) if c_mn.dtype == types.float32 else (np.float64, _dgemm)
    item = np.dtype(real).itemsize

    def compiled(a_mk, b_kn, beta, c_mn):
        m, k = a_mk.shape
        n = b_kn.shape[1]
        if m == 0 or n == 0:
            return
        # Columns adjacent: as it is, and rows are `ld` apart. Rows adjacent: the transpose of such a matrix.
        a_rows, a_cols, b_rows, b_cols = a_mk.strides[0], a_mk.strides[1], b_kn.strides[0], b_kn.strides[1]
        a_plain, b_plain = a_cols == item, b_cols == item
        function(np.int32(_ROW_MAJOR), np.int32(_AS_IS if a_plain else _TRANSPOSED),
                 np.int32(_AS_IS if b_plain else _TRANSPOSED), m, n, k, real(1),
                 a_mk.ctypes, max(a_rows // item, k) if a_plain else max(a_cols // item, m),
                 b_kn.ctypes, max(b_rows // item, n) if b_plain else max(b_cols // item, k),
                 real(beta), c_mn.ctypes, max(c_mn.strides[0] // item, n))

    return compiled


def gemv(a_mk, x_k, y_m):
    """y = a @ x, in place, on the calling thread; x and y contiguous."""
    y_m[...] = a_mk @ x_k


@overload(gemv)
def _gemv_compiled(a_mk, x_k, y_m):
    real, function = (np.float32, _sgemv) if y_m.dtype == types.float32 else (np.float64, _dgemv)
    item = np.dtype(real).itemsize

    def compiled(a_mk, x_k, y_m):
        m, k = a_mk.shape
        if m == 0:
            return
        if a_mk.strides[1] == item:
            function(np.int32(_ROW_MAJOR), np.int32(_AS_IS), m, k, real(1), a_mk.ctypes, max(a_mk.strides[0] // item, k),
                     x_k.ctypes, 1, real(0), y_m.ctypes, 1)
        else:
            function(np.int32(_ROW_MAJOR), np.int32(_TRANSPOSED), k, m, real(1), a_mk.ctypes, max(a_mk.strides[1] // item, m),
                     x_k.ctypes, 1, real(0), y_m.ctypes, 1)

    return compiled


def only_one_thread():
    """Let BLAS use one thread from now on; returns the number to give to `restore_threads`."""
    return 1


def restore_threads(n):
    """Give BLAS its threads back."""


@overload(only_one_thread)
def _only_one_thread_compiled():
    def compiled():
        n = _get()
        _set(np.int32(1))
        return n
    return compiled


@overload(restore_threads)
def _restore_threads_compiled(n):
    def compiled(n):
        _set(n)
    return compiled
