"""minigen/train/pixel_rnn.py in PyTorch, for images of two levels and a net that reads the pixel before (context 0)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from benchmarks.harness.step import Step, rate
from benchmarks.twins.base import Single, Tensors
from minigen.data.loader import Loader


class Net(nn.Module):
    def __init__(self, cell: str, hidden: int) -> None:
        super().__init__()
        self.rnn = getattr(nn, cell)(1, hidden)
        self.out = nn.Linear(hidden, 1)

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(seen)[0])


class PixelRNN(Single):
    def __init__(self, step: Step, cell: str, device: str = "cpu") -> None:
        trainer = step.trainer
        super().__init__(step, Net(cell, trainer.config.hidden), rate(trainer), device)
        loader = trainer.loader
        self.loader = Loader(loader.images, None, loader.batch_size, loader.seed)
        self.values = trainer.model.values

    def batch(self) -> tuple[torch.Tensor, ...]:
        self.next_rate()
        return (torch.from_numpy(self.loader.next()[0]),)  # bytes 0 and 1, scaled as grey levels are

    def step(self, x: torch.Tensor) -> Tensors:
        pixels = (x > -1).float().flatten(1).T[..., None]  # (T, N, 1)
        before = torch.cat([torch.zeros_like(pixels[:1]), 2 * pixels[:-1] - 1])
        loss = bce(self.net(before), pixels)
        norm = self.update(loss, self.config.clip)
        assert norm is not None
        return {"nll": loss, "grad_norm": norm}

    def figures(self, found: Tensors) -> dict[str, float]:
        return {"nll": found["nll"].item() * self.values, "grad_norm": found["grad_norm"].item()}
