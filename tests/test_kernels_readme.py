"""The table of kernels is complete and points at files that exist and hold what it says."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import minigen.optim  # noqa: F401  so that every kernel is registered
from minigen.dispatch import REGISTRY

ROOT = Path(__file__).resolve().parent.parent
ROWS = [
    [cell.strip().strip("`") for cell in line.strip("|\n").split("|")]
    for line in (ROOT / "kernels" / "README.md").read_text().splitlines()
    if line.startswith("| `")
]


def test_every_kernel_has_a_row_and_every_row_a_kernel():
    assert {row[0] for row in ROWS} == set(REGISTRY)


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_row(row):
    name, reference, cpu, cuda, _, test, benchmark = row
    stem, function = REGISTRY[name]
    assert reference == f"minigen/ops/{stem}.py" and function.__module__ == f"minigen.ops.{stem}"
    assert test == f"tests/test_{stem}.py" and (ROOT / test).exists()
    assert benchmark == f"benchmarks/{stem}.py" and (ROOT / benchmark).exists()
    found = (ROOT / "kernels" / f"{stem}.py").exists()
    has_cpu = found and hasattr(importlib.import_module(f"minigen.kernels.{stem}"), f"{name}_cpu")
    assert cpu == (f"kernels/{stem}.py" if has_cpu else "-")
    has_cuda = (ROOT / "kernels" / f"{stem}.cu").exists()
    assert cuda == (f"kernels/{stem}.cu" if has_cuda else "-")


def test_shared_files_exist():
    text = (ROOT / "kernels" / "README.md").read_text()
    for name in re.findall(r"^- `(\w+\.py)`", text, re.MULTILINE):
        assert (ROOT / "kernels" / name).exists(), name
