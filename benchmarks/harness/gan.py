"""Steps of the `gan` recipe: one update of D and one of G."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.harness.step import Step, build_trainer, products
from minigen.train.gan import GAN


def gan_step(config: GAN, shape: Sequence[int]) -> Step:
    """A GANTrainer for images of `shape` (C, H, W)."""
    trainer = build_trainer(config, shape)
    models = {"G": trainer.generator.body, "D": trainer.discriminator.body}
    optimisers = {"G": trainer.opt_g, "D": trainer.opt_d}
    return Step(trainer.step, models, optimisers, lambda: _multiply_adds(trainer, shape), trainer)


def _multiply_adds(trainer: Any, shape: Sequence[int]) -> int:
    batch = trainer.config.batch_size
    g = products(trainer.generator.body, batch, (trainer.generator.latent,))
    pixels = shape if trainer.discriminator.planes else (shape[0] * shape[1] * shape[2],)
    d = products(trainer.discriminator.body, batch, pixels)
    update_d = g.all + 2 * (d.all + d.all + (d.all - d.first))  # fakes; then both batches: there, dw, dx
    update_g = g.all + d.all + d.all + (g.all + g.all - g.first)  # there; dx of D; dw and dx of G
    return update_d + update_g
