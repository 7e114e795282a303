"""Timing in turns: a block of calls of one function, a block of the other, and so on.

Noise on a machine comes and goes; functions that take turns share it. A block lasts `BLOCK` seconds (`FEWEST` calls at
least), long enough that what a switch costs does not matter: before each block is a pause, in which the other's idle
threads stop spinning and sleep, and a first call that is not counted, which wakes its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

BLOCK = 0.3  # seconds
FEWEST = 3  # calls in a block
PAUSE = 0.02  # seconds; thread pools give up spinning within a few milliseconds

Block = Callable[[float], list[float]]  # seconds -> how long each call took


@dataclass(frozen=True)
class Times:
    """How long single calls took, in seconds."""

    seconds: np.ndarray[Any, Any]

    @property
    def best(self) -> float:
        return float(self.seconds.min())

    def milliseconds(self, prefix: str = "") -> dict[str, float]:
        """The best call, the median and the quartiles, for the JSON file."""
        q0, q1, q2, q3 = (1e3 * float(q) for q in np.quantile(self.seconds, (0, 0.25, 0.5, 0.75)))
        return {f"{prefix}median_ms": q2, f"{prefix}best_ms": q0, f"{prefix}q1_ms": q1, f"{prefix}q3_ms": q3}


def block(call: Callable[[], Any]) -> Block:
    """Blocks of calls of `call`, each after a pause and one call that does not count."""

    def run(seconds: float) -> list[float]:
        time.sleep(PAUSE)
        call()
        times: list[float] = []
        start = now = time.perf_counter()
        while now - start < seconds or len(times) < FEWEST:
            call()
            before, now = now, time.perf_counter()
            times.append(now - before)
        return times

    return run


def alternate(blocks: Mapping[str, Block], seconds: float) -> dict[str, Times]:
    """Run the blocks in turn for `seconds` in all, at least one each."""
    found: dict[str, list[float]] = {name: [] for name in blocks}
    length = min(BLOCK, seconds / len(blocks))
    end = time.perf_counter() + seconds
    while True:
        for name, run in blocks.items():
            found[name] += run(length)
        if time.perf_counter() >= end:
            return {name: Times(np.array(times)) for name, times in found.items()}
