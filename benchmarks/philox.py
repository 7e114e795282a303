"""Noise for a batch of 64 codes of a GAN, and for the mask of a dropout: on a device, where it is drawn. Traffic alone.

The rounds are integer arithmetic, some 25 operations a number. PyTorch's generator is Philox too, but deals its words out to
the threads in another order: there is nothing to compare.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.harness.case import Args, Case

SHAPES = [(64, 100), (64, 64, 512)]


def cases() -> list[Case]:
    kernels = ("philox_uniform", "philox_normal")
    return [
        Case(kernel, "x".join(map(str, shape)), _args(shape), 0, 16 + 4 * math.prod(shape), None)
        for kernel in kernels
        for shape in SHAPES
    ]


def _args(shape: tuple[int, ...]) -> Any:
    def draw(rng: np.random.Generator) -> Args:
        return rng.integers(0, 2**32, 2), shape, np.float32

    return draw
