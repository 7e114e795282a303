"""Every .cu file compiled as on a GPU, without one, and what each kernel takes of it.

    python -m minigen.kernels.nvrtc gather reduce

prints a table; without names, that of all files. NVRTC is the compiler that CuPy calls, a library in a pip package of its own
(nvidia-cuda-nvrtc). It refuses what g++ lets pass: it has no headers, so no INFINITY and no uint32_t.

Few registers and little shared memory let a multiprocessor hold more threads. A spill is a value that found no register and
goes to memory and back; a stack frame is an array that lives there because something asks for its i-th element, with an i
that is only known at run time. Both are slow, and mostly a mistake.
"""

import ctypes
import functools
import importlib.util
import multiprocessing
import os
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .source import for_real, spliced

HERE = Path(__file__).resolve().parent
ARCHITECTURES = (80, 90, 100, 120)
OLDEST = 75                             # CUDA 13 knows no older; a file may say that it needs more
# The first is the launcher's, the second CuPy's. CuPy also lets functions do without __device__; here they may not.
OPTIONS = ("-std=c++17", "-ftz=true", "--ptxas-options=-v")
FLOATS, INTEGERS = ("float", "double"), ("long long", "int", "unsigned char")
REALS = dict.fromkeys(("arithmetic", "gather", "reduce"), FLOATS + INTEGERS)    # what `real` is, where it is not just FLOATS
MOST_SHARED = 48 << 10                  # of what a kernel declares; more must be dynamic
_WIDEST = 35                            # of the table's names; the table is 100 wide at most


@dataclass(frozen=True)
class Resources:
    kernel: str
    registers: int          # of a thread
    shared: int             # bytes of a block, without the dynamic ones
    stack: int              # bytes of a thread
    spill_stores: int       # bytes of a thread, as the next
    spill_loads: int
    constant: int | None    # bytes, parameters included; None from sm_90 on, where the log does not say

    @property
    def spills(self):
        return self.spill_stores + self.spill_loads


class NeedsNewer(ValueError):
    """The file uses what this architecture does not have: the log says "... sm_80 or higher"."""


def missing():
    """One line that says why nothing can be compiled here, or None."""
    try:
        return None if _library() else "NVRTC is not installed (pip install nvidia-cuda-nvrtc)"
    except OSError as e:
        return f"NVRTC is installed but does not load: {e}"


@functools.cache
def _library():
    """The newest libnvrtc in nvidia/cu13/lib (CUDA 13) or nvidia/cuda_nvrtc/lib (CUDA 12); None without one."""
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations if spec else ()
    found = [path for folder in folders for path in Path(folder).glob("cu*/lib/libnvrtc.so.*")]
    if not found:
        return None
    library = ctypes.CDLL(str(max(found, key=lambda path: int(path.name.split(".")[2]))))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


def compile(text, real, arch):
    """[Resources of each kernel] in a .cu file's text, compiled for `real`, as "float", and an architecture, as 90.

    ValueError with the compiler's log if it does not compile; NeedsNewer if that is for want of a newer architecture. Only
    where nothing is missing().
    """
    nvrtc, program, size = _library(), ctypes.c_void_p(), ctypes.c_size_t()
    source = for_real(text, real).encode()
    if status := nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"kernels.cu", 0, None, None):
        raise RuntimeError(nvrtc.nvrtcGetErrorString(status).decode())
    options = [option.encode() for option in (*OPTIONS, f"-arch=sm_{arch}")]
    status = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    log = log.value.decode(errors="replace").strip()
    if status:
        kind = NeedsNewer if re.search(r"sm_\d+\w* or higher", log) else ValueError
        raise kind("\n".join([f"for {real} on sm_{arch}: {nvrtc.nvrtcGetErrorString(status).decode()}", log, *_too_large(log)]))
    return parse(log)


