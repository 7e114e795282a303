"""What a file named after a kernel's stem holds: `cases() -> list[Case]`, shapes with counts of operations and bytes.

A case is verified, then timed: the kernel's float32 results against the NumPy reference in float64.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from minigen.kernels import threads

from benchmarks.harness.agree import check
from minigen.dispatch import REGISTRY, mode

Args = tuple[Any, ...]


@dataclass(frozen=True)
class Case:
    kernel: str  # a name that @kernel registered
    shape: str  # what the table calls it, 20 characters or so
    args: Callable[[np.random.Generator], Args]  # float32 arrays, integer arrays, numbers
    flops: int  # a multiply-add is two
    nbytes: int  # every input read once, every output written once
    torch: Callable[..., Any]  # the same from the same arguments, arrays as torch tensors
    changes: int = 0  # how many leading arguments it updates in place: its results
    tolerance: float = 1e-5  # relative to the reference, in Euclidean norm


def normal(*shapes: tuple[int, ...], then: Args = ()) -> Callable[[np.random.Generator], Args]:
    """Arguments: arrays of these shapes from N(0, 1), followed by `then`."""
    return lambda rng: (*(rng.standard_normal(shape, dtype=np.float32) for shape in shapes), *then)


def dispatched(name: str) -> Callable[..., Any]:
    """The kernel as ops call it."""
    importlib.import_module("minigen.ops")
    return getattr(importlib.import_module(REGISTRY[name][1].__module__), name)  # type: ignore[no-any-return]


def is_compiled(name: str) -> bool:
    """Whether there is a CPU version; if not, what runs is the NumPy reference."""
    try:
        module = importlib.import_module(f"minigen.kernels.{REGISTRY[name][0]}")
    except ModuleNotFoundError:
        return False
    return hasattr(module, f"{name}_cpu")


def copy(args: Args, dtype: Any = None) -> Args:
    """Fresh arrays with the same strides; floating-point ones in `dtype`."""
    return tuple(
        a.astype(dtype if dtype and a.dtype.kind == "f" else a.dtype, order="K", copy=True) if isinstance(a, np.ndarray) else a
        for a in args
    )


def as_torch(args: Args) -> Args:
    import torch

    return tuple(torch.from_numpy(a) if isinstance(a, np.ndarray) else a for a in args)


def verify(case: Case, args: Args, f: Callable[..., Any], convert: Callable[[Args], Args] = copy) -> float:
    """The largest error of f(*convert(copy of args)); raises Disagreement if it is above the case's tolerance."""
    with mode("reference"):
        wanted = _results(case, dispatched(case.kernel), copy(args, np.float64))
    found = _results(case, f, convert(copy(args)))
    return max(check(f"result {i}", a, b, case.tolerance) for i, (a, b) in enumerate(zip(found, wanted, strict=True)))


def _results(case: Case, f: Callable[..., Any], args: Args) -> list[Any]:
    returned = f(*args)
    if case.changes:
        return [np.asarray(a) for a in args[: case.changes]]
    return [np.asarray(a) for a in (returned if isinstance(returned, (tuple, list)) else [returned])]


def second_level_cache() -> int:
    """Bytes of it that the threads have between them, as the system says; 2 MiB each where it does not."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text().strip()
        each = int(text.rstrip("KM")) << (20 if text.endswith("M") else 10)
    except (OSError, ValueError):
        each = 2 << 20
    return each * threads.get_num_threads()


def copies(args: Args) -> int:
    """How many sets of arguments take turns, so that each finds its own no longer in the second-level cache.

    In training, what a kernel reads was written some kernels ago: it may lie in the last-level cache, seldom nearer.
    """
    size = sum(a.nbytes for a in args if isinstance(a, np.ndarray))
    return max(2, min(64, 2 * second_level_cache() // max(size, 1)))


def rotating(f: Callable[..., Any], sets: list[Args]) -> Callable[[], Any]:
    """A call of `f` on the next set of arguments."""
    turn = itertools.cycle(sets)
    return lambda: f(*next(turn))
