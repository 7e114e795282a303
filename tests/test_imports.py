"""The house: who may import whom, one stem everywhere, a fast import, files short enough to read.

    cli -> codec -> train -> {models, data, metrics} -> nn, optim -> ops -> {autograd, dispatch, tensor, ...} -> kernels

An arrow may skip a storey, never climb. `kernels` knows arrays only; `data` knows only the error class.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(p for folder in ("minigen", "kernels", "benchmarks", "tests") for p in (ROOT / folder).rglob("*.py"))
SOURCES = [p for p in FILES if p.relative_to(ROOT).parts[0] in ("minigen", "kernels")]

# Lower storeys first. Files of one storey may import each other, and anything below.
STOREYS = (
    ("kernels",),
    ("errors",),
    ("autograd", "device", "dispatch", "gradcheck", "random", "tensor"),
    ("ops",),
    ("nn", "optim"),
    ("models", "data", "metrics"),
    ("train",),
    ("codec",),
    ("checks", "cli", "__main__"),
)
STOREY = {name: i for i, names in enumerate(STOREYS) for name in names}
# Tensor's operators are ops, and ops make Tensors: closed at the end of tensor.py, where Tensor is defined.
THE_ONE_CYCLE = ("tensor", "ops")
PACKAGE_ROOT = "minigen/__init__.py"


def part(path):
    """The name under STOREYS of a source file: 'ops' for minigen/ops/conv.py, 'kernels' for kernels/conv.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "kernels" if parts[0] == "kernels" else parts[1]


def imports(path):
    """Absolute dotted names of all modules that a file imports, at any depth, with `from m import n` as m.n."""
    relative = path.relative_to(ROOT).with_suffix("").parts
    package = ("minigen", *relative)[:-1] if relative[0] == "kernels" else relative[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def inside(path):
    """The parts of minigen that a file imports."""
    names = {n.split(".")[1] for n in imports(path) if n.startswith("minigen.")}
    return {n for n in names if n in STOREY or (ROOT / "minigen" / n).exists() or (ROOT / "minigen" / f"{n}.py").exists()}


def short(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [p for p in SOURCES if short(p) != PACKAGE_ROOT], ids=short)
def test_arrows_point_down(path):
    own = part(path)
    assert own in STOREY, f"{short(path)}: give it a storey"
    climbing = {n for n in inside(path) if STOREY[n] > STOREY[own] and (own, n) != THE_ONE_CYCLE}
    assert climbing == set()


# What these may know of minigen, where it is less than everything below them: neighbours do not know each other.
KNOWS = {"kernels": {"kernels"}, "data": {"data", "errors"}}
KNOWS |= {own: set(STOREY) - {"models", "data", "metrics"} | {own} for own in ("models", "metrics")}


@pytest.mark.parametrize("path", [p for p in SOURCES if part(p) in KNOWS], ids=short)
def test_neighbours_do_not_know_each_other(path):
    assert inside(path) - KNOWS[part(path)] == set()


def test_kernels_import_only_each_other_numpy_and_numba():
    known = set(sys.stdlib_module_names) | {"numpy", "numba", "minigen", "llvmlite"}
    for path in (ROOT / "kernels").glob("*.py"):
        strangers = {n.split(".")[0] for n in imports(path)} - known
        assert strangers <= ({"cupy"} if path.name == "cuda.py" else set()), short(path)


def test_only_kernels_cuda_imports_cupy():
    found = [short(p) for p in SOURCES if any(n.split(".")[0] == "cupy" for n in imports(p))]
    assert found == ["kernels/cuda.py"]


def test_the_cycle_is_closed_at_the_bottom_of_tensor():
    body = ast.parse((ROOT / "minigen" / "tensor.py").read_text()).body
    last = body[-1]
    assert isinstance(last, ast.ImportFrom) and last.module == "minigen" and {a.name for a in last.names} == {"autograd", "ops"}
    others = [n for n in body[:-1] if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("minigen")]
    assert others == []


def stems(folder):
    return {p.stem for p in (ROOT / folder).glob("*.py")}


def test_one_stem_everywhere():
    """kernels/gru.py with a `_cpu` function <-> minigen/ops/gru.py <-> tests/test_gru.py, and gru.cu beside gru.py."""
    with_kernel = {p.stem for p in (ROOT / "kernels").glob("*.py") if re.search(r"^def (?!_)\w+_cpu\(", p.read_text(), re.M)}
    with_kernel |= {p.stem for p in (ROOT / "kernels").glob("*.cu")}
    assert with_kernel - stems("minigen/ops") == set()
    families = stems("minigen/ops") - {"__init__", "example"}
    assert {f"test_{stem}" for stem in families | with_kernel} - stems("tests") == set()


def test_every_kernel_is_registered_under_its_own_files_name():
    """@kernel("conv") stands in minigen/ops/conv.py, so that the CPU version is found in kernels/conv.py."""
    for path in (ROOT / "minigen" / "ops").glob("*.py"):
        assert set(re.findall(r'^@kernel\("(\w+)"\)', path.read_text(), re.M)) <= {path.stem}


# --- importing

SLOW = ("numba", "cupy", "matplotlib", "rich", "tyro", "PIL", "torch", "safetensors", "scipy")


def test_import_is_fast_and_loads_nothing_heavy():
    code = (
        "import time; start = time.perf_counter(); import minigen; spent = time.perf_counter() - start\n"
        f"import sys; print(spent, *(m for m in {SLOW!r} if m in sys.modules))"
    )
    best = 9.0
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
        seconds, *heavy = done.stdout.split()
        assert heavy == []
        best = min(best, float(seconds))
    assert best < 0.3


def test_lazy_parts_arrive_when_asked_for():
    code = "import minigen as mg; mg.nn.Linear, mg.optim.Adam, mg.models, mg.data.load, mg.metrics, mg.train.train; print('ok')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "ok", done.stderr
    code = "import minigen as mg; mg.nothing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "module 'minigen' has no attribute 'nothing'" in done.stderr


def test_the_kernels_are_importable_under_the_packages_name():
    assert importlib.util.find_spec("minigen.kernels.cuda") is not None


def test_every_package_is_installed():
    """An installation that is not editable holds what pyproject.toml lists, and no more."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(p.parent.relative_to(ROOT).parts) for p in SOURCES if p.name == "__init__.py"}
    assert set(listed) == {re.sub(r"^kernels", "minigen.kernels", name) for name in found}


# --- files


@pytest.mark.parametrize("path", FILES, ids=short)
def test_a_file_can_be_read_in_one_sitting(path):
    assert len(path.read_text().splitlines()) <= 350
