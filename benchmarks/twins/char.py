"""minigen/train/char_rnn.py in PyTorch: truncated back-propagation through time with a GRU."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy, dropout

from benchmarks.harness.step import Step, rate
from benchmarks.twins.base import Single, Tensors


class Net(nn.Module):
    """Parameters are named as minigen's. Dropout takes uniform draws, or without them draws by itself."""

    def __init__(self, characters: int, embedding: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, embedding)
        self.rnn = nn.GRU(embedding, hidden)
        self.head = nn.Linear(hidden, characters)
        self.dropout = dropout

    def forward(
        self, index: torch.Tensor, state: torch.Tensor, below: torch.Tensor | None = None, above: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        out, state = self.rnn(self.drop(self.embedding(index), below), state)
        return self.head(self.drop(out, above)), state

    def drop(self, x: torch.Tensor, drawn: torch.Tensor | None) -> torch.Tensor:
        if drawn is None:
            return dropout(x, self.dropout)
        return x * ((drawn >= self.dropout).float() / (1 - self.dropout))


class CharRNN(Single):
    def __init__(self, step: Step, device: str = "cpu") -> None:
        trainer, c = step.trainer, step.trainer.config
        super().__init__(step, Net(trainer.model.characters, c.embedding, c.hidden, c.dropout), rate(trainer), device)
        self.streams = trainer.streams
        self.carried = torch.zeros(1, c.batch_size, c.hidden, device=device)

    def batch(self) -> tuple[torch.Tensor, ...]:
        x, y = (torch.from_numpy(a) for a in self.streams.at(self.steps))
        self.next_rate()
        if self.rng is None:
            return x, y
        c = self.config
        return x, y, self.uniform(*x.shape, c.embedding), self.uniform(*x.shape, c.hidden)

    def step(self, x: torch.Tensor, y: torch.Tensor, *drawn: torch.Tensor) -> Tensors:
        logits, state = self.net(x, self.carried, *drawn)
        nll = cross_entropy(logits.flatten(0, 1), y.flatten())
        self.update(nll, self.config.clip)
        self.carried.copy_(state.detach())
        return {"nll": nll}

    def changed(self) -> list[torch.Tensor]:
        return [*super().changed(), self.carried]
