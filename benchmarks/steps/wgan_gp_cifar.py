"""The WGAN-GP with DCGAN networks on 32x32 colour images: one update of the critic, without norm and with the two-sided
penalty, and one of the generator, as in minigen/train/wgan_gp.py."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.harness.step import Step, Twin, build_trainer, products, reorder
from minigen.train.wgan_gp import WGANGP

SHAPE = (3, 32, 32)


def build() -> Step:
    trainer = build_trainer(WGANGP(net="dcgan", n_critic=1), SHAPE)
    models = {"G": trainer.generator.body, "D": trainer.discriminator.body}
    optimisers = {"G": trainer.opt_g, "D": trainer.opt_d}
    return Step(trainer.step, models, optimisers, lambda: _multiply_adds(trainer), trainer, partial(reorder, trainer))


def _multiply_adds(trainer: Any) -> int:
    batch = trainer.config.batch_size
    g = products(trainer.generator.body, batch, (trainer.generator.latent,))
    d = products(trainer.discriminator.body, batch, SHAPE)
    scores = 2 * (d.all + d.all + (d.all - d.first))  # data and fakes: there, dw, dx
    penalty = d.all + d.all + (d.all + d.all - d.last)  # there; dx; and dx's own gradients, by its weights and its input
    critic = g.all + scores + penalty
    generator = g.all + d.all + d.all + (g.all + g.all - g.first)
    return critic + generator


def twin(step: Step, device: str = "cpu") -> Twin:
    from benchmarks.twins import networks, wgan_gp

    return wgan_gp.WGANGP(step, networks.dcgan_generator(SHAPE), networks.dcgan_discriminator(SHAPE, norm=False), device)
