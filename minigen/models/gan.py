"""Generators and discriminators of the GAN recipes. s = size / 4, c channels, K label classes (0: no labels).

    mlp      G  100+K -> 256 -> 256 -> pixels, ReLU, tanh           D  pixels+K -> 256 -> 256 -> 1, LeakyReLU 0.2
             (points in the plane: three hidden layers of 128, no tanh)
    dcgan    G  100+K -> 128 s s, BN, ReLU; ConvT 128->64 k4s2p1, BN, ReLU; ConvT 64->c k4s2p1, tanh
             D  Conv c+K->64 k4s2p1, LReLU; Conv 64->128 k4s2p1, norm, LReLU; Linear -> 1

after Radford et al. 2016; `recurrent_gan.py` has the recurrent ones. Labels enter as one-hot vectors (Mirza and Osindero 2014):
beside the noise in G; in D beside the pixels, or as K constant image planes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigen import nn, ops
from minigen.device import place
from minigen.tensor import Tensor

LATENT = 100
WIDTH = 64              # channels of the convolutions next to the image; further in twice as many
SLOPE = 0.2
Norm = Callable[[Sequence[int]], Any] | None  # (C, H, W) -> a layer; None for no normalisation


def one_hot(labels: Any, classes: int) -> Tensor:
    """Integers (N,) -> float32 (N, classes)."""
    return Tensor(place(ops.one_hot(labels, classes).data))


class Generator:
    """z (N, *noise_shape), here (N, latent), labels (N,) or None -> samples (N, *shape)."""

    def __init__(self, body: Any, latent: int = LATENT, classes: int = 0) -> None:
        self.body, self.latent, self.classes = body, latent, classes
        self.noise_shape: tuple[int, ...] = (latent,)

    def __call__(self, z: Tensor, labels: Any = None) -> Tensor:
        return self.body(ops.concatenate([z, one_hot(labels, self.classes)], 1) if self.classes else z)


class Discriminator:
    """x (N, *shape), labels (N,) or None -> scores (N,): logits for a GAN, unbounded for a WGAN.

    planes: labels enter as K constant image planes; else the image is flattened and they stand beside its pixels.
    """

    def __init__(self, body: Any, classes: int = 0, planes: bool = False) -> None:
        self.body, self.classes, self.planes = body, classes, planes

    def __call__(self, x: Tensor, labels: Any = None) -> Tensor:
        if not self.planes:
            x = ops.reshape(x, (x.shape[0], -1))
        if self.classes:
            extra = one_hot(labels, self.classes)
            if self.planes:
                extra = Tensor(np.broadcast_to(extra.data[:, :, None, None], (*extra.shape, *x.shape[2:])))
            x = ops.concatenate([x, extra], 1)
        return ops.reshape(self.body(x), (x.shape[0],))


def mlp_hidden(shape: Sequence[int]) -> tuple[int, ...]:
    return (128, 128, 128) if len(shape) == 1 else (256, 256)


def mlp_generator(shape: Sequence[int], classes: int = 0, latent: int = LATENT) -> Generator:
    widths = (latent + classes, *mlp_hidden(shape))
    layers: list[Any] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    layers += [nn.Linear(widths[-1], int(np.prod(shape)))]
    if len(shape) > 1:
        layers += [nn.Tanh(), nn.Unflatten(*shape)]
    return Generator(nn.Sequential(*layers), latent, classes)


def mlp_discriminator(shape: Sequence[int], classes: int = 0, spectral: bool = False) -> Discriminator:
    widths = (int(np.prod(shape)) + classes, *mlp_hidden(shape))
    wrap = nn.SpectralNorm if spectral else _same
    layers: list[Any] = []
    for a, b in itertools.pairwise(widths):
        layers += [wrap(nn.Linear(a, b)), nn.LeakyReLU(SLOPE)]
    return Discriminator(nn.Sequential(*layers, wrap(nn.Linear(widths[-1], 1))), classes)


def dcgan_generator(shape: Sequence[int], classes: int = 0, latent: int = LATENT) -> Generator:
    c, h, w = shape
    body = nn.Sequential(
        nn.Linear(latent + classes, 2 * WIDTH * (h // 4) * (w // 4), bias=False),
        nn.Unflatten(2 * WIDTH, h // 4, w // 4),
        nn.BatchNorm2d(2 * WIDTH),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * WIDTH, WIDTH, 4, 2, 1, bias=False),
        nn.BatchNorm2d(WIDTH),
        nn.ReLU(),
        nn.ConvTranspose2d(WIDTH, c, 4, 2, 1),
        nn.Tanh(),
    )
    nn.init.dcgan(body)
    return Generator(body, latent, classes)


def dcgan_discriminator(
    shape: Sequence[int], classes: int = 0, norm: Norm = lambda chw: nn.BatchNorm2d(chw[0]), spectral: bool = False
) -> Discriminator:
    c, h, w = shape
    inner = (2 * WIDTH, h // 4, w // 4)
    wrap = nn.SpectralNorm if spectral else _same
    layers = [
        wrap(nn.Conv2d(c + classes, WIDTH, 4, 2, 1)),
        nn.LeakyReLU(SLOPE),
        wrap(nn.Conv2d(WIDTH, 2 * WIDTH, 4, 2, 1, bias=norm is None)),  # a bias before a norm would be subtracted again
        *([] if norm is None else [norm(inner)]),
        nn.LeakyReLU(SLOPE),
        nn.Flatten(),
        wrap(nn.Linear(int(np.prod(inner)), 1)),
    ]
    return Discriminator(nn.Sequential(*layers), classes, planes=True)


def _same(layer: Any) -> Any:
    return layer
