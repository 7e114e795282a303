"""Spectral normalisation as a wrapper: the layer inside always sees weight / sigma(weight)."""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.device import place
from minigen.nn.layers import Fusing
from minigen.ops.spectral_norm import power_iteration, spectral_norm
from minigen.random import generator
from minigen.tensor import Tensor


class SpectralNorm(Fusing):
    """Wrap a Linear or Conv2d so that its largest singular value is held at one (Miyato et al. 2018).

    `weight` is the parameter; before each call one round of power iteration refines `u` and `v` (in training only), and
    the layer computes with weight / (u^T weight v). The gradient flows through sigma.
    """

    def __init__(self, layer: Any, warm_up: int = 15) -> None:
        self.weight: Tensor = layer.weight
        self.bias: Tensor | None = layer.bias
        self.training = True
        self._layer = layer  # underscore: its weight is ours, and must not be found twice
        flat = self._flat()
        u = generator().standard_normal(flat.shape[0], dtype=np.float32)
        self.u, self.v = power_iteration(flat, place(u / np.linalg.norm(u)), warm_up)

    def _flat(self) -> Any:
        return self.weight.data.reshape(self.weight.shape[0], -1)

    def __call__(self, x: Tensor, negative_slope: float = 1.0) -> Tensor:
        if self.training:
            self.u[...], self.v[...] = power_iteration(self._flat(), self.u)
        layer = self._layer
        layer.weight = spectral_norm(self.weight, self.u, self.v)
        return layer(x, negative_slope)
