"""minigen/train/wgan_gp.py in PyTorch: WGAN-GP with the two-sided penalty (Gulrajani et al. 2017)."""

from __future__ import annotations

import torch

from benchmarks.twins.adversarial import Adversarial
from benchmarks.twins.base import Tensors


class WGANGP(Adversarial):
    def batch(self) -> tuple[torch.Tensor, ...]:
        return self.real(), self.noise(), self.uniform(self.config.batch_size, 1, 1, 1), self.noise()

    def step(self, x: torch.Tensor, z_d: torch.Tensor, e: torch.Tensor, z_g: torch.Tensor) -> Tensors:
        D, G = self.discriminator, self.generator
        n = len(x)

        with torch.no_grad():
            y = G(z_d)
        scores = D(torch.cat([x, y]))
        distance = scores[:n].mean() - scores[n:].mean()
        penalty = self.penalty(x, y, e)
        critic = self.config.gp_weight * penalty - distance
        self.update(self.opt_d, critic, self.params_d)

        generator = -D(G(z_g)).mean()
        self.update(self.opt_g, generator, self.params_g)
        return {"critic": critic, "wasserstein": distance, "penalty": penalty, "generator": generator}

    def penalty(self, x: torch.Tensor, y: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        u = (e * x + (1 - e) * y).requires_grad_()
        scores = self.modules["D"](u)  # the plain one: what torch.compile makes cannot be differentiated twice
        (g,) = torch.autograd.grad(scores.sum(), u, create_graph=True)
        slope = torch.sqrt(g.square().sum((1, 2, 3)) + 1e-12) - 1
        return slope.square().mean()
