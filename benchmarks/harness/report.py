"""Tables and JSON files, and what is said about the machine in both."""

from __future__ import annotations

import datetime
import functools
import importlib.util
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from minigen.kernels import blas, threads
from rich import box
from rich.console import Console
from rich.table import Table

from minigen.errors import UserError

TORCH_FACTS = """
import json, torch
cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
found = {"sees_gpu": torch.cuda.is_available(), "torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": cudnn}
print(json.dumps(found))
"""

console = Console(highlight=False)  # as wide as the terminal; 80 columns where there is none


def require_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise UserError("--torch: PyTorch is not installed; pip install 'minigen[bench]' brings it")


def check_path(path: Path | None) -> None:
    """Raise UserError now, not after minutes of timing, if `path` cannot be a file."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise UserError(f"--json: cannot write {path}: {'it is a folder' if path.is_dir() else 'no such folder'}")


def write_json(path: Path | None, content: dict[str, Any], device: str = "cpu") -> None:
    """`content`, with the environment beside it. Does nothing without a path."""
    if path is None:
        return
    try:
        path.write_text(json.dumps(content | {"environment": environment(device)}, indent=2) + "\n")
    except OSError as e:
        raise UserError(f"--json: cannot write {path}: {e.strerror or e}") from e


def processor() -> str:
    """The CPU's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def environment(device: str = "cpu") -> dict[str, Any]:
    """What a number depends on beside the code: processor, threads, versions, date; on a GPU, that and its libraries."""
    packages = ["minigen", "numpy", "numba"] + (["torch"] if importlib.util.find_spec("torch") else [])
    return {
        "processor": processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": threads.cores(),
        "threads": threads.get_num_threads(),
        "blas": Path(blas.describe()).name if blas.available else "none",
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    } | ({} if device == "cpu" else {"gpu": _gpu()})


@functools.cache
def torch_facts() -> dict[str, Any]:
    """PyTorch's versions, and whether it sees a GPU. A process of its own is asked: see `worker.py`."""
    done = subprocess.run([sys.executable, "-c", TORCH_FACTS], capture_output=True, text=True)
    if done.returncode:
        return {"sees_gpu": False, "error": (done.stderr.strip().splitlines() or ["no reason given"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def _gpu() -> dict[str, Any]:
    """The device that runs CUDA kernels, its driver, and the libraries on it."""
    from minigen.kernels import cuda

    backend = cuda.backend()
    found = {"device": backend.describe(), "pytorch": torch_facts()}
    cupy = getattr(backend, "cupy", None)
    if cupy is None:
        return found
    runtime, device = cupy.cuda.runtime, cupy.cuda.Device()
    asked: dict[str, Callable[[], Any]] = {
        "driver": _driver,
        "cuda_of_driver": runtime.driverGetVersion,
        "cuda_runtime": runtime.runtimeGetVersion,
        "nvrtc": lambda: ".".join(map(str, cupy.cuda.nvrtc.getVersion())),
        "cupy": lambda: cupy.__version__,
        "compute_capability": lambda: device.compute_capability,
        "memory_gb": lambda: round(device.mem_info[1] / 2**30, 1),
    }
    for name, ask in asked.items():
        try:
            found[name] = ask()
        except Exception as e:  # a file that does not know its driver is better than none
            found[name] = f"unknown: {type(e).__name__}: {e}"
    return found


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.split()[0]


def say(line: str) -> None:
    console.print(line, markup=False)


def say_machine(device: str = "cpu") -> None:
    e = environment()
    say(f"{e['processor']}, {e['threads']} of {e['cores']} cores; BLAS {e['blas']}")
    if device != "cpu":
        from minigen.kernels import cuda

        say(f"kernels run on {cuda.backend().describe()}")


def print_table(
    title: str, columns: list[str], rows: list[list[str]], widths: Sequence[int] = (), dense: bool = False
) -> None:
    """The first column to the left, all others to the right. `widths`: the least, so that tables can line up.

    dense: one space between columns, not two.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=0 if dense else (0, 0, 0, 1), pad_edge=False)
    for i, column in enumerate(columns):
        least = widths[i] if i < len(widths) else None
        table.add_column(column, justify="right" if i else "left", no_wrap=True, min_width=least)
    for row in rows:
        table.add_row(*row)
    console.print(f"\n{title}", markup=False)  # Table's own titles are as narrow as the table
    console.print(table)
