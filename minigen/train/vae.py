"""VAE: the same encoder and decoder as the VQ-VAE, with Gaussian latent maps in place of codes (Kingma and Welling 2014).

    q(z|x) = N(mean(x), diag exp log_var(x)),   p(z) = N(0, I),   p(x|z) = N(D(z), sigma^2 I),   sigma one number

    -ELBO = E_q[-log p(x|z)] + KL(q(z|x) || p(z))                                                (equation 10, one draw of z)
          = 1/2 sum ((x - D(z))^2 / sigma^2 + log 2 pi sigma^2) + 1/2 sum (mean^2 + exp log_var - log_var - 1)

in nats per image, of a density over [-1, 1]: what `evaluate` reports is a bound on -log p(x), and may be negative.

sigma balances the two terms. The best one is known: sigma^2 is the mean squared error (Rybkin et al. 2021, section 3.2). So in
training it is the batch's, and the first term becomes S/2 (log 2 pi |x - D(z)|^2 + 1) over S values; its running mean judges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minigen import nn, ops
from minigen.autograd import grad, no_grad
from minigen.data import Loader, to_uint8
from minigen.device import feed, place, to_host
from minigen.errors import UserError
from minigen.metrics.reconstruction import psnr
from minigen.models.vqvae import VAE as Model
from minigen.optim import Adam
from minigen.tensor import Tensor
from minigen.train.config import DataInfo, Recipe
from minigen.train.trainer import Trainer
from minigen.train.vqvae import AT_ONCE

Array = np.ndarray[Any, Any]
LOG_2PI = math.log(2 * math.pi)
DECAY = 0.99  # of the running mean of sigma^2


class VAETrainer(Trainer):
    def __init__(self, config: VAE, info: DataInfo, data: Any) -> None:
        super().__init__(config, info)
        self.model = Model(info.shape, config.dim)
        self.params = nn.parameters(self.model)
        self.opt = Adam(self.params, config.lr)
        self.parts = {"model": self.model, "opt": self.opt}
        if data is not None:
            self.loader = self.parts["loader"] = Loader(data.images, data.labels, config.batch_size or 1, config.seed)

    def update(self) -> dict[str, Tensor]:
        x = Tensor(feed(lambda: self.loader.next()[0]))
        y, mean, log_var = self.model(x)
        error, values = ops.mse(y, x), math.prod(self.info.shape)
        likelihood, kl = (ops.log(error) + (LOG_2PI + 1)) * (values / 2), divergence(mean, log_var)
        loss = likelihood + kl
        self.opt.step(grad(loss * (1 / values), self.params))
        variance, kept = self.model.variance, DECAY if self.opt.t > 1 else 0.0
        variance += (1 - kept) * (error.data - variance)
        return {"bound": loss, "likelihood": likelihood, "kl": kl, "sigma": ops.sqrt(error)}

    def sample(self, count: int, seed: int | None = None, label: int | None = None) -> Array:
        """D(z) of z from N(0, I): (count, c, H, W) in [-1, 1]."""
        if label is not None:
            raise UserError("a vae takes no label")
        rng, (_, h, w) = self.config.sample_rng(seed), self.info.shape
        parts = []
        with self.looking(self.model), no_grad():
            for i in range(0, count, AT_ONCE):
                z = rng.standard_normal((min(AT_ONCE, count - i), self.model.dim, h // 4, w // 4), np.float32)
                parts.append(to_host(self.model.decode(Tensor(place(z))).data))
        return np.clip(np.concatenate(parts), -1, 1)

    def evaluate(self, x: Array, labels: Any) -> dict[str, Any]:
        """The bound with one draw of z for each image; the PSNR of reconstructions from the mean of q(z|x), as bytes."""
        totals, error, values = np.zeros(2), [], math.prod(self.info.shape)
        with self.looking(self.model), no_grad():
            for i in range(0, len(x), AT_ONCE):
                part = Tensor(place(x[i : i + AT_ONCE]))
                y, mean, log_var = self.model(part)
                variance = float(self.model.variance)
                likelihood = (ops.mse(y, part).item() / variance + math.log(variance) + LOG_2PI) * values / 2
                totals += [len(part.data) * t for t in (likelihood, divergence(mean, log_var).item())]
                error.append(to_uint8(to_host(self.model.decode(mean).data)))
        likelihood, kl = totals / len(x)
        return {
            "protocol": "nats per image, of a density over [-1, 1]; an upper bound of -log p, one draw for each image",
            "bound": likelihood + kl, "likelihood": likelihood, "kl": kl, "psnr": psnr(to_uint8(x), np.concatenate(error)),
        }  # fmt: skip


def divergence(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(q(z|x) || p(z)), the mean over the batch, in nats."""
    return (mean * mean + ops.exp(log_var) - log_var - 1.0).sum() * (0.5 / mean.shape[0])


@dataclass
class VAE(Recipe):
    """Train a VAE with the networks of vqvae (Kingma and Welling 2014)."""

    name: ClassVar[str] = "vae"

    dim: int = 64
    """Latent maps: the length of z at each place."""
    lr: float = 3e-4
    """Adam's learning rate."""

    def resolve(self, info: DataInfo) -> None:
        super().resolve(info)
        self.require_images(info)
        self.steps = self.steps or (1_000 if info.shape[-1] < 16 else 5_000)
        if self.dim < 1 or not self.lr > 0:
            raise UserError(f"--dim must be at least 1 and --lr above 0, not {self.dim} and {self.lr}")

    def build(self, info: DataInfo, data: Any) -> VAETrainer:
        return VAETrainer(self, info, data)
