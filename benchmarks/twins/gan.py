"""minigen/train/gan.py in PyTorch: the non-saturating GAN (Goodfellow et al. 2014)."""

from __future__ import annotations

import torch
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from benchmarks.twins.adversarial import Adversarial


class GAN(Adversarial):
    def run(self) -> dict[str, float]:
        D, G = self.discriminator, self.generator
        x = self.real()
        one, zero = torch.ones(len(x), 1), torch.zeros(len(x), 1)

        z = self.noise(len(x))
        with torch.no_grad():
            fake = G(z)
        loss_d = bce(D(x), one) + bce(D(fake), zero)
        self.update(self.opt_d, loss_d, self.params_d)

        loss_g = bce(D(G(self.noise(len(x)))), one)
        self.update(self.opt_g, loss_g, self.params_g)
        return {"discriminator": loss_d.item(), "generator": loss_g.item()}
