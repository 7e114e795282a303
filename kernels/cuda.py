"""The device layer: allocate, copy, launch. Two back ends do it, CuPy on a GPU and the emulator on any computer.

    launch("arithmetic", "add", np.float32, grid, block, [a, b, y, np.int32(n)])

finds `arithmetic.cu`, compiles it once for each type of `real`, checks the arguments and runs the kernel. A launch by itself
checks nothing, neither in CUDA nor in CuPy: the wrong type, a view with gaps or a missing argument would be read as it comes.

MINIGEN_CUDA=emulated chooses the emulator (`emulator/`); MINIGEN_CUDA_CHECKED=1 its checked build, MINIGEN_CUDA_SEED another
order of threads. Otherwise the back end is CuPy's, if it finds a GPU. This is the only file that imports CuPy.
"""

import functools
import importlib.util
import math
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from . import emulator
from .source import C_NAMES, for_real, kernels, spliced

HERE = Path(__file__).resolve().parent
MOST_THREADS, MOST_BLOCKS = 1024, (2**31 - 1, 65535, 65535)     # of a block; of a grid, along x, y and z


class DeviceError(RuntimeError):
    """There is no device, or it cannot do what was asked."""


class Emulated:
    """Device memory is host memory, and kernels are built with g++."""

    name = "emulated"

    def __init__(self, checked=False, seed=0):
        self.checked, self.seed = checked, seed
        self.constants = {}         # arrays that never change, by what they were made from

    def recording(self):
        """What a graph is captured with."""
        from .graph import EmulatedRecording

        return EmulatedRecording(self)

    def describe(self):
        return f"this computer, emulated{', every access to memory watched' if self.checked else ''}"

    def allocate(self, size):
        return emulator.Memory(size)

    def upload(self, memory, offset, host):
        """Copy a contiguous host array to bytes offset.. of the memory."""
        memory.bytes[offset : offset + host.nbytes] = host.reshape(-1).view(np.uint8)
        memory.written(offset, host.nbytes)

    def download(self, memory, offset, host):
        host.reshape(-1).view(np.uint8)[:] = memory.bytes[offset : offset + host.nbytes]

    def library(self, stem, real):
        return _emulated(stem, real, self.checked)

    def launch(self, library, kernel, grid, block, shared, arguments, memories):
        library.launch(kernel, grid, block, shared, arguments, self.seed)
        if not self.checked and any(m.damaged() for m in each(memories)):
            raise emulator.KernelFault([f"{kernel} wrote outside of an array; MINIGEN_CUDA_CHECKED=1 says where"], ["outside"])

    def synchronize(self):
        """Everything has run when `launch` returns."""

    def as_theirs(self, x):
        """A NumPy array on the memory of a device array."""
        strides = [s * x.itemsize for s in x.strides]
        return np.ndarray(x.shape, x.dtype, x.memory.bytes.data, x.offset * x.itemsize, strides)


