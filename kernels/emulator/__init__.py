"""CUDA kernels on a computer without a GPU: the same .cu files, compiled by g++ and run thread by thread.

    library = Library(text, np.float32)                     build, or take from the cache
    memory = Memory(1024)                                   bytes of "device memory": memory.address
    library.launch("scale", grid, block, shared, [memory.address, np.int32(256)])

The text of a .cu file is compiled as it is; only `extern __shared__ T name[];`, which C++ cannot express, is spelt as a
pointer. `device.h` stands in for CUDA's headers and `runtime.cpp` runs the threads. Memory that nobody has written holds NaN.
Blocks, and threads between two barriers, run in an order drawn from `seed`: what depends on it is a bug.

**The checked build** (`checked=True`) is 10 to 100 times slower. Every access to memory is watched (`memory.cpp`), and a launch
ends with a KernelFault that names, by file and line, races, accesses outside of an array, reads of memory that was never
written, indices outside of a static array, and misaligned vectors. Barriers that not all threads reach, and waiting that
cannot end, are found in both builds.

What it cannot find: what depends on the hardware's memory order or on the speed of threads, and a GPU's limits, registers for
one. Blocks must not wait for each other: they run one after another.

Needs g++; ValueError and KernelFault say what is wrong in one line each. Built libraries are kept in the user's cache folder.
"""

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from .. import cache
from ..source import C_NAMES, kernels

HERE = Path(__file__).resolve().parent
EDGE = 256              # bytes before and behind each allocation: also its alignment
FLAGS = ["-std=c++17", "-fPIC", "-g1", "-O1", "-fno-strict-aliasing", "-w"]
CHECKED = ["-fsanitize=thread,bounds,alignment", "-fno-sanitize-recover=bounds,alignment"]
_DYNAMIC = re.compile(r"extern\s+__shared__\s+(?:__align__\(\d+\)\s*)?([\w ]+?)\s+(\w+)\s*\[\s*\]\s*;")
KINDS = ("race", "outside", "unwritten", "index", "misaligned")


class KernelFault(RuntimeError):
    """What a kernel did wrong. `kinds`: which of KINDS were found; "waiting" for barriers and warps."""

    def __init__(self, lines, kinds):
        super().__init__("\n".join(lines))
        self.kinds = kinds


def missing():
    """What is not installed, or None."""
    return None if shutil.which("g++") else "g++ is not installed"


# --- building ---------------------------------------------------------------------------------------------------------

def cache_folder():
    """Where built libraries are kept; XDG_CACHE_HOME moves it. Where that cannot be written, a folder for temporary files."""
    return cache.user_folder("minigen/emulator") or cache.temporary_folder("minigen-emulator")


@functools.cache
def _compiler():
    if reason := missing():
        raise ValueError(f"emulated CUDA kernels cannot be built: {reason}")
    return subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def _build(name, text, arguments):
    """The library that g++ makes of `text`: its path. `name` is what it is called, with a hash of all it was made from."""
    made_from = "\0".join([_compiler(), *arguments, text, (HERE / "device.h").read_text()])
    folder = cache_folder()
    path = folder / f"{name}-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            source, compiled, made = (Path(work) / f"{name}.{kind}" for kind in ("cu", "o", "so"))
            source.write_text(text)
            # Linked by itself: with -fsanitize g++ would add the sanitizer's own library, whose place memory.cpp takes.
            compile_it = ["-c", "-x", "c++", *arguments, "-o", str(compiled), str(source)]
            for command in (compile_it, ["-shared", "-o", str(made), str(compiled), "-ldl"]):
                done = subprocess.run(["g++", *command], capture_output=True, text=True)
                if done.returncode:
                    raise ValueError(f"g++ does not compile {name}:\n{done.stderr.strip()}")
            os.replace(made, path)      # whole or not at all: other processes build too
    return path


