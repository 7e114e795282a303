"""Matrix products of the fully connected layers, batch 64: y = x W^T, dx = dy W, dW = dy^T x; and one large one.

And layers whole, with bias and activation: two more operations for each output.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness.case import Args, Case, normal

N = 64
LAYERS = [(100, 256), (256, 256), (256, 784), (784, 256), (100, 6272)]  # in, out
LARGE = 1024
WHOLE = [(64, 784, 256), (64, 100, 6272), (6400, 512, 65)]  # N, in, out
SLOPE = 0.2


def cases() -> list[Case]:
    made = [_case("large", LARGE, LARGE, LARGE, False, False)]
    for i, o in LAYERS:
        made += [
            _case(f"{i}-{o} y", N, i, o, False, True),
            _case(f"{i}-{o} dx", N, o, i, False, False),
            _case(f"{i}-{o} dW", o, N, i, True, False),
        ]
    return made + [_layer(*sizes) for sizes in WHOLE]


def _case(name: str, m: int, k: int, n: int, a_transposed: bool, b_transposed: bool) -> Case:
    def args(rng: np.random.Generator) -> Args:
        a = rng.standard_normal((k, m) if a_transposed else (m, k), dtype=np.float32)
        b = rng.standard_normal((n, k) if b_transposed else (k, n), dtype=np.float32)
        return a.T if a_transposed else a, b.T if b_transposed else b

    return Case("matmul_forward", name, args, 2 * m * k * n, 4 * (m * k + k * n + m * n), _product)


def _layer(n: int, i: int, o: int) -> Case:
    nbytes = 4 * (n * i + o * i + o + n * o)
    args = normal((n, i), (o, i), (o,), then=(SLOPE,))
    return Case("linear_forward", f"{n}x{i}-{o}", args, 2 * n * i * o + 2 * n * o, nbytes, _linear)


def _linear(x: Any, w: Any, bias: Any, slope: float) -> Any:
    from torch.nn.functional import leaky_relu, linear

    return leaky_relu(linear(x, w, bias), slope)


def _product(a: Any, b: Any) -> Any:
    return a @ b
