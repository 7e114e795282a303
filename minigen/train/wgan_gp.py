"""Wasserstein GAN with gradient penalty (Gulrajani et al. 2017, algorithm 1).

The critic D estimates the Wasserstein distance between data x and fakes y = G(z), which is the largest E D(x) - E D(y) over
functions of slope at most 1. The penalty holds its slope:

    L_D = E D(y) - E D(x) + lambda P          L_G = -E D(G(z))

    penalty     P                                      at
    two-sided   E (|grad D(u)| - 1)^2                  u = e x + (1 - e) y, e ~ U[0, 1]     (equation 3)
    one-sided   E max(0, |grad D(u)| - 1)^2            the same                             (section 4)
    fake        E |grad D(y)|^2                        the fakes themselves                 (Mescheder et al. 2018, R2)
    real        E |grad D(x)|^2                        the data                             (Mescheder et al. 2018, R1)

|grad D(u)| is taken per sample, so D must treat samples one by one: batch normalisation would couple them, and is refused.
The gradient of P with respect to D's weights is a second derivative; `grad(..., create_graph=True)` makes the first one an
expression, and the optimiser's `grad` differentiates it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from minigen import nn, ops
from minigen.autograd import grad, no_grad
from minigen.device import constant, place
from minigen.errors import UserError
from minigen.models.gan import LATENT, Discriminator
from minigen.models.recurrent_gan import SequenceCritic
from minigen.random import rand
from minigen.tensor import Tensor
from minigen.train.adversarial import Adversarial, AdversarialRecipe, build_discriminator, build_generator
from minigen.train.config import ChosenFloat, DataInfo
from minigen.train.trainer import labels_in_turn

Penalty = Literal["two-sided", "one-sided", "fake", "real"]


def gradient_penalty(penalty: Penalty, critic: Any, x: Tensor, y: Tensor, labels: Any = None) -> Tensor:
    """P of the table above for data x and fakes y, both (N, ...): a scalar that can be differentiated once more."""
    if penalty not in get_args(Penalty):
        raise ValueError(f"no penalty is called {penalty!r}; choose from {', '.join(get_args(Penalty))}")
    if penalty in ("two-sided", "one-sided"):
        e = rand(len(x), *(1 for _ in x.shape[1:])).data
        at = Tensor(e * x.data + (1 - e) * y.data, requires_grad=True)
    else:
        at = Tensor((y if penalty == "fake" else x).data, requires_grad=True)
    (g,) = grad(critic(at, labels).sum(), at, create_graph=True)
    squared = ops.sum(ops.square(g), tuple(range(1, g.ndim)))  # |grad D|^2 per sample, (N,)
    if penalty in ("fake", "real"):
        return squared.mean()
    slope = ops.sqrt(squared + 1e-12) - 1.0  # the constant keeps the root's derivative finite at zero
    return ops.square(slope if penalty == "two-sided" else ops.relu(slope)).mean()


class WGANGPTrainer(Adversarial):
    def __init__(self, config: WGANGP, info: DataInfo, data: Any) -> None:
        # As much noise as the plane has dimensions, for points: more would only blur the modes.
        g = build_generator(config, info, 2 if info.is_points else LATENT)
        if config.critic == "gru":
            d: Discriminator = SequenceCritic(info.shape, g.classes)
        else:
            d = build_discriminator(config, info, g, nn.LayerNorm if config.critic_norm == "layer" else None)
        super().__init__(config, info, data, g, d)

    def critic_step(self) -> dict[str, Tensor]:
        """One update of D on a fresh batch."""
        c, D, G = self.config, self.discriminator, self.generator
        x, labels = self.real()
        n = len(x)
        with no_grad():
            y = G(self.noise(n), labels)
        both = None if labels is None else np.concatenate([labels, labels])
        scores = D(ops.concatenate([x, y]), both)  # one pass for both: samples do not see each other
        distance = scores[:n].mean() - scores[n:].mean()  # E D(x) - E D(y): the Wasserstein estimate
        penalty = gradient_penalty(c.penalty, D, x, y, labels)
        loss = penalty * c.gp_weight - distance
        self.update_discriminator(loss)
        return {"critic": loss, "wasserstein": distance, "penalty": penalty}

    def generator_step(self) -> dict[str, Tensor]:
        """One update of G."""
        n, k = self.config.batch_size, self.generator.classes
        labels = constant(labels_in_turn, n, k) if k else None
        loss = -self.discriminator(self.generator(self.noise(n), labels), labels).mean()
        self.update_generator(loss)
        return {"generator": loss}

    def update(self) -> dict[str, Tensor]:
        losses = [self.critic_step() for _ in range(self.config.n_critic)]
        return losses[-1] | self.generator_step()

    def evaluate(self, x: Any, labels: Any) -> dict[str, float]:
        """The critic's estimate E D(x) - E D(G(z)) on held-out data, and the penalty there."""
        y = self.sample(len(x))
        fake_labels = labels_in_turn(len(x), self.generator.classes)
        n = min(len(x), 1000)
        kept = labels[:n] if self.discriminator.classes else None
        at = Tensor(place(x[:n])), Tensor(place(y[:n]))
        penalty = gradient_penalty(self.config.penalty, self.discriminator, *at, kept)
        distance = self.score(x, labels).mean() - self.score(y, fake_labels).mean()
        return {"wasserstein": float(distance), "penalty": penalty.item()}