class _Event(ctypes.Structure):
    """As in memory.cpp."""
    _fields_ = [("kind", ctypes.c_int), ("size", ctypes.c_int), ("at", ctypes.c_void_p), ("other_at", ctypes.c_void_p),
                ("address", ctypes.c_void_p), ("region", ctypes.c_void_p), ("thread", ctypes.c_int),
                ("other_thread", ctypes.c_int), ("block", ctypes.c_int), ("other_block", ctypes.c_int),
                ("writes", ctypes.c_int), ("other_writes", ctypes.c_int)]


@functools.cache
def _runtime():
    """runtime.cpp and memory.cpp, loaded so that kernels find their names."""
    parts = [(HERE / name).read_text() for name in ("runtime.h", "runtime.cpp", "memory.cpp")]
    text = "\n".join(f'#line 1 "{name}.cu"\n' + part.replace('#include "runtime.h"', "").replace("#pragma once", "")
                     for name, part in zip(("runtime.h", "runtime.cpp", "memory.cpp"), parts, strict=True))
    # PyDLL, for two launches at a time would use the same fibers: Python's lock is held as long as a kernel runs.
    library = ctypes.PyDLL(str(_build("runtime", text, [*FLAGS, "-O2"])), mode=ctypes.RTLD_GLOBAL)
    library.emulator_allocated.argtypes = library.emulator_written.argtypes = [ctypes.c_void_p, ctypes.c_ulong]
    library.emulator_freed.argtypes = [ctypes.c_void_p]
    library.emulator_events.restype = ctypes.c_ulong
    return library


# --- memory -----------------------------------------------------------------------------------------------------------

class Memory:
    """So many bytes of device memory, full of NaN. Freed when nobody holds it."""

    def __init__(self, size):
        self.size = size
        self._bytes = np.full(size + 3 * EDGE, 0xFF, np.uint8)
        start = -self._bytes.ctypes.data % EDGE + EDGE
        self.address = self._bytes.ctypes.data + start
        self.bytes = self._bytes[start : start + size]
        self._edges = self._bytes[:start], self._bytes[start + size :]
        _runtime().emulator_allocated(self.address, size)

    def __del__(self):
        if hasattr(self, "_edges") and _runtime is not None:     # when Python ends, modules are emptied first
            _runtime().emulator_freed(self.address)

    def written(self, offset=0, size=None):
        """Say that the host has filled it, or so many bytes of it."""
        _runtime().emulator_written(self.address + offset, self.size if size is None else size)

    def renew(self):
        """As when it was allocated: full of NaN, and written by nobody."""
        self._bytes.fill(0xFF)
        _runtime().emulator_freed(self.address)
        _runtime().emulator_allocated(self.address, self.size)

    def damaged(self):
        """Whether somebody wrote before its beginning or behind its end."""
        return any((edge != 0xFF).any() for edge in self._edges)


# --- launching --------------------------------------------------------------------------------------------------------

