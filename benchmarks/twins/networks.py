"""minigen/models/gan.py and recurrent_gan.py in PyTorch, layer by layer, so that parameters have the same names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn


def mlp_generator(shape: Sequence[int]) -> nn.Module:
    return nn.Sequential(
        nn.Linear(100, 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, int(np.prod(shape))),
        nn.Tanh(),
        nn.Unflatten(1, tuple(shape)),
    )


def mlp_discriminator(shape: Sequence[int]) -> nn.Module:
    layers = [nn.Linear(int(np.prod(shape)), 256), nn.LeakyReLU(0.2), nn.Linear(256, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1)]
    # In minigen the flattening is not one of the numbered layers.
    return nn.Sequential(OrderedDict([("flatten", nn.Flatten()), *((str(i), layer) for i, layer in enumerate(layers))]))


def dcgan_generator(shape: Sequence[int]) -> nn.Module:
    c, h, w = shape
    return nn.Sequential(
        nn.Linear(100, 128 * (h // 4) * (w // 4), bias=False),
        nn.Unflatten(1, (128, h // 4, w // 4)),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.ConvTranspose2d(64, c, 4, 2, 1),
        nn.Tanh(),
    )


def dcgan_discriminator(shape: Sequence[int], norm: bool) -> nn.Module:
    c, h, w = shape
    return nn.Sequential(
        nn.Conv2d(c, 64, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(64, 128, 4, 2, 1, bias=not norm),
        *([nn.BatchNorm2d(128)] if norm else []),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(128 * (h // 4) * (w // 4), 1),
    )


class GRUGenerator(nn.Module):
    """minigen/models/recurrent_gan.py: a GRU whose output at step t is row t of 16 feature maps, then two convolutions."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        c, _, w = shape
        self.body = nn.Sequential(
            nn.Conv2d(16, 64, 3, 1, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.ConvTranspose2d(64, c, 4, 2, 1),
            nn.Tanh(),
        )
        self.rnn = nn.GRU(100, 16 * (w // 2), batch_first=True)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        rows, _ = self.rnn(z)
        return self.body(rows.unflatten(2, (16, -1)).transpose(1, 2))
