"""minigen/train/char_rnn.py in PyTorch: truncated back-propagation through time with a GRU."""

from __future__ import annotations

import numpy as np
import torch
from minigen.kernels import threads
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.harness.step import Step
from minigen.nn import state_dict


class Net(nn.Module):
    """Parameters are named as minigen's. Dropout takes its masks from NumPy, as there: both cost the same, and agree."""

    def __init__(self, characters: int, embedding: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, embedding)
        self.rnn = nn.GRU(embedding, hidden)
        self.head = nn.Linear(hidden, characters)
        self.dropout = dropout
        self.rng = np.random.default_rng(0)

    def forward(self, index: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out, state = self.rnn(self.drop(self.embedding(index)), state)
        return self.head(self.drop(out)), state

    def drop(self, x: torch.Tensor) -> torch.Tensor:
        keep = self.rng.random(tuple(x.shape), dtype=np.float32) >= self.dropout
        return x * (torch.from_numpy(keep.astype(np.float32)) / (1 - self.dropout))


class CharRNN:
    def __init__(self, step: Step) -> None:
        torch.set_num_threads(threads.get_num_threads())
        trainer = step.trainer
        self.config, self.factor, self.streams = trainer.config, trainer.factor, trainer.streams
        self.net = Net(trainer.model.characters, self.config.embedding, self.config.hidden, self.config.dropout)
        self.net.load_state_dict({k: torch.from_numpy(v) for k, v in state_dict(trainer.model).items()})
        self.params = list(self.net.parameters())
        self.opt = torch.optim.Adam(self.params, self.config.lr)
        self.modules, self.optimisers = {"model": self.net}, {"model": self.opt}
        self.carried = torch.zeros(1, self.config.batch_size, self.config.hidden)
        self.steps = 0

    def seed(self, noise_seed: int) -> None:
        """Drop what minigen drops after `minigen.seed(noise_seed)`."""
        self.net.rng = np.random.Generator(np.random.PCG64(noise_seed))

    def run(self) -> dict[str, float]:
        x, y = (torch.from_numpy(a) for a in self.streams.at(self.steps))
        logits, state = self.net(x, self.carried)
        nll = cross_entropy(logits.flatten(0, 1), y.flatten())
        self.opt.zero_grad()
        nll.backward()
        nn.utils.clip_grad_norm_(self.params, self.config.clip)
        self.opt.param_groups[0]["lr"] = self.config.lr * self.factor(self.steps)
        self.opt.step()
        self.carried = state.detach()
        self.steps += 1
        return {"nll": nll.item()}
