"""minigen/train/vq_prior.py in PyTorch, without labels."""

from __future__ import annotations

import torch
from minigen.kernels import threads
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.harness.step import Step
from minigen.data.loader import Loader
from minigen.models.pixel import positions, reads
from minigen.nn import state_dict


class Net(nn.Module):
    def __init__(self, num_codes: int, embedding: int, hidden: int, grid: tuple[int, int], context: int) -> None:
        super().__init__()
        shape = (1, *grid)
        self.reads = torch.from_numpy(reads(shape, "pixel", context))
        self.where = torch.from_numpy(positions(shape, "pixel"))
        self.embedding = nn.Embedding(num_codes + 1, embedding)
        self.rnn = nn.GRU(self.reads.shape[1] * embedding + self.where.shape[1], hidden)
        self.out = nn.Linear(hidden, num_codes)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes (N, S) -> logits (S, N, K)."""
        outside = torch.full_like(codes[:, :1], self.embedding.num_embeddings - 1)
        seen = torch.cat([codes, outside], 1)[:, self.reads].transpose(0, 1)
        where = self.where[:, None].expand(-1, len(codes), -1)
        return self.out(self.rnn(torch.cat([self.embedding(seen).flatten(2), where], 2))[0])


class VQPrior:
    def __init__(self, step: Step) -> None:
        torch.set_num_threads(threads.get_num_threads())
        trainer = step.trainer
        self.config, self.factor = trainer.config, trainer.factor
        c = self.config
        self.net = Net(c.num_codes, c.embedding, c.hidden, trainer.model.shape[1:], c.context)
        self.net.load_state_dict({k: torch.from_numpy(v) for k, v in state_dict(trainer.model).items()})
        self.params = list(self.net.parameters())
        self.opt = torch.optim.Adam(self.params, c.lr)
        self.modules, self.optimisers = {"model": self.net}, {"model": self.opt}
        self.loader = Loader(trainer.loader.images, None, c.batch_size, 0)
        self.steps = 0

    def seed(self, noise_seed: int) -> None:
        """There is no noise."""

    def run(self) -> dict[str, float]:
        codes = torch.from_numpy(self.loader.next()[0]).flatten(1)
        nll = cross_entropy(self.net(codes).flatten(0, 1), codes.T.flatten())
        self.opt.zero_grad()
        nll.backward()
        nn.utils.clip_grad_norm_(self.params, self.config.clip)
        self.opt.param_groups[0]["lr"] = self.config.lr * self.factor(self.steps)
        self.opt.step()
        self.steps += 1
        return {"nll": nll.item()}
