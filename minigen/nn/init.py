"""Initial weights, drawn from minigen's generator so that a seed fixes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.device import place
from minigen.random import generator
from minigen.tensor import Tensor


def uniform(shape: tuple[int, ...], bound: float) -> Tensor:
    """A parameter uniform in [-bound, bound]. With bound = 1 / sqrt(fan_in) this is PyTorch's default for its layers."""
    return Tensor(place(generator().random(shape, dtype=np.float32) * np.float32(2 * bound) - np.float32(bound)), True)


def dcgan(model: Any, std: float = 0.02) -> None:
    """Radford et al. 2016, section 3: convolution and linear weights from N(0, std^2), norm scales from N(1, std^2), biases 0.

    Told apart by rank: a weight with two or more axes, and a norm's `weight` with one.
    """
    from minigen.nn.walk import named_parameters

    for name, p in named_parameters(model).items():
        draw = generator().standard_normal(p.shape, dtype=np.float32) * np.float32(std)
        p.assign(0.0 if name.endswith("bias") else draw if p.ndim > 1 else 1.0 + draw)
