"""What the adversarial recipes share: two networks, two optimisers, noise, samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from minigen import nn, random
from minigen.autograd import grad, no_grad
from minigen.data.loader import Loader
from minigen.device import feed, place, to_host
from minigen.errors import UserError
from minigen.models.gan import (
    LATENT,
    Discriminator,
    Generator,
    Norm,
    dcgan_discriminator,
    dcgan_generator,
    mlp_discriminator,
    mlp_generator,
)
from minigen.models.recurrent_gan import RecurrentGenerator, mirrored_discriminator
from minigen.optim import Adam, linear_decay
from minigen.tensor import Tensor
from minigen.train.config import ChosenFloat, ChosenPair, DataInfo, Recipe, chosen
from minigen.train.trainer import Trainer, labels_for, pieces

Net = Literal["mlp", "dcgan", "gru", "lstm", "rnn"]
RECURRENT = ("gru", "lstm", "rnn")


@dataclass
class AdversarialRecipe(Recipe):
    """Options of every recipe with a generator and a discriminator."""

    net: Annotated[Net | None, chosen("{mlp,dcgan,gru,lstm,rnn}")] = None
    """Networks; gru, lstm and rnn draw an image row by row. (default: dcgan for images, mlp for points)"""
    share_convs: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """With --net gru, lstm or rnn: D looks with the transposes of the convolutions that G draws with."""
    labels: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Condition both networks on the data's class labels."""
    lr: ChosenFloat = None
    """Adam's learning rate. (default: chosen for the recipe and the data)"""
    betas: ChosenPair = None
    """Adam's decay rates. (default: chosen for the recipe)"""
    lr_schedule: Annotated[Literal["constant", "linear"] | None, chosen("{constant,linear}")] = None
    """linear: the learning rate falls to zero over --steps. (default: constant; linear for small data under wgan-gp)"""
    average: ChosenFloat = None
    """Sample from a running average of the generator's weights with this decay. (default: 0, the weights themselves)"""

    def resolve(self, info: DataInfo) -> None:
        super().resolve(info)
        self.net = self.net or ("mlp" if info.is_points else "dcgan")
        if info.is_points and self.net != "mlp":
            raise UserError(f"--net {self.net} makes images; the data {info.name} are points: use --net mlp")
        if self.share_convs and self.net not in RECURRENT:
            raise UserError(f"--share-convs is for --net {', '.join(RECURRENT)}, not {self.net}")
        self.lr_schedule = self.lr_schedule or "constant"
        self.average = self.average or 0.0
        if not 0 <= self.average < 1:
            raise UserError(f"--average must be in [0, 1), not {self.average}")
        if self.labels and not info.classes:
            raise UserError(f"--labels: the data {info.name} have no labels")


def build_generator(config: Any, info: DataInfo, latent: int = LATENT) -> Generator:
    """G of --net."""
    k = len(info.classes) if config.labels else 0
    if config.net in RECURRENT:
        return RecurrentGenerator(config.net, info.shape, k, latent)
    return (mlp_generator if config.net == "mlp" else dcgan_generator)(info.shape, k, latent)


def build_discriminator(config: Any, info: DataInfo, g: Generator, norm: Norm, spectral: bool = False) -> Discriminator:
    """D of --net, for G = g. norm: where D is convolutional."""
    if config.net == "mlp":
        return mlp_discriminator(info.shape, g.classes, spectral)
    if config.share_convs:
        return mirrored_discriminator(g, info.shape, norm)
    return dcgan_discriminator(info.shape, g.classes, norm, spectral)


class Adversarial(Trainer):
    """Holds G and D. A recipe subclasses it and writes `update()`: one of G, with those of D that go with it."""

    def __init__(
        self, config: Any, info: DataInfo, data: Any, generator: Generator, discriminator: Discriminator
    ) -> None:
        super().__init__(config, info)
        self.loader = None if data is None else Loader(data.images, data.labels, config.batch_size, config.seed)
        self.generator, self.discriminator = generator, discriminator
        self.params_g, self.params_d = nn.parameters(generator), nn.parameters(discriminator)
        self.opt_g, self.opt_d = (Adam(p, config.lr, config.betas) for p in (self.params_g, self.params_d))
        if config.lr_schedule == "linear":  # both fall with the updates of G
            falling = linear_decay(config.steps)
            self.opt_g.schedule = self.opt_d.schedule = lambda _: falling(self.opt_g.t)
        self.parts = {"generator": generator, "discriminator": discriminator, "opt_g": self.opt_g, "opt_d": self.opt_d}
        self.keep_average(self.params_g, config.average)
        if self.loader is not None:
            self.parts["loader"] = self.loader

    # --- one step -----------------------------------------------------------------------------------------------------

    def real(self) -> tuple[Tensor, Any]:
        """The next batch: x (N, *shape), and its labels (N,) if the networks are conditional, else None."""
        x, y = feed(self._batch)
        return Tensor(x), y

    def _batch(self) -> Any:
        assert self.loader is not None
        x, y = self.loader.next()
        return x, y if self.generator.classes else None

    def update_discriminator(self, loss: Tensor) -> None:
        """One step of D down the gradient of `loss`; G is not touched, and gradients for it are not computed."""
        self.opt_d.step(grad(loss, self.params_d))

    def update_generator(self, loss: Tensor) -> None:
        """One step of G down the gradient of `loss`; D is not touched, and gradients for it are not computed."""
        self.opt_g.step(grad(loss, self.params_g))
        if self.average is not None:
            self.average.update()

    def noise(self, n: int) -> Tensor:
        """z (n, *noise_shape) from N(0, I)."""
        return random.randn(n, *self.generator.noise_shape)

    # --- looking at it ------------------------------------------------------------------------------------------------

    def sample(self, count: int, seed: int | None = None, label: int | None = None) -> np.ndarray[Any, Any]:
        """`count` samples (count, *shape), a function of the weights and the seed. Conditional: labels in turn, or one."""
        rng = self.config.sample_rng(seed)
        labels = labels_for(count, self.generator.classes, label)
        parts = []
        with self.looking(self.generator), no_grad():
            for start in range(0, count, 256):
                n = min(256, count - start)
                z = Tensor(place(rng.standard_normal((n, *self.generator.noise_shape), dtype=np.float32)))
                parts.append(to_host(self.generator(z, None if labels is None else labels[start : start + n]).data))
        return np.concatenate(parts)

    def score(self, x: np.ndarray[Any, Any], labels: Any) -> np.ndarray[Any, Any]:
        """The discriminator's scores (N,) in evaluation mode."""
        D = self.discriminator
        with self.looking(D), no_grad():
            parts = [to_host(D(Tensor(place(x[p])), labels[p] if D.classes else None).data) for p in pieces(len(x), 256)]
        return np.concatenate(parts)
