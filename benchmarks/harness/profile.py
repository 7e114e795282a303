"""Where a step's time goes: the array work of each Op, the optimiser, and what is left for Python.

Beside the time stands what each Op must move: its arguments read once and its results written once, at the speed of the
fastest copy. What one Op writes and the next reads may still lie in a cache, so that is a measure of work, not a least time.
"""

from __future__ import annotations

import functools
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.harness import report
from benchmarks.harness.ceilings import Ceilings
from minigen.autograd import Op
from minigen.data.loader import Loader
from minigen.optim import Optimizer


@dataclass
class Part:
    """Of a step: all calls of an Op."""

    calls: float = 0
    seconds: float = 0.0
    nbytes: float = 0

    def over(self, steps: int) -> Part:
        return Part(self.calls / steps, self.seconds / steps, self.nbytes / steps)


@dataclass(frozen=True)
class Profile:
    """Of one step, on average."""

    seconds: float
    page_faults: float  # 4 KB of memory fetched from the system; about a microsecond each
    table: dict[str, Part]  # the longest first


def measure(step: Callable[[], Any], seconds: float) -> Profile:
    """Time spent in each Op's forward (gradients are Ops too), in loading and in optimisers.

    "the rest" is the graph's bookkeeping, noise, and array work outside of Ops. Reading the clock adds to it: about a
    microsecond for each call.
    """
    parts: dict[str, Part] = defaultdict(Part)
    step()
    steps, faults, start = 0, _page_faults(), time.perf_counter()
    with _watching(parts):
        while steps < 3 or time.perf_counter() - start < seconds:
            step()
            steps += 1
    total, faults = (time.perf_counter() - start) / steps, (_page_faults() - faults) / steps
    table = {name: part.over(steps) for name, part in parts.items()}
    table["the rest"] = Part(0, total - sum(part.seconds for part in table.values()))
    return Profile(total, faults, dict(sorted(table.items(), key=lambda item: -item[1].seconds)))


def _page_faults() -> float:
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


@contextmanager
def _watching(parts: dict[str, Part]) -> Iterator[None]:
    watched: list[tuple[type, str, str]] = [(op, "forward", op.__name__) for op in _subclasses(Op) if "forward" in vars(op)]
    watched += [(Optimizer, "step", "optimiser"), (Loader, "next", "loader")]
    originals = [(owner, name, vars(owner)[name]) for owner, name, _ in watched]
    try:
        for owner, name, label in watched:
            setattr(owner, name, _timed(vars(owner)[name], parts[label]))
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def _subclasses(kind: type) -> list[type]:
    direct: list[type] = kind.__subclasses__()
    return direct + [s for d in direct for s in _subclasses(d)]


def _timed(f: Callable[..., Any], part: Part) -> Callable[..., Any]:
    @functools.wraps(f)
    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = f(*args, **kwargs)
        part.seconds += time.perf_counter() - start
        part.calls += 1
        part.nbytes += _moved([a for a in args if isinstance(a, np.ndarray)], result)
        return result

    return call


def _moved(read: list[np.ndarray], result: Any) -> int:
    """Bytes of what was read and of the result; none if that is only another view of the same memory."""
    written = [a for a in (result if isinstance(result, (tuple, list)) else [result]) if isinstance(a, np.ndarray)]
    if any(np.may_share_memory(a, b) for a in read for b in written):
        return 0
    return _nbytes(read) + _nbytes(written)


def _nbytes(arrays: Iterable[np.ndarray]) -> int:
    """In memory: what was broadcast is there once."""
    return sum(a.itemsize * math.prod(n for n, step in zip(a.shape, a.strides, strict=True) if step) for a in arrays)


def show(name: str, found: Profile, limits: Ceilings, flops: float) -> None:
    rows = [
        [
            what,
            f"{part.calls:.0f}" if part.calls else "",
            f"{1e3 * part.seconds:.3f}",
            f"{part.seconds / found.seconds:.1%}",
            f"{part.nbytes / 1e6:.1f}" if part.nbytes else "",
            f"{1e3 * limits.seconds(0, part.nbytes):.3f}" if part.nbytes else "",
        ]
        for what, part in found.table.items()
        if part.seconds > 0.001 * found.seconds
    ]
    title = f"{name}: {1e3 * found.seconds:.2f} ms and {found.page_faults:.0f} page faults a step"
    report.print_table(title, ["where", "calls", "ms", "share", "MB", "as a copy ms"], rows)
    nbytes = sum(part.nbytes for part in found.table.values())
    report.say(
        f"Products alone, at {limits.gflops:.0f} GFLOP/s: {1e3 * limits.seconds(flops):.1f} ms. "
        f"Copies alone, {nbytes / 1e6:.0f} MB at {limits.gbs:.0f} GB/s: {1e3 * limits.seconds(0, nbytes):.1f} ms.\n"
    )
