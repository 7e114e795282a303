"""Benchmarks are found by their files: the name of the file is the name of the benchmark, and nothing lists them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from types import ModuleType

from benchmarks.harness.cli import suggest
from minigen.errors import UserError


def names(package: str) -> list[str]:
    """Names of the modules in `package`, without sub-packages and without those that begin with _."""
    path = importlib.import_module(package).__path__
    return sorted(m.name for m in pkgutil.iter_modules(path) if not m.ispkg and not m.name.startswith("_"))


def load(package: str, what: str, asked: Sequence[str]) -> dict[str, ModuleType]:
    """The modules asked for, by name and in that order; all if none was. Raises UserError for an unknown name."""
    known = names(package)
    for name in asked:
        if name not in known:
            raise UserError(f"unknown {what} {name!r}{suggest(name, known)}")
    return {name: importlib.import_module(f"{package}.{name}") for name in asked or known}
