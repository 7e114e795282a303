"""What the hardware can do, measured: the fastest matrix product and the fastest copy.

A ceiling is a maximum, so the best of several runs counts. The product goes through the project's own kernel, the copy
through NumPy, one part of it on each thread; both use as many threads as the kernels do. On a device, both are its kernels.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from minigen.kernels import threads

from minigen.ops.matmul import matmul_forward

SIZE = 1024  # rows and columns of the product: 12 MB in all
COPY_BYTES = 128 << 20  # beyond any cache


@dataclass(frozen=True)
class Ceilings:
    gflops: float  # 1e9 float32 operations a second; a multiply-add is two
    gbs: float  # 1e9 bytes a second, those read and those written

    def raised(self, other: Ceilings) -> Ceilings:
        """The higher of two measurements: the machine may have been busy during one."""
        return Ceilings(max(self.gflops, other.gflops), max(self.gbs, other.gbs))

    def seconds(self, flops: float, nbytes: float = 0.0) -> float:
        """The least time for `flops` operations on `nbytes` of memory traffic."""
        return max(flops / self.gflops, nbytes / self.gbs) / 1e9


def measure(seconds: float = 0.5, device: str = "cpu") -> Ceilings:
    """Spends about `seconds` on each of the two."""
    if device != "cpu":
        return _of_device(seconds)
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((SIZE, SIZE), dtype=np.float32) for _ in range(2))
    product = _best(lambda: matmul_forward(a, b), seconds)
    n = threads.get_num_threads()
    sources = np.array_split(np.ones(COPY_BYTES, np.uint8), n)
    targets = np.array_split(np.zeros(COPY_BYTES, np.uint8), n)
    with ThreadPoolExecutor(n) as pool:
        copy = _best(lambda: list(pool.map(np.copyto, targets, sources)), seconds)
    return Ceilings(2 * SIZE**3 / product / 1e9, 2 * COPY_BYTES / copy / 1e9)


def _of_device(seconds: float) -> Ceilings:
    from minigen.kernels import cuda
    from minigen.kernels.device_array import full, put

    backend = cuda.backend()
    size, count = (64, 1 << 12) if backend.name == "emulated" else (4096, 1 << 26)
    a, b = (full((size, size), 1, np.float32) for _ in "ab")
    x, y = (full((count,), 1, np.float32) for _ in "xy")
    product = _best(lambda: (matmul_forward(a, b), backend.synchronize()), seconds)
    copy = _best(lambda: (put(y, x), backend.synchronize()), seconds)
    return Ceilings(2 * size**3 / product / 1e9, 8 * count / copy / 1e9)


def _best(call: Callable[[], Any], seconds: float) -> float:
    call()
    best, end = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best