@dataclass
class WGANGP(AdversarialRecipe):
    """Train a Wasserstein GAN with gradient penalty (Gulrajani et al. 2017)."""

    name: ClassVar[str] = "wgan-gp"

    penalty: Penalty = "two-sided"
    """Where the critic's slope is held: two-sided, one-sided (on interpolates), fake (at G(z)), real (at the data)."""
    gp_weight: ChosenFloat = None
    """lambda, the weight of the penalty. (default: 10 for images, 0.1 for points)"""
    n_critic: int = 5
    """Critic updates for each generator update."""
    critic: Literal["net", "gru"] = "net"
    """net: the critic that goes with --net; gru: a GRU that reads the image's rows as a sequence."""
    critic_norm: Literal["none", "layer", "batch"] = "none"
    """Normalisation in the convolutional critic: none or layer. (batch couples the samples of a batch, and is refused)"""

    def resolve(self, info: DataInfo) -> None:
        points = info.is_points
        if points or info.shape[-1] < 16:  # small data, small budget: a fast start and a slow end go further
            self.lr = (2e-3 if points else 1e-3) if self.lr is None else self.lr
            self.lr_schedule = self.lr_schedule or "linear"
        if points and self.average is None:
            self.average = 0.99
        super().resolve(info)
        if self.critic_norm == "batch":
            raise UserError(
                "--critic-norm batch: the gradient penalty is per sample, and batch norm couples samples; "
                "use none or layer (Gulrajani et al. 2017, section 4)"
            )
        if self.critic_norm == "layer" and (self.net == "mlp" or self.critic == "gru"):
            raise UserError("--critic-norm layer is for --net dcgan, or a recurrent one, with --critic net")
        if self.critic == "gru" and points:
            raise UserError(f"--critic gru reads rows of an image; the data {info.name} are points: use --critic net")
        if self.critic == "gru" and self.share_convs:
            raise UserError("--share-convs needs a critic with convolutions: --critic net")
        self.require_at_least(1, "n_critic")
        self.steps = self.steps or (5_000 if points else 600 if info.shape[-1] < 16 else 3_000)
        self.gp_weight = (0.1 if points else 10.0) if self.gp_weight is None else self.gp_weight
        self.lr = 1e-4 if self.lr is None else self.lr
        self.betas = (0.0, 0.9) if self.betas is None else self.betas

    def build(self, info: DataInfo, data: Any) -> WGANGPTrainer:
        return WGANGPTrainer(self, info, data)
