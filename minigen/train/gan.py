"""Generative adversarial networks (Goodfellow et al. 2014).

D tells data x from fakes G(z); G learns from D's verdict. D gives logits; s is the sigmoid.

    loss             D minimises                                        G minimises
    nonsaturating    -E log s(D(x)) - E log(1 - s(D(G(z))))             -E log s(D(G(z)))         (section 3)
    minimax          the same                                            E log(1 - s(D(G(z))))    (equation 1)
    lsgan            (E (D(x) - 1)^2 + E D(G(z))^2) / 2                  E (D(G(z)) - 1)^2 / 2    (Mao et al. 2017, eq. 9)
    hinge            E max(0, 1 - D(x)) + E max(0, 1 + D(G(z)))         -E D(G(z))                (Lim and Ye 2017)

`minimax` is the game as first written; its gradient for G vanishes where D wins, which is why `nonsaturating` exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

import tyro

from minigen import nn, ops
from minigen.autograd import no_grad
from minigen.errors import UserError
from minigen.tensor import Tensor
from minigen.train.adversarial import RECURRENT, Adversarial, AdversarialRecipe, build_discriminator, build_generator
from minigen.train.config import DataInfo
from minigen.train.trainer import labels_in_turn

Loss = Literal["nonsaturating", "minimax", "lsgan", "hinge"]


def discriminator_loss(loss: Loss, real: Tensor, fake: Tensor) -> Tensor:
    """Scores (N,) of data and of fakes -> what D minimises."""
    _check(loss)
    if loss == "lsgan":
        return (ops.mse(real, 1.0) + ops.mse(fake, 0.0)) * 0.5
    if loss == "hinge":
        return ops.hinge(real, 1) + ops.hinge(fake, -1)
    return ops.bce_with_logits(real, 1) + ops.bce_with_logits(fake, 0)


def generator_loss(loss: Loss, fake: Tensor) -> Tensor:
    """Scores (N,) of fakes -> what G minimises."""
    _check(loss)
    if loss == "lsgan":
        return ops.mse(fake, 1.0) * 0.5
    if loss == "hinge":
        return -fake.mean()
    if loss == "minimax":
        return -ops.bce_with_logits(fake, 0)
    return ops.bce_with_logits(fake, 1)


def _check(loss: str) -> None:
    if loss not in get_args(Loss):
        raise ValueError(f"no GAN loss is called {loss!r}; choose from {', '.join(get_args(Loss))}")


def add_penalty(loss: Tensor, params: list[Tensor], l1: float, l2: float) -> Tensor:
    """loss + l1 sum |w| + l2 sum w^2 over all parameters."""
    terms = [ops.sum(ops.abs(p)) * l1 for p in params if l1] + [ops.sum(ops.square(p)) * l2 for p in params if l2]
    return sum(terms, loss)


class GANTrainer(Adversarial):
    def __init__(self, config: GAN, info: DataInfo, data: Any) -> None:
        norm = None if config.spectral_norm else (lambda chw: nn.BatchNorm2d(chw[0]))
        g = build_generator(config, info)
        super().__init__(config, info, data, g, build_discriminator(config, info, g, norm, config.spectral_norm))

    def update(self) -> dict[str, Tensor]:
        c, D, G = self.config, self.discriminator, self.generator
        x, labels = self.real()
        z = self.noise(len(x))

        with no_grad():  # D's update does not reach G
            fake = G(z, labels)
        loss_d = discriminator_loss(c.loss, D(x, labels), D(fake, labels))
        self.update_discriminator(add_penalty(loss_d, self.params_d, c.l1, c.l2))

        loss_g = generator_loss(c.loss, D(G(self.noise(len(x)), labels), labels))
        self.update_generator(add_penalty(loss_g, self.params_g, c.l1, c.l2))
        return {"discriminator": loss_d, "generator": loss_g}

    def evaluate(self, x: Any, labels: Any) -> dict[str, float]:
        """Both losses on held-out data, networks in evaluation mode."""
        real = Tensor(self.score(x, labels))
        fake = Tensor(self.score(self.sample(len(x)), labels_in_turn(len(x), self.generator.classes)))
        return {
            "discriminator": discriminator_loss(self.config.loss, real, fake).item(),
            "generator": generator_loss(self.config.loss, fake).item(),
        }


@dataclass
class GAN(AdversarialRecipe):
    """Train a GAN (Goodfellow et al. 2014)."""

    name: ClassVar[str] = "gan"

    loss: Loss = "nonsaturating"
    """The two losses: nonsaturating, minimax (the original game), lsgan (least squares) or hinge."""
    spectral_norm: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Spectral normalisation of every layer of D (then without batch norm)."""
    l1: float = 0.0
    """Weight of the L1 penalty on all parameters."""
    l2: float = 0.0
    """Weight of the L2 penalty on all parameters."""

    def resolve(self, info: DataInfo) -> None:
        super().resolve(info)
        if self.share_convs and self.spectral_norm:
            raise UserError("--share-convs with --spectral-norm: D's weights are scaled by their norm, and would not be G's")
        self.steps = self.steps or (10_000 if info.is_points else 3_000)
        if self.lr is None:  # a recurrent generator that learns as slowly as D settles on a few pictures
            self.lr = 5e-4 if self.net in RECURRENT else 2e-4
        self.betas = (0.5, 0.999) if self.betas is None else self.betas

    def build(self, info: DataInfo, data: Any) -> GANTrainer:
        return GANTrainer(self, info, data)