class CuPy:
    """A GPU, through CuPy."""

    name = "cupy"

    def __init__(self):
        import cupy

        self.cupy, self.constants = cupy, {}

    def recording(self):
        from .graph import CuPyRecording

        return CuPyRecording(self)

    def describe(self):
        device = self.cupy.cuda.Device()
        return f"{self.cupy.cuda.runtime.getDeviceProperties(device.id)['name'].decode()}, through CuPy {self.cupy.__version__}"

    def allocate(self, size):
        return DeviceMemory(self.cupy.cuda.alloc(max(size, 1)), size)

    def upload(self, memory, offset, host):
        (memory.pointer + offset).copy_from_host(host.ctypes.data, host.nbytes)

    def download(self, memory, offset, host):
        (memory.pointer + offset).copy_to_host(host.ctypes.data, host.nbytes)

    def library(self, stem, real):
        return _compiled(self.cupy, stem, real)

    def launch(self, library, kernel, grid, block, shared, arguments, memories):
        function = library.module.get_function(kernel)
        if shared > 48 << 10:
            function.max_dynamic_shared_size_bytes = shared     # above 48 KB it must be asked for
        given = tuple(np.uintp(a) if p.pointer else a for p, a in zip(library.parameters[kernel], arguments, strict=True))
        function(grid, block, given, shared_mem=shared)

    def synchronize(self):
        self.cupy.cuda.Device().synchronize()       # every stream: graphs have their own

    def as_theirs(self, x):
        """A CuPy array on the memory of a device array."""
        memory = self.cupy.cuda.UnownedMemory(x.memory.address, x.memory.size, x.memory)
        pointer = self.cupy.cuda.MemoryPointer(memory, x.offset * x.itemsize)
        return self.cupy.ndarray(x.shape, x.dtype, pointer, [s * x.itemsize for s in x.strides])

    def adopted(self, theirs):
        """(memory, shape, dtype, strides) of an array that any library keeps on the GPU, by DLPack: nothing is copied."""
        array = self.cupy.from_dlpack(theirs)
        strides = [s // array.itemsize for s in array.strides]
        return DeviceMemory(array.data, array.nbytes), array.shape, array.dtype, strides


class DeviceMemory:
    """CuPy's memory, freed when nobody holds it."""

    def __init__(self, pointer, size):
        self.pointer, self.address, self.size = pointer, pointer.ptr, size


class _Module:
    def __init__(self, module, parameters):
        self.module, self.parameters = module, parameters


@functools.cache
def _text(stem):
    return spliced(HERE / f"{stem}.cu")


@functools.cache
def _emulated(stem, real, checked):
    return emulator.Library(_text(stem), real, checked, stem)


@functools.cache
def _compiled(cupy, stem, real):
    text = for_real(_text(stem), C_NAMES[real.str[1:]])
    return _Module(cupy.RawModule(code=text, options=("-std=c++17",)), kernels(text))


# --- which back end ---------------------------------------------------------------------------------------------------

def status():
    """One line that names the first thing missing for a GPU, or None if there is one."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed"
    try:
        import cupy
    except ImportError as e:
        return f"CuPy is installed but does not import (wrong wheel for this CUDA?): {e}"
    if not cupy.cuda.is_available():
        return "CuPy is installed but finds no driver or no device"
    return None


_chosen = None


@contextmanager
def using(chosen):
    """Run kernels on this back end inside the block."""
    global _chosen
    before, _chosen = _chosen, chosen
    try:
        yield chosen
    finally:
        _chosen = before


def backend():
    """The back end that runs kernels here. DeviceError says what is missing."""
    return _chosen or _default()


def bare_backend():
    """The same, without what watches it while a step is captured."""
    chosen = backend()
    return getattr(chosen, "watched", chosen)


@functools.cache
def _default():
    wanted = os.environ.get("MINIGEN_CUDA", "")
    if wanted == "emulated":
        if reason := emulator.missing():
            raise DeviceError(f"MINIGEN_CUDA=emulated: {reason}")
        checked = os.environ.get("MINIGEN_CUDA_CHECKED", "") not in ("", "0")
        return Emulated(checked, int(os.environ.get("MINIGEN_CUDA_SEED", "0")))
    if wanted:
        raise DeviceError(f"MINIGEN_CUDA={wanted}: it may be 'emulated', or not set")
    if reason := status():
        raise DeviceError(reason)
    return CuPy()


# --- launching --------------------------------------------------------------------------------------------------------

def launch(stem, kernel, real, grid, block, arguments, shared=0):
    """Run a kernel of `stem`.cu, compiled for `real`, with `shared` bytes of dynamic shared memory.

    `arguments`: device arrays, contiguous and of the declared type; None for a null pointer; numbers, which are converted.
    A grid without blocks does nothing. TypeError or ValueError say which argument does not fit.
    """
    device = backend()
    library = device.library(stem, np.dtype(real))
    if kernel not in library.parameters:
        raise ValueError(f"{stem}.cu has no kernel {kernel}")
    grid, block = _three(grid), _three(block)
    parameters = library.parameters[kernel]
    if len(parameters) != len(arguments):
        raise TypeError(f"{kernel} takes {len(parameters)} arguments, not {len(arguments)}")
    if math.prod(block) > MOST_THREADS or any(g > most for g, most in zip(grid, MOST_BLOCKS, strict=True)):
        raise ValueError(f"{kernel}: a grid of {grid} blocks of {block} threads is larger than a GPU takes")
    values = [_fitted(kernel, p, a, np.dtype(real)) for p, a in zip(parameters, arguments, strict=True)]
    if 0 not in grid and 0 not in block:
        device.launch(library, kernel, grid, block, shared, values, [_memory(a) for a in arguments])


class Table(list):
    """Device arrays for a struct of pointers; null pointers behind them, as many as it has room for."""


def _memory(argument):
    """Of an array its memory; of a Table the list of theirs; of anything else None."""
    return [_memory(a) for a in argument] if isinstance(argument, Table) else getattr(argument, "memory", None)


def each(memories):
    """Every memory among those of a launch."""
    return [m for entry in memories for m in (entry if isinstance(entry, list) else [entry]) if m is not None]


def _three(sizes):
    sizes = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    return tuple(int(s) for s in sizes) + (1,) * (3 - len(sizes))


def _fitted(kernel, parameter, argument, real):
    """What is handed to the kernel: an address, a NumPy scalar, or an array that holds a struct."""
    dtype = real if parameter.type == "real" else np.dtype(parameter.type)
    if isinstance(argument, Table):
        return _addresses(kernel, parameter, argument, real, dtype)
    if not parameter.pointer and parameter.type.startswith("V"):
        value = np.array(argument, np.int32)
        if value.nbytes != dtype.itemsize:
            raise TypeError(f"{kernel}: {parameter.name} is {dtype.itemsize // 4} integers, not {value.size}")
        return value.view(dtype)        # CuPy hands over what an array of one element holds, not where it is
    if not parameter.pointer:
        value = np.array(argument).astype(dtype)[()]
        if dtype.kind in "iu" and int(value) != int(argument):
            raise ValueError(f"{kernel}: {parameter.name} = {argument} does not fit into {dtype}")
        return value
    return 0 if argument is None else _address(kernel, parameter, argument, dtype)


def _addresses(kernel, parameter, arrays, real, dtype):
    value = np.zeros(dtype.itemsize // 8, np.int64)
    if len(arrays) > len(value):
        raise TypeError(f"{kernel}: {parameter.name} has room for {len(value)} arrays, not for {len(arrays)}")
    value[: len(arrays)] = [_address(kernel, parameter, a, real) for a in arrays]
    return value.view(dtype)


def _address(kernel, parameter, argument, dtype):
    if not hasattr(argument, "memory"):
        raise TypeError(f"{kernel}: {parameter.name} must be a device array, not {type(argument).__name__}")
    if argument.dtype != dtype and not (dtype == np.uint8 and argument.dtype == bool):
        raise TypeError(f"{kernel}: {parameter.name} must be {dtype}, not {argument.dtype}")
    if not argument.contiguous:
        raise ValueError(f"{kernel}: {parameter.name} is a view with gaps: shape {argument.shape}, strides {argument.strides}")
    return argument.address
