"""minigen/train/gan.py in PyTorch: the non-saturating GAN (Goodfellow et al. 2014)."""

from __future__ import annotations

import torch
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from benchmarks.twins.adversarial import Adversarial
from benchmarks.twins.base import Tensors


class GAN(Adversarial):
    def batch(self) -> tuple[torch.Tensor, ...]:
        return self.real(), self.noise(), self.noise()

    def step(self, x: torch.Tensor, z_d: torch.Tensor, z_g: torch.Tensor) -> Tensors:
        D, G = self.discriminator, self.generator
        one, zero = x.new_ones(len(x), 1), x.new_zeros(len(x), 1)

        with torch.no_grad():
            fake = G(z_d)
        loss_d = bce(D(x), one) + bce(D(fake), zero)
        self.update(self.opt_d, loss_d, self.params_d)

        loss_g = bce(D(G(z_g)), one)
        self.update(self.opt_g, loss_g, self.params_g)
        return {"discriminator": loss_d, "generator": loss_g}
