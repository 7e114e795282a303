"""The one source of randomness: a seeded generator whose state can be saved.

Everything random (initial weights, noise, dropout) draws from `generator()`, so `mg.seed(n)` fixes a run, and a
checkpoint that keeps `get_state()` continues it bit for bit. Data order is separate: a function of (seed, epoch).
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from minigen.device import place
from minigen.tensor import Tensor

_generator = np.random.Generator(np.random.PCG64(0))


def seed(n: int) -> None:
    """Restart the generator from `n`."""
    global _generator
    _generator = np.random.Generator(np.random.PCG64(n))


def generator() -> np.random.Generator:
    return _generator


def get_state() -> str:
    """The generator's state as JSON text."""
    return json.dumps(_generator.bit_generator.state)


def set_state(state: str) -> None:
    """Continue from a state that `get_state` gave."""
    _generator.bit_generator.state = json.loads(state)


def randn(*shape: int, dtype: Any = np.float32) -> Tensor:
    """Standard normal draws."""
    return Tensor(place(_generator.standard_normal(shape, dtype=dtype)))


def rand(*shape: int, dtype: Any = np.float32) -> Tensor:
    """Uniform draws in [0, 1)."""
    return Tensor(place(_generator.random(shape, dtype=dtype)))