def parse(log):
    """[Resources, ...] from what the assembler says with -v. A function that is not inlined counts with its kernel."""
    return [
        Resources(
            kernel,
            max(_numbers("registers", part)),
            sum(_numbers("bytes smem", part)),
            max(_numbers("bytes stack frame", part) + _numbers("bytes cumulative stack", part)),
            sum(_numbers("bytes spill stores", part)),
            sum(_numbers("bytes spill loads", part)),
            sum(_numbers("bytes cmem", part)) or None,
        )
        for kernel, part in _parts(log)
    ]


def _parts(log):
    """(kernel, what the log says of it), ..."""
    split = re.split(r"Compiling entry function '(\w+)'.*\n", log)[1:]
    return zip(split[::2], split[1::2], strict=True)


def _numbers(unit, text):
    return [int(number) for number in re.findall(rf"(\d+) {unit}", text)]


def _too_large(log):
    """Of too much shared memory the log itself says nothing."""
    too_large = [(kernel, size) for kernel, part in _parts(log) for size in _numbers("bytes smem", part) if size > MOST_SHARED]
    return [f"{kernel}: {size} bytes of shared memory, more than {MOST_SHARED}" for kernel, size in too_large]


# --- many at once -----------------------------------------------------------------------------------------------------

@contextmanager
def processes():
    """A function from [(text, real, arch), ...] to what `compile` returns, or the ValueError it raises, for each.

    In processes, since threads would wait for each other inside NVRTC.
    """
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        yield lambda jobs: list(pool.map(_attempt, *zip(*jobs, strict=True)))


def _attempt(text, real, arch):
    try:
        return compile(text, real, arch)
    except ValueError as e:
        return e


def stems():
    return sorted(path.stem for path in HERE.glob("*.cu"))


def lines(stem, each):
    """(the table of a .cu file, what is wrong with it): two lists of lines."""
    text, archs = spliced(HERE / f"{stem}.cu"), (OLDEST, *ARCHITECTURES)
    jobs = [(real, arch) for real in FLOATS for arch in archs]
    results = dict(zip(jobs, each([(text, *job) for job in jobs]), strict=True))
    rows, wrong = {}, []
    for (real, arch), result in results.items():
        if isinstance(result, list):
            wrong += [f"{stem}.cu: {r.kernel} spills {r.spills} bytes for {real} on sm_{arch}" for r in result if r.spills]
            for r in result:
                rows.setdefault((r.kernel, real), {})[arch] = r
        elif arch != OLDEST or not isinstance(result, NeedsNewer):
            wrong.append(f"{stem}.cu {result}")
    width = min(_WIDEST, max([len(stem) + 3, *(len(kernel) + 2 for kernel, _ in rows)]))
    head = "".join(f"{arch:>5}" for arch in ARCHITECTURES)
    table = [f"{stem + '.cu':{width}}  real     regs: sm_{OLDEST}{head}  shared  stack  spills"]
    for (kernel, real), on in sorted(rows.items(), key=lambda row: (row[0][0], FLOATS.index(row[0][1]))):
        registers = "".join(f"{on[arch].registers if arch in on else '-':>5}" for arch in archs)
        shared, stack, spills = (max(getattr(r, name) for r in on.values()) for name in ("shared", "stack", "spills"))
        name = f"  {kernel}"
        table.append(f"{name:{width}.{width}}  {real:6}{'':8}{registers}{shared:>8}{stack:>7}{spills:>8}")
    return table, wrong


def main(names):
    """Prints the tables of these files, of all without names. 0, or 1 for errors and spills, or 2 without NVRTC."""
    if reason := missing():
        print(reason, file=sys.stderr)
        return 2
    if unknown := set(names) - set(stems()):
        print(f"no such file: {', '.join(sorted(unknown))}; there are {', '.join(stems())}", file=sys.stderr)
        return 2
    wrong = []
    with processes() as each:
        for stem in names or stems():
            table, found = lines(stem, each)
            print("\n".join(table) + "\n", flush=True)
            wrong += found
    print("\n".join(wrong) or "Registers of a thread on each architecture; the most bytes on any of them. Nothing spills.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
