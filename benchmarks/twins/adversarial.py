"""What the adversarial twins share: copies of minigen's weights, the same batches, the same noise, the same optimiser.

Batches and noise come from minigen's loader and from NumPy on both sides, seeded alike, so both cost the same and the first
step must agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from minigen.kernels import threads
from torch import nn

from benchmarks.harness.step import Step
from minigen.data.loader import Loader
from minigen.nn import state_dict


class Adversarial:
    """Two modules whose parameters are named as in `step.models`; a twin subclasses it and writes `run()`."""

    def __init__(self, step: Step, generator: nn.Module, discriminator: nn.Module) -> None:
        torch.set_num_threads(threads.get_num_threads())
        self.generator, self.discriminator = generator, discriminator
        self.modules = {"G": generator, "D": discriminator}
        for name, module in self.modules.items():
            module.load_state_dict({k: torch.from_numpy(v) for k, v in state_dict(step.models[name]).items()})
        self.config = step.trainer.config
        self.params_g, self.params_d = list(generator.parameters()), list(discriminator.parameters())
        self.opt_g, self.opt_d = self.adam(self.params_g), self.adam(self.params_d)
        self.optimisers = {"G": self.opt_g, "D": self.opt_d}
        self.images = step.trainer.loader.images
        self.seed(step.trainer.loader.seed)
        self.noise_shape = step.trainer.generator.noise_shape

    def seed(self, noise_seed: int) -> None:
        """Take the images in the order of this seed, and draw the noise that minigen draws after `minigen.seed(noise_seed)`."""
        self.loader = Loader(self.images, None, self.config.batch_size, noise_seed)
        self.rng = np.random.Generator(np.random.PCG64(noise_seed))

    def adam(self, params: Iterable[Any]) -> torch.optim.Optimizer:
        return torch.optim.Adam(params, self.config.lr, self.config.betas)

    def real(self) -> torch.Tensor:
        return torch.from_numpy(self.loader.next()[0])

    def noise(self, n: int) -> torch.Tensor:
        return torch.from_numpy(self.rng.standard_normal((n, *self.noise_shape), dtype=np.float32))

    def update(self, optimiser: torch.optim.Optimizer, loss: torch.Tensor, params: list[Any]) -> None:
        """One step down `loss`. Only the gradients that the optimiser uses are computed, as in minigen."""
        optimiser.zero_grad()
        loss.backward(inputs=params)
        optimiser.step()
