"""minigen/train/pixel_rnn.py in PyTorch, for images of two levels and a net that reads the pixel before (context 0)."""

from __future__ import annotations

import torch
from minigen.kernels import threads
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from benchmarks.harness.step import Step
from minigen.data.loader import Loader
from minigen.nn import state_dict


class Net(nn.Module):
    def __init__(self, cell: str, hidden: int) -> None:
        super().__init__()
        self.rnn = getattr(nn, cell)(1, hidden)
        self.out = nn.Linear(hidden, 1)

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(seen)[0])


class PixelRNN:
    def __init__(self, step: Step, cell: str) -> None:
        torch.set_num_threads(threads.get_num_threads())
        trainer = step.trainer
        self.config, self.factor = trainer.config, trainer.factor
        self.net = Net(cell, self.config.hidden)
        self.net.load_state_dict({k: torch.from_numpy(v) for k, v in state_dict(trainer.model).items()})
        self.params = list(self.net.parameters())
        self.opt = torch.optim.Adam(self.params, self.config.lr)
        self.modules, self.optimisers = {"model": self.net}, {"model": self.opt}
        loader = trainer.loader
        self.loader = Loader(loader.images, None, loader.batch_size, loader.seed)
        self.steps = 0

    def seed(self, noise_seed: int) -> None:
        """There is no noise."""

    def run(self) -> dict[str, float]:
        x = torch.from_numpy(self.loader.next()[0])  # bytes 0 and 1, scaled as grey levels are
        pixels = (x > -1).float().flatten(1).T[..., None]  # (T, N, 1)
        before = torch.cat([torch.zeros_like(pixels[:1]), 2 * pixels[:-1] - 1])
        loss = bce(self.net(before), pixels)
        self.opt.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.params, self.config.clip)
        self.opt.param_groups[0]["lr"] = self.config.lr * self.factor(self.steps)
        self.opt.step()
        self.steps += 1
        return {"nll": loss.item() * pixels[:, 0].numel(), "grad_norm": norm.item()}
