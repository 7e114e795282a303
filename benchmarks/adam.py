"""Adam's update of the largest weights of the GANs: reads four arrays, writes three, about 13 operations an element."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.harness.case import Args, Case
from minigen.ops.adam import adam_rates

SHAPES = [(256,), (256, 784), (128, 64, 4, 4), (6272, 100)]
RATES = adam_rates(2e-4, 0.5, 0.999, 0.0, np.array([10]))[0]  # learning rate, betas, weight decay, steps taken
SETTINGS = (0.5, 0.999, 1e-8)  # betas, eps


def cases() -> list[Case]:
    made = []
    for shape in SHAPES:
        size = math.prod(shape)
        args, theirs, name = _args(shape), _torch_args(shape), "x".join(map(str, shape))
        made.append(Case("adam_update", name, args, 13 * size, 28 * size, _update, changes=3, torch_args=theirs))
    return made


def _args(shape: tuple[int, ...]) -> Any:
    def draw(rng: np.random.Generator) -> Args:
        p, m, v, g = (rng.standard_normal(shape, dtype=np.float32) for _ in range(4))
        return p, m, v * v, g, RATES, *SETTINGS

    return draw


def _torch_args(shape: tuple[int, ...]) -> Any:
    """The rates as numbers: PyTorch's functions take them so, and a GPU would be waited for if they were read from it."""

    def draw(rng: np.random.Generator, device: str) -> Args:
        import torch

        p, m, v, g, rates, *settings = _args(shape)(rng)
        return *(torch.from_numpy(a).to(device) for a in (p, m, v, g)), rates.tolist(), *settings

    return draw


def _update(p: Any, m: Any, v: Any, g: Any, rates: list[float], beta1: float, beta2: float, eps: float) -> None:
    """What torch.optim.Adam does by default, one parameter at a time."""
    rate, _, root = rates
    m.lerp_(g, 1 - beta1)
    v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
    p.addcdiv_(m, (v.sqrt() * root).add_(eps), value=-rate)
