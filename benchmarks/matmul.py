"""Matrix products of the fully connected layers, batch 64: y = x W^T, dx = dy W, dW = dy^T x; and one large one."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness.case import Args, Case

N = 64
LAYERS = [(100, 256), (256, 256), (256, 784), (784, 256), (100, 6272)]  # in, out
LARGE = 1024


def cases() -> list[Case]:
    made = [_case("large", LARGE, LARGE, LARGE, False, False)]
    for i, o in LAYERS:
        made += [
            _case(f"{i}-{o} y", N, i, o, False, True),
            _case(f"{i}-{o} dx", N, o, i, False, False),
            _case(f"{i}-{o} dW", o, N, i, True, False),
        ]
    return made


def _case(name: str, m: int, k: int, n: int, a_transposed: bool, b_transposed: bool) -> Case:
    def args(rng: np.random.Generator) -> Args:
        a = rng.standard_normal((k, m) if a_transposed else (m, k), dtype=np.float32)
        b = rng.standard_normal((n, k) if b_transposed else (k, n), dtype=np.float32)
        return a.T if a_transposed else a, b.T if b_transposed else b

    return Case("matmul_forward", name, args, 2 * m * k * n, 4 * (m * k + k * n + m * n), _product)


def _product(a: Any, b: Any) -> Any:
    return a @ b
