"""Tables and JSON files, and what is said about the machine in both."""

from __future__ import annotations

import datetime
import importlib.util
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from minigen.kernels import blas, threads
from rich import box
from rich.console import Console
from rich.table import Table

from minigen.errors import UserError

console = Console(highlight=False)  # as wide as the terminal; 80 columns where there is none


def require_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise UserError("--torch: PyTorch is not installed; pip install 'minigen[bench]' brings it")


def check_path(path: Path | None) -> None:
    """Raise UserError now, not after minutes of timing, if `path` cannot be a file."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise UserError(f"--json: cannot write {path}: {'it is a folder' if path.is_dir() else 'no such folder'}")


def write_json(path: Path | None, content: dict[str, Any]) -> None:
    """`content`, with the environment beside it. Does nothing without a path."""
    if path is None:
        return
    try:
        path.write_text(json.dumps(content | {"environment": environment()}, indent=2) + "\n")
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


def environment() -> dict[str, Any]:
    """What a number depends on beside the code: processor, threads, versions, date."""
    packages = ["minigen", "numpy", "numba"] + (["torch"] if importlib.util.find_spec("torch") else [])
    return {
        "processor": processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": threads.cores(),
        "threads": threads.get_num_threads(),
        "blas": Path(blas.describe()).name if blas.available else "none",
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def say(line: str) -> None:
    console.print(line, markup=False)


def say_machine(device: str = "cpu") -> None:
    e = environment()
    say(f"{e['processor']}, {e['threads']} of {e['cores']} cores; BLAS {e['blas']}")
    if device != "cpu":
        from minigen.kernels import cuda

        say(f"kernels run on {cuda.backend().describe()}")


def print_table(title: str, columns: list[str], rows: list[list[str]], widths: Sequence[int] = ()) -> None:
    """The first column to the left, all others to the right. `widths`: the least, so that tables can line up."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    for i, column in enumerate(columns):
        least = widths[i] if i < len(widths) else None
        table.add_column(column, justify="right" if i else "left", no_wrap=True, min_width=least)
    for row in rows:
        table.add_row(*row)
    console.print(f"\n{title}", markup=False)  # Table's own titles are as narrow as the table
    console.print(table)
