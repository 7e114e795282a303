"""minigen/train/vq_prior.py in PyTorch, without labels."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.harness.step import Step, rate
from benchmarks.twins.base import Single, Tensors
from minigen.data.loader import Loader
from minigen.models.pixel import positions, reads


class Net(nn.Module):
    def __init__(self, num_codes: int, embedding: int, hidden: int, grid: tuple[int, int], context: int) -> None:
        super().__init__()
        shape = (1, *grid)
        self.register_buffer("reads", torch.from_numpy(reads(shape, "pixel", context)), persistent=False)
        self.register_buffer("where", torch.from_numpy(positions(shape, "pixel")), persistent=False)
        self.embedding = nn.Embedding(num_codes + 1, embedding)
        self.rnn = nn.GRU(self.reads.shape[1] * embedding + self.where.shape[1], hidden)
        self.out = nn.Linear(hidden, num_codes)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes (N, S) -> logits (S, N, K)."""
        outside = torch.full_like(codes[:, :1], self.embedding.num_embeddings - 1)
        seen = torch.cat([codes, outside], 1)[:, self.reads].transpose(0, 1)
        where = self.where[:, None].expand(-1, len(codes), -1)
        return self.out(self.rnn(torch.cat([self.embedding(seen).flatten(2), where], 2))[0])


class VQPrior(Single):
    def __init__(self, step: Step, device: str = "cpu") -> None:
        trainer, c = step.trainer, step.trainer.config
        net = Net(c.num_codes, c.embedding, c.hidden, trainer.model.shape[1:], c.context)
        super().__init__(step, net, rate(trainer), device)
        self.loader = Loader(trainer.loader.images, None, c.batch_size, 0)

    def batch(self) -> tuple[torch.Tensor, ...]:
        self.next_rate()
        return (torch.from_numpy(self.loader.next()[0]).flatten(1),)

    def step(self, codes: torch.Tensor) -> Tensors:
        nll = cross_entropy(self.net(codes).flatten(0, 1), codes.T.flatten())
        self.update(nll, self.config.clip)
        return {"nll": nll}
