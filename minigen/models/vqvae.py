"""Networks of the VQ-VAE, and of the VAE it is compared with (van den Oord et al. 2017, section 4). c channels, D latent.

    encoder   Conv c->64 k4s2p1, ReLU; Conv 64->128 k4s2p1, ReLU; Conv 128->128 3x3; two residual blocks, ReLU; Conv 128->D 1x1
    decoder   Conv D->128 1x1; two residual blocks, ReLU; Conv 128->128 3x3, ReLU; ConvT 128->64 k4s2p1, ReLU;
              ConvT 64->c k4s2p1
    residual  x + Conv 32->128 1x1 (ReLU (Conv 128->32 3x3 (ReLU x)))

An image of H x W is D maps of H/4 x W/4: the decoder mirrors the encoder. Images are in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigen import nn, ops
from minigen.device import place
from minigen.nn.vq import Quantized
from minigen.random import randn
from minigen.tensor import Tensor

WIDTH, INNER = 128, 32


class Residual:
    """x (N, 128, H, W) -> the same shape."""

    def __init__(self) -> None:
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(WIDTH, INNER, 3, 1, 1), nn.ReLU(), nn.Conv2d(INNER, WIDTH, 1))

    def __call__(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def encoder(channels: int, latent: int) -> nn.Sequential:
    """(N, c, H, W) -> (N, latent, H/4, W/4)"""
    return nn.Sequential(
        nn.Conv2d(channels, WIDTH // 2, 4, 2, 1), nn.ReLU(), nn.Conv2d(WIDTH // 2, WIDTH, 4, 2, 1), nn.ReLU(),
        nn.Conv2d(WIDTH, WIDTH, 3, 1, 1), Residual(), Residual(), nn.ReLU(), nn.Conv2d(WIDTH, latent, 1),
    )  # fmt: skip


def decoder(channels: int, latent: int) -> nn.Sequential:
    """(N, latent, H/4, W/4) -> (N, c, H, W)"""
    return nn.Sequential(
        nn.Conv2d(latent, WIDTH, 1), Residual(), Residual(), nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 3, 1, 1), nn.ReLU(),
        nn.ConvTranspose2d(WIDTH, WIDTH // 2, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(WIDTH // 2, channels, 4, 2, 1),
    )  # fmt: skip


class VQVAE:
    """x (N, c, H, W) -> reconstruction, and what the quantiser gave."""

    def __init__(
        self, shape: Sequence[int], num_codes: int = 512, dim: int = 64, quantizer: str = "ema", **options: Any
    ) -> None:  # fmt: skip
        self.encoder, self.decoder = encoder(shape[0], dim), decoder(shape[0], dim)
        self.quantizer = nn.QUANTIZERS[quantizer](num_codes, dim, **options)

    def __call__(self, x: Tensor) -> tuple[Tensor, Quantized]:
        codes = self.quantizer(self.encoder(x))
        return self.decoder(codes.quantized), codes

    def encode(self, x: Tensor) -> Any:
        """-> integers (N, H/4, W/4)"""
        z = ops.permute(self.encoder(x), (0, 2, 3, 1))
        return ops.nearest_code(z, self.quantizer.codes())._data

    def decode(self, indices: Any) -> Tensor:
        """Integers (N, h, w) -> (N, c, 4h, 4w)"""
        return self.decoder(self.quantizer.lookup(indices))


class VAE:
    """x (N, c, H, W) -> reconstruction, mean and log variance of the latent maps (N, D, H/4, W/4).

    variance: of a pixel around its reconstruction, one number.
    """

    def __init__(self, shape: Sequence[int], dim: int = 64) -> None:
        self.encoder, self.decoder, self.dim = encoder(shape[0], 2 * dim), decoder(shape[0], dim), dim
        self.variance = place(np.ones((), np.float64))

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_var = self.encode(x)
        z = mean + ops.exp(log_var * 0.5) * randn(*mean.shape)
        return self.decoder(z), mean, log_var

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder(x)
        return h[:, : self.dim], h[:, self.dim :]

    def decode(self, z: Tensor) -> Tensor:
        """(N, D, h, w) -> (N, c, 4h, 4w)"""
        return self.decoder(z)
