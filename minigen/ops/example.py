"""What every op lists so that its gradients can be checked: a function of Tensors and where to try it.

Each family's file ends with EXAMPLES = {op name: [Example, ...]}. One test, and `minigen gradcheck`, run them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Rng = np.random.Generator
Sampler = Callable[[Rng], Any]


class Example(NamedTuple):
    """`f(*tensors)` at inputs drawn by `samplers`: a shape (standard normal) or a function of a Generator."""

    f: Callable[..., Any]
    samplers: tuple[tuple[int, ...] | Sampler, ...]
    order: int = 2  # the highest order of gradient to check

    def sample(self, rng: Rng) -> list[np.ndarray[Any, Any]]:
        """Inputs in float64."""
        draws = (rng.standard_normal(s) if isinstance(s, tuple) else s(rng) for s in self.samplers)
        return [np.asarray(d, dtype=np.float64) for d in draws]


def example(f: Callable[..., Any], *samplers: tuple[int, ...] | Sampler, order: int = 2) -> Example:
    return Example(f, samplers, order)


def positive(*shape: int) -> Sampler:
    """Between 0.5 and 2.5, for logarithms, roots and divisors."""
    return lambda rng: 0.5 + 2 * rng.random(shape)


def off_kink(*shape: int, kinks: tuple[float, ...] = (0.0,)) -> Sampler:
    """Standard normal, resampled where it is within 0.05 of a kink: there a finite difference means nothing."""

    def sample(rng: Rng) -> Any:
        x = rng.standard_normal(shape)
        near = _near(x, kinks)
        while near.any():
            x[near] = rng.standard_normal(int(near.sum()))
            near = _near(x, kinks)
        return x

    return sample


def _near(x: Any, kinks: tuple[float, ...]) -> Any:
    return np.min([np.abs(x - k) for k in kinks], axis=0) < 0.05


def distinct(*shape: int) -> Sampler:
    """A shuffled grid: no two values closer than 0.1, so that a maximum stays the maximum under a small step."""
    return lambda rng: rng.permutation(np.arange(np.prod(shape)) * 0.1 - 1.0).reshape(shape)