class Library:
    """The kernels of one .cu text for one type of `real`."""

    def __init__(self, text, real, checked=False, name="kernels"):
        self.parameters, self.checked = kernels(text), checked
        real = C_NAMES[np.dtype(real).str[1:]]
        code = _DYNAMIC.sub(r"\1* \2 = (\1*)emulator_dynamic_shared();", text)
        calls = "\n".join(self._call(kernel, ps) for kernel, ps in self.parameters.items())
        head = f'#include "{HERE / "device.h"}"\n#define real {real}\n#line 1 "{name}.cu"\n'
        code = f'{head}{code}\n#line 1 "calls"\n{_STATIC}{calls}\n'
        _runtime()
        self.path = _build(name, code, [*FLAGS, *(CHECKED if checked else [])])
        self._library = ctypes.CDLL(str(self.path))
        at = [ctypes.c_void_p(), ctypes.c_void_p()]
        self._library.emulator_static_shared(ctypes.byref(at[0]), ctypes.byref(at[1]))
        self._static = at[0].value or 0, (at[1].value or 0) - (at[0].value or 0)

    def _call(self, kernel, parameters):
        given = ", ".join(f"*({p.of}{'*' if p.pointer else ''}*)a[{i}]" for i, p in enumerate(parameters))
        head = 'extern "C" __attribute__((no_sanitize_thread))'
        return f"{head} void call_{kernel}(void** a) {{ {kernel}({given}); }}"

    def launch(self, kernel, grid, block, shared, arguments, seed=0):
        """Run it. `arguments`: an address for each pointer, a NumPy scalar of the right type for the rest; an array
        for a struct. Raises KernelFault.
        """
        # An array of one element each: where it lies is where the argument is.
        values = [np.array(a, np.uintp if p.pointer else None) for p, a in zip(self.parameters[kernel], arguments, strict=True)]
        places = [v.ctypes.data for v in values]
        text = ctypes.create_string_buffer(1000)
        room = np.empty(shared + EDGE, np.uint8)
        failed = _runtime().emulator_launch(
            (ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block), ctypes.c_uint(shared),
            ctypes.c_void_p(room.ctypes.data + -room.ctypes.data % EDGE), ctypes.c_void_p(self._static[0]),
            ctypes.c_ulong(self._static[1]), ctypes.c_ulong(seed), ctypes.c_int(self.checked),
            getattr(self._library, f"call_{kernel}"),
            (ctypes.c_void_p * max(len(places), 1))(*places), text, ctypes.c_ulong(1000))
        lines, kinds = self._events() if self.checked else ([], [])
        if failed and text.value != b"outside":
            lines, kinds = [text.value.decode(), *lines], ["waiting", *kinds]
        if lines:
            raise KernelFault([f"{kernel}: {line}" for line in lines], kinds)

    def _events(self):
        first = ctypes.POINTER(_Event)()
        events = sorted((first[i] for i in range(_runtime().emulator_events(ctypes.byref(first)))), key=lambda e: e.kind)
        lines, kinds = [self._told(e) for e in events], [KINDS[e.kind] for e in events]
        _runtime().emulator_forget()
        return lines, kinds

    def _told(self, e):
        did = "writes" if e.writes else "reads"
        who = f"thread {e.thread} of block {e.block}"
        kind = KINDS[e.kind]
        if kind in ("index", "misaligned"):
            place = f"{ctypes.string_at(e.at).decode()}:{e.other_at}"
            what = f"index {e.size} is outside of an array" if kind == "index" else f"an address is not a multiple of {e.size}"
            return f"{place}: {what}, {who}"
        inside = f"byte {e.address - e.region} of its memory" if e.region else "memory that is nobody's"
        if kind == "outside":
            return f"{self._line(e.at)}: {who} {did} {e.size} bytes outside of an array"
        if kind == "unwritten":
            return f"{self._line(e.at)}: {who} reads what nobody has written, at {inside}"
        other = f"thread {e.other_thread} of block {e.other_block}"
        return (f"race: {self._line(e.at)}: {who} {did} what {other} {'wrote' if e.other_writes else 'read'} "
                f"in {self._line(e.other_at)}, with no barrier between")

    def _line(self, instruction):
        """file:line of an address in the library; of what device.h was inlined into, if it is there."""
        if not instruction:
            return "?"
        with open("/proc/self/maps") as maps:
            base = min((int(line.split("-")[0], 16) for line in maps if str(self.path) in line), default=0)
        asked = ["addr2line", "-i", "-e", str(self.path), hex(instruction - 1 - base)]
        lines = subprocess.run(asked, capture_output=True, text=True).stdout.splitlines()
        places = [Path(line.split(" ")[0]).name for line in lines]
        return next((place for place in places if not place.startswith("device.h")), "?")


# The section of static shared arrays; weak, because a file may have none.
_STATIC = """
extern "C" {
extern char __start_emulator_shared[] __attribute__((weak)), __stop_emulator_shared[] __attribute__((weak));
void emulator_static_shared(void** a, void** b) { *a = __start_emulator_shared, *b = __stop_emulator_shared; }
}
"""

if sys.platform != "linux":     # sections and addresses are read as Linux has them
    def missing():
        return "the emulator runs on Linux"
