"""The VQ-VAE on 32x32 colour images, 512 codes of 64 numbers that follow running means, as in minigen/train/vqvae.py.

Weights are enlarged to those of He et al. 2015, and the codebook holds some of the encoder's outputs. Fresh weights make those
nearly alike, and which code is nearest would be a question of rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from benchmarks.harness.step import Step, Twin, build_trainer, products, reorder
from minigen import nn
from minigen.autograd import no_grad
from minigen.data import to_float
from minigen.device import place, to_host
from minigen.models.vqvae import Residual
from minigen.nn.vq import kmeans_plus_plus
from minigen.tensor import Tensor
from minigen.train.vqvae import VQVAE

SHAPE = (3, 32, 32)


def build() -> Step:
    trainer = build_trainer(VQVAE(), SHAPE)
    model = trainer.model
    for p in nn.parameters(model):
        p.assign(p.data * (math.sqrt(6) if p.ndim == 4 else 0.0))
    with no_grad():
        z = to_host(model.encoder(Tensor(place(to_float(trainer.loader.images[:64])))).data)
    vectors = z.transpose(0, 2, 3, 1).reshape(-1, trainer.config.dim)
    model.quantizer._set(slice(None), kmeans_plus_plus(vectors, trainer.config.num_codes))
    model.quantizer.began[...] = 1

    seed = partial(reorder, trainer)
    return Step(trainer.step, {"model": model}, {"model": trainer.opt}, lambda: _multiply_adds(trainer), trainer, seed)


def _flat(layers: Sequence[Any]) -> Iterator[Any]:
    """Residual blocks opened: each layer as wide as it is, one after another."""
    for layer in layers:
        yield from layer.body if isinstance(layer, Residual) else (layer,)


def _multiply_adds(trainer: Any) -> int:
    c, batch, latent = trainer.config, trainer.config.batch_size, (trainer.config.dim, SHAPE[1] // 4, SHAPE[2] // 4)
    encoder = products(nn.Sequential(*_flat(trainer.model.encoder)), batch, SHAPE)
    decoder = products(nn.Sequential(*_flat(trainer.model.decoder)), batch, latent)
    distances = batch * latent[1] * latent[2] * c.num_codes * c.dim
    return 3 * encoder.all - encoder.first + distances + 3 * decoder.all


def twin(step: Step, device: str = "cpu") -> Twin:
    from benchmarks.twins import vqvae

    return vqvae.VQVAE(step, device)
