"""Adam's update of the largest weights of the GANs: reads four arrays, writes three, about 13 operations an element."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.harness.case import Args, Case

SHAPES = [(256,), (256, 784), (128, 64, 4, 4), (6272, 100)]
SETTINGS = (2e-4, 0.5, 0.999, 1e-8, 0.0, 10)  # learning rate, betas, eps, weight decay, steps taken


def cases() -> list[Case]:
    made = []
    for shape in SHAPES:
        size = math.prod(shape)
        made.append(Case("adam_update", "x".join(map(str, shape)), _args(shape), 13 * size, 28 * size, _update, changes=3))
    return made


def _args(shape: tuple[int, ...]) -> Any:
    def draw(rng: np.random.Generator) -> Args:
        p, m, v, g = (rng.standard_normal(shape, dtype=np.float32) for _ in range(4))
        return p, m, v * v, g, *SETTINGS

    return draw


def _update(p: Any, m: Any, v: Any, g: Any, lr: float, beta1: float, beta2: float, eps: float, _: float, step: int) -> None:
    """What torch.optim.Adam does by default, one parameter at a time."""
    m.lerp_(g, 1 - beta1)
    v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
    p.addcdiv_(m, (v.sqrt() / math.sqrt(1 - beta2**step)).add_(eps), value=-lr / (1 - beta1**step))
