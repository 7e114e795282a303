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
from typing import Annotated, Any, ClassVar, Literal

import tyro

from minigen import nn, ops
from minigen.autograd import grad, no_grad
from minigen.data.loader import Loader
from minigen.errors import UserError
from minigen.models import gan as models
from minigen.optim import Adam
from minigen.tensor import Tensor
from minigen.train.adversarial import Adversarial, conditional_classes, labels_in_turn
from minigen.train.config import DataInfo, Recipe, chosen

Loss = Literal["nonsaturating", "minimax", "lsgan", "hinge"]
Net = Literal["mlp", "dcgan"]
ChosenNet = Annotated[Net | None, chosen("{mlp,dcgan}")]


def discriminator_loss(loss: Loss, real: Tensor, fake: Tensor) -> Tensor:
    """Scores (N,) of data and of fakes -> what D minimises."""
    if loss == "lsgan":
        return (ops.mse(real, 1.0) + ops.mse(fake, 0.0)) * 0.5
    if loss == "hinge":
        return ops.hinge(real, 1) + ops.hinge(fake, -1)
    return ops.bce_with_logits(real, 1) + ops.bce_with_logits(fake, 0)


def generator_loss(loss: Loss, fake: Tensor) -> Tensor:
    """Scores (N,) of fakes -> what G minimises."""
    if loss == "lsgan":
        return ops.mse(fake, 1.0) * 0.5
    if loss == "hinge":
        return -fake.mean()
    if loss == "minimax":
        return -ops.bce_with_logits(fake, 0)
    return ops.bce_with_logits(fake, 1)


def weight_penalty(params: list[Tensor], l1: float, l2: float) -> Tensor | None:
    """l1 sum |w| + l2 sum w^2 over all parameters; None if both are zero."""
    terms = [ops.sum(ops.abs(p)) * l1 for p in params if l1] + [ops.sum(ops.square(p)) * l2 for p in params if l2]
    return sum(terms[1:], terms[0]) if terms else None


class GANTrainer(Adversarial):
    def __init__(self, config: GAN, info: DataInfo, data: Any) -> None:
        k = conditional_classes(config.labels, info)
        if config.net == "mlp":
            g = models.mlp_generator(info.shape, k)
            d = models.mlp_discriminator(info.shape, k, config.spectral_norm)
        else:
            g = models.dcgan_generator(info.shape, k)
            norm = None if config.spectral_norm else (lambda chw: nn.BatchNorm2d(chw[0]))
            d = models.dcgan_discriminator(info.shape, k, norm, config.spectral_norm)
        assert config.batch_size is not None
        loader = None if data is None else Loader(data.images, data.labels, config.batch_size, config.seed)
        opt_g, opt_d = (Adam(nn.parameters(net), config.lr, config.betas) for net in (g, d))
        super().__init__(info, loader, g, d, opt_g, opt_d, config.seed)
        self.config = config

    def step(self) -> dict[str, float]:
        c, D, G = self.config, self.discriminator, self.generator
        x, labels = self.real()
        z = self.noise(len(x))

        with no_grad():  # D's update does not reach G
            fake = G(z, labels)
        loss_d = discriminator_loss(c.loss, D(x, labels), D(fake, labels))
        penalty = weight_penalty(self.params_d, c.l1, c.l2)
        self.opt_d.step(grad(loss_d if penalty is None else loss_d + penalty, self.params_d))

        loss_g = generator_loss(c.loss, D(G(self.noise(len(x)), labels), labels))
        penalty = weight_penalty(self.params_g, c.l1, c.l2)
        self.opt_g.step(grad(loss_g if penalty is None else loss_g + penalty, self.params_g))
        return {"discriminator": loss_d.item(), "generator": loss_g.item()}

    def evaluate(self, x: Any, labels: Any) -> dict[str, float]:
        """Both losses on held-out data, networks in evaluation mode."""
        real = Tensor(self.score(x, labels))
        fake = Tensor(self.score(self.sample(len(x)), labels_in_turn(len(x), self.generator.classes)))
        return {
            "discriminator": discriminator_loss(self.config.loss, real, fake).item(),
            "generator": generator_loss(self.config.loss, fake).item(),
        }


@dataclass
class GAN(Recipe):
    """Train a GAN (Goodfellow et al. 2014)."""

    name: ClassVar[str] = "gan"

    net: ChosenNet = None
    """Networks. (default: dcgan for images, mlp for points)"""
    loss: Loss = "nonsaturating"
    """The two losses: nonsaturating, minimax (the original game), lsgan (least squares) or hinge."""
    labels: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Condition both networks on the data's class labels."""
    spectral_norm: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Spectral normalisation of every layer of D (then without batch norm)."""
    l1: float = 0.0
    """Weight of the L1 penalty on all parameters."""
    l2: float = 0.0
    """Weight of the L2 penalty on all parameters."""
    lr: float = 2e-4
    """Adam's learning rate."""
    betas: tuple[float, float] = (0.5, 0.999)
    """Adam's decay rates."""

    def resolve(self, info: DataInfo) -> None:
        super().resolve(info)
        self.net = self.net or ("mlp" if info.is_points else "dcgan")
        if info.is_points and self.net != "mlp":
            raise UserError(f"--net {self.net} makes images; the data {info.name} are points: use --net mlp")
        self.steps = self.steps or (10_000 if info.is_points else 3_000)

    def build(self, info: DataInfo, data: Any) -> GANTrainer:
        return GANTrainer(self, info, data)
