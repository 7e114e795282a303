"""minigen/train/wgan_gp.py in PyTorch: WGAN-GP with the two-sided penalty (Gulrajani et al. 2017)."""

from __future__ import annotations

import torch

from benchmarks.twins.adversarial import Adversarial


class WGANGP(Adversarial):
    def run(self) -> dict[str, float]:
        D, G = self.discriminator, self.generator
        x = self.real()
        n = len(x)

        z = self.noise(n)
        with torch.no_grad():
            y = G(z)
        scores = D(torch.cat([x, y]))
        distance = scores[:n].mean() - scores[n:].mean()
        penalty = self.penalty(x, y)
        loss = self.config.gp_weight * penalty - distance
        self.update(self.opt_d, loss, self.params_d)
        losses = {"critic": loss.item(), "wasserstein": distance.item(), "penalty": penalty.item()}

        loss = -D(G(self.noise(n))).mean()
        self.update(self.opt_g, loss, self.params_g)
        return losses | {"generator": loss.item()}

    def penalty(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        e = torch.from_numpy(self.rng.random((len(x), 1, 1, 1), dtype="float32"))
        u = (e * x + (1 - e) * y).requires_grad_()
        (g,) = torch.autograd.grad(self.discriminator(u).sum(), u, create_graph=True)
        slope = torch.sqrt(g.square().sum((1, 2, 3)) + 1e-12) - 1
        return slope.square().mean()
