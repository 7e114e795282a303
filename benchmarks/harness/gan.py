"""Steps of the `gan` recipe: one update of D and one of G."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks.harness.step import Products, Step, build_trainer, products, reorder, scan_products
from minigen.models.recurrent_gan import RecurrentGenerator
from minigen.train.gan import GAN


def gan_step(config: GAN, shape: Sequence[int]) -> Step:
    """A GANTrainer for images of `shape` (C, H, W)."""
    trainer = build_trainer(config, shape)
    g = trainer.generator if isinstance(trainer.generator, RecurrentGenerator) else trainer.generator.body
    models = {"G": g, "D": trainer.discriminator.body}
    optimisers = {"G": trainer.opt_g, "D": trainer.opt_d}
    seed = partial(reorder, trainer)
    return Step(trainer.step, models, optimisers, lambda: _multiply_adds(trainer, shape), trainer, seed)


def _multiply_adds(trainer: Any, shape: Sequence[int]) -> int:
    batch = trainer.config.batch_size
    g = _generator(trainer.generator, batch)
    pixels = shape if trainer.discriminator.planes else (shape[0] * shape[1] * shape[2],)
    d = products(trainer.discriminator.body, batch, pixels)
    update_d = g.all + 2 * (d.all + d.all + (d.all - d.first))  # fakes; then both batches: there, dw, dx
    update_g = g.all + d.all + d.all + (g.all + g.all - g.first)  # there; dx of D; dw and dx of G
    return update_d + update_g


def _generator(g: Any, batch: int) -> Products:
    if not isinstance(g, RecurrentGenerator):
        return products(g.body, batch, g.noise_shape)
    steps, units = g.noise_shape[0], g.rnn.hidden_size
    rows, maps = scan_products(g.rnn, steps, batch), g.body[0].weight.shape[1]
    head = products(g.body, batch, (maps, steps, units // maps))
    return Products(rows.all + head.all, rows.first, head.last)
