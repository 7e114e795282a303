"""Networks that read or draw an image row by row. c channels, H x W pixels, K label classes (0: no labels).

    generator   z (N, T, 100+K), T = H / 2 -> RNN, GRU or LSTM of 16 (W / 2) units; the output of step t is row t of 16 feature
                maps: (N, 16, T, W / 2) -> Conv 16->64 3x3, BN, ReLU; ConvT 64->c k4s2p1, tanh. (28x28: T = 14, 224 units)
    critic      the image's H rows, each of W c pixels and K label values, -> GRU 128; mean of the states -> Linear -> 1
                (as in C-RNN-GAN, Mogren 2016). It has no batch norm, so it may be put under a gradient penalty.

**Shared convolutions.** A convolution and the transposed convolution of the same weight are each other's transpose, so G can
draw with the weights that D looks with. `mirrored_discriminator` is D of the dcgan with G's 3x3 put in:

    G                                      weight           D
    ConvT 64->c k4s2p1, the last layer     (64, c, 4, 4)    Conv c->64 k4s2p1, the first layer
    Conv  16->64 3x3, the first layer      (64, 16, 3, 3)   ConvT 64->16 3x3, the second layer
                                                            then Conv 16->128 k4s2p1, Linear -> 1: its own

Both optimisers move a shared weight, each by its own network's loss. Biases and norms are not shared, nor are the weights of
D's label planes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigen import nn, ops
from minigen.models import gan
from minigen.models.gan import LATENT, SLOPE, Discriminator, Generator, Norm, one_hot
from minigen.tensor import Tensor

MAPS = 16


class RecurrentGenerator(Generator):
    """z (N, T, latent), labels (N,) or None -> images (N, c, H, W). Each step draws two rows, knowing those above."""

    def __init__(self, cell: str, shape: Sequence[int], classes: int = 0, latent: int = LATENT) -> None:
        c, h, w = shape
        head = nn.Sequential(
            nn.Conv2d(MAPS, gan.WIDTH, 3, 1, 1, bias=False),
            nn.BatchNorm2d(gan.WIDTH),
            nn.ReLU(),
            nn.ConvTranspose2d(gan.WIDTH, c, 4, 2, 1),
            nn.Tanh(),
        )
        nn.init.dcgan(head)
        super().__init__(head, latent, classes)
        self.rnn = nn.CELLS[cell](latent + classes, MAPS * (w // 2), batch_first=True)
        self.noise_shape = (h // 2, latent)

    def __call__(self, z: Tensor, labels: Any = None) -> Tensor:
        n, steps, _ = z.shape
        if self.classes:
            told = one_hot(labels, self.classes).data[:, None]  # at every step
            z = ops.concatenate([z, Tensor(np.broadcast_to(told, (n, steps, self.classes)))], 2)
        rows, _ = self.rnn(z)
        return self.body(ops.permute(ops.reshape(rows, (n, steps, MAPS, -1)), (0, 2, 1, 3)))


class SequenceCritic(Discriminator):
    """x (N, c, H, W), labels (N,) or None -> scores (N,): the rows, from the top, as a sequence."""

    def __init__(self, shape: Sequence[int], classes: int = 0, hidden: int = 128, cell: str = "gru") -> None:
        c, _, w = shape
        self.rnn = nn.CELLS[cell](w * c + classes, hidden)
        super().__init__(nn.Linear(hidden, 1), classes)

    def __call__(self, x: Tensor, labels: Any = None) -> Tensor:
        n, _, h, _ = x.shape
        rows = ops.reshape(ops.permute(x, (2, 0, 3, 1)), (h, n, -1))
        if self.classes:
            told = one_hot(labels, self.classes).data
            rows = ops.concatenate([rows, Tensor(np.broadcast_to(told, (h, *told.shape)))], 2)
        states, _ = self.rnn(rows)
        return ops.reshape(self.body(ops.mean(states, 0)), (n,))


class _WithPlanes(nn.Conv2d):
    """A convolution whose weight for the image is shared, and whose weight for K label planes is its own."""

    def __init__(self, weight: Tensor, classes: int) -> None:
        super().__init__(classes, weight.shape[0], 4, 2, 1)
        self.planes, self.weight = self.weight, weight

    def __call__(self, x: Tensor, negative_slope: float = 1.0) -> Tensor:
        w = ops.concatenate([self.weight, self.planes], 1)
        y = ops.conv2d(x, w, self.stride, self.padding)
        return y if self.bias is None else ops.bias_act(y, self.bias, negative_slope)


def mirrored_discriminator(generator: Generator, shape: Sequence[int], norm: Norm) -> Discriminator:
    """D that shares G's convolutions, as the table above says. norm as in `dcgan_discriminator`."""
    c, h, w = shape
    drawing, _, _, painting, _ = generator.body
    inner, outer, bias = (MAPS, h // 2, w // 2), (2 * gan.WIDTH, h // 4, w // 4), norm is None
    first = _WithPlanes(painting.weight, generator.classes) if generator.classes else nn.Conv2d(c, gan.WIDTH, 4, 2, 1)
    second = nn.ConvTranspose2d(gan.WIDTH, MAPS, 3, 1, 1, bias=bias)
    body = nn.Sequential(
        first,
        nn.LeakyReLU(SLOPE),
        second,
        *([] if norm is None else [norm(inner)]),
        nn.LeakyReLU(SLOPE),
        nn.Conv2d(MAPS, 2 * gan.WIDTH, 4, 2, 1, bias=bias),
        *([] if norm is None else [norm(outer)]),
        nn.LeakyReLU(SLOPE),
        nn.Flatten(),
        nn.Linear(int(np.prod(outer)), 1),
    )
    nn.init.dcgan(body)
    first.weight, second.weight = painting.weight, drawing.weight
    return Discriminator(body, generator.classes, planes=True)
