"""Where a step's time goes: the array work of each Op, the optimiser, and what is left for Python."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import report
from minigen.autograd import Op
from minigen.data.loader import Loader
from minigen.optim import Optimizer


@dataclass(frozen=True)
class Profile:
    """Of one step, on average."""

    seconds: float
    page_faults: float  # 4 KB of memory fetched from the system; about a microsecond each
    table: dict[str, tuple[float, float]]  # what -> calls, seconds; the longest first


def measure(step: Callable[[], Any], seconds: float) -> Profile:
    """Time spent in each Op's forward (gradients are Ops too), in loading and in optimisers.

    "the rest" is the graph's bookkeeping, noise, and array work outside of Ops. Reading the clock adds to it: about a
    microsecond for each call.
    """
    times: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
    step()
    steps, faults, start = 0, _page_faults(), time.perf_counter()
    with _watching(times):
        while steps < 3 or time.perf_counter() - start < seconds:
            step()
            steps += 1
    total, faults = (time.perf_counter() - start) / steps, (_page_faults() - faults) / steps
    table = {name: (calls / steps, spent / steps) for name, (calls, spent) in times.items()}
    table["the rest"] = (0, total - sum(spent for _, spent in table.values()))
    return Profile(total, faults, dict(sorted(table.items(), key=lambda item: -item[1][1])))


def _page_faults() -> float:
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


@contextmanager
def _watching(times: dict[str, list[float]]) -> Iterator[None]:
    watched: list[tuple[type, str, str]] = [(op, "forward", op.__name__) for op in _subclasses(Op) if "forward" in vars(op)]
    watched += [(Optimizer, "step", "optimiser"), (Loader, "next", "loader")]
    originals = [(owner, name, vars(owner)[name]) for owner, name, _ in watched]
    try:
        for owner, name, label in watched:
            setattr(owner, name, _timed(vars(owner)[name], times, label))
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def _subclasses(kind: type) -> list[type]:
    direct: list[type] = kind.__subclasses__()
    return direct + [s for d in direct for s in _subclasses(d)]


def _timed(f: Callable[..., Any], times: dict[str, list[float]], label: str) -> Callable[..., Any]:
    @functools.wraps(f)
    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = f(*args, **kwargs)
        entry = times[label]
        entry[1] += time.perf_counter() - start
        entry[0] += 1
        return result

    return call


def show(name: str, found: Profile) -> None:
    rows = [
        [what, f"{calls:.0f}" if calls else "", f"{1e3 * spent:.3f}", f"{spent / found.seconds:.1%}"]
        for what, (calls, spent) in found.table.items()
        if spent > 0.001 * found.seconds
    ]
    title = f"{name}: {1e3 * found.seconds:.2f} ms and {found.page_faults:.0f} page faults a step"
    report.print_table(title, ["where", "calls", "ms", "share"], rows)
