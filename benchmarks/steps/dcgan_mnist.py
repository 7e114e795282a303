"""The DCGAN on 28x28 grey images: one update of D, one of G, as in minigen/train/gan.py."""

from __future__ import annotations

from benchmarks.harness.gan import gan_step
from benchmarks.harness.step import Step, Twin
from minigen.train.gan import GAN

SHAPE = (1, 28, 28)


def build() -> Step:
    return gan_step(GAN(net="dcgan"), SHAPE)


def twin(step: Step, device: str = "cpu") -> Twin:
    from benchmarks.twins import gan, networks

    return gan.GAN(step, networks.dcgan_generator(SHAPE), networks.dcgan_discriminator(SHAPE, norm=True), device)
