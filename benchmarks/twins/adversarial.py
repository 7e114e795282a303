"""What the adversarial twins share: two networks with an optimiser each, and minigen's batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.harness.step import Step
from benchmarks.twins.base import Base
from minigen.data.loader import Loader


class Adversarial(Base):
    """A twin subclasses it and writes `batch` and `step`."""

    def __init__(self, step: Step, generator: nn.Module, discriminator: nn.Module, device: str = "cpu") -> None:
        super().__init__(step, {"G": generator, "D": discriminator}, device)
        self.generator, self.discriminator = generator, discriminator
        self.params_g, self.params_d = list(generator.parameters()), list(discriminator.parameters())
        self.opt_g, self.opt_d = self.adam(self.params_g), self.adam(self.params_d)
        self.optimisers = {"G": self.opt_g, "D": self.opt_d}
        self.noise_shape = step.trainer.generator.noise_shape
        self.images = step.trainer.loader.images
        self.load(step.trainer.loader.seed)

    def load(self, seed: int) -> None:
        """Take the images in the order of this seed."""
        self.loader = Loader(self.images, None, self.config.batch_size, seed)

    def seed(self, noise_seed: int) -> None:
        super().seed(noise_seed)
        self.load(noise_seed)

    def adam(self, params: list[Any]) -> torch.optim.Optimizer:
        return torch.optim.Adam(params, self.config.lr, self.config.betas)

    def real(self) -> torch.Tensor:
        return torch.from_numpy(self.loader.next()[0])

    def noise(self) -> torch.Tensor:
        return self.normal(self.config.batch_size, *self.noise_shape)

    def update(self, optimiser: torch.optim.Optimizer, loss: torch.Tensor, params: list[Any]) -> None:
        """One step down `loss`. Only the gradients that the optimiser uses are computed, as in minigen."""
        optimiser.zero_grad()
        loss.backward(inputs=params)
        optimiser.step()
