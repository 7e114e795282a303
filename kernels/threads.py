"""One pool of threads, and how many of them there are.

Every parallel kernel runs on Numba's threads, and a BLAS call inside a kernel is single-threaded (see `blas.py`): the
number set here is therefore the number of cores in use, never threads times threads.

The pool starts with, in this order: NUMBA_NUM_THREADS; OMP_NUM_THREADS; the cores this process may run on (its affinity
mask), or fewer where a container has been given a smaller share of time.

**Compiling less.** Numba compiles the body of a `prange` loop four times over, with everything it calls. A large body is
therefore compiled by itself, and the loop is given its address:

    call(address_of(body, real, *arguments), *arguments)          the same as          body(*arguments)

And it compiles a function anew for each order in which the numbers of a matrix may lie in memory. `in_any_order(f, *arguments)`
does what f(*arguments) does, and is compiled once.
"""

import contextlib
import ctypes
import os
import sys
from pathlib import Path

from .cache import let_numba_keep_kernels


def cores() -> int:
    """How many cores this process may keep busy: the affinity mask, or the container's share of time if that is less."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        usable = min(usable, max(1, round(int(quota) / int(period))))  # "max 100000" has no limit: int() raises
    except (OSError, ValueError):
        pass
    return usable


def _first_count() -> int:
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "").split(",")[0].strip()  # OMP allows a list, one entry per nesting level
        if value.isdigit() and int(value) > 0:
            return int(value)
    return cores()


def _load_tbb() -> None:
    """Let Numba find TBB, whose wheel puts the library where no loader looks. Without it Numba uses OpenMP.

    A kernel ends when its slowest thread does. OpenMP gives each thread its share beforehand: if another program holds a core,
    everybody waits for the thread that has none, spinning, until the scheduler's next tick (measured: 8 ms, forty times the
    kernel). TBB's threads take tasks as they come, and the one that is running does the work of the one that is not.
    """
    for place in ("lib/libtbb.so.12", "Library/bin/tbb12.dll"):  # Linux, Windows
        library = Path(sys.prefix) / place
        if library.exists():
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
            return


_load_tbb()

# Numba reads these variables when it is first imported, and a pool once started keeps its size.
if "numba" not in sys.modules:
    let_numba_keep_kernels()
    os.environ.setdefault("NUMBA_NUM_THREADS", str(_first_count()))

import numba  # noqa: E402
from numba.extending import intrinsic, overload  # noqa: E402

if _first_count() < numba.config.NUMBA_NUM_THREADS:
    numba.set_num_threads(_first_count())


def get_num_threads() -> int:
    """The number of threads the next kernel will use."""
    return numba.get_num_threads()


def set_num_threads(n: int) -> None:
    """Use `n` threads from now on, 1 <= n <= the size of the pool (fixed when the program starts)."""
    most = numba.config.NUMBA_NUM_THREADS
    if not 1 <= n <= most:
        raise ValueError(f"n = {n}: between 1 and {most} threads; NUMBA_NUM_THREADS, set before starting, makes a larger pool")
    numba.set_num_threads(n)


# --- calling by address -----------------------------------------------------------------------------------------------

_addresses: dict = {}


def address_of(body, real, *arguments):
    """Where the machine code of `body`, an @njit function that returns nothing, begins, for arguments of these types.

    `real` is the dtype of its arrays, the one thing that may differ between two calls: it is compiled once for each. With
    NUMBA_DISABLE_JIT=1 there is no code: the result is `body` itself, and `call` calls it.
    """
    if (body, real) not in _addresses:
        if numba.config.DISABLE_JIT:
            return body
        types = tuple(numba.typeof(argument) for argument in arguments)
        body.compile(types)
        compiled = body.overloads[types]
        _addresses[body, real] = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    return _addresses[body, real]


def call(address, *arguments):
    """Call what `address_of` found, from compiled code, with arguments of exactly those types. It must not raise."""
    address(*arguments)


@intrinsic
def _call(typing, address, arguments):
    def generate(context, builder, signature, values):
        convention, types = context.call_conv, signature.args[1].types
        function = convention.get_function_type(numba.types.none, types)
        pointer = builder.inttoptr(values[0], function.as_pointer())
        unpacked = [builder.extract_value(values[1], i) for i in range(len(types))]
        convention.call_function(builder, pointer, numba.types.none, types, unpacked)
        return context.get_dummy_value()
    return numba.types.none(address, arguments), generate


@overload(call)
def _call_compiled(address, *arguments):
    def compiled(address, *arguments):
        _call(address, arguments)
    return compiled


# --- one version for all orders in memory ------------------------------------------------------------------------------

_in_any_order: set = set()


def in_any_order(function, first, *others):
    """function(first, *others): an @njit function that writes to the last of its arrays only; the others may be read-only."""
    if (function, first.dtype) not in _in_any_order and not numba.config.DISABLE_JIT:
        kinds = [numba.typeof(a) for a in (first, *others)]
        arrays = [i for i, kind in enumerate(kinds) if isinstance(kind, numba.types.Array)]
        for i in arrays:
            kinds[i] = kinds[i].copy(layout="A" if kinds[i].ndim > 1 else "C", readonly=i != arrays[-1])
        function.disable_compile(False)
        function.compile(tuple(kinds))
        function.disable_compile()
        _in_any_order.add((function, first.dtype))
    return function(first, *others)
