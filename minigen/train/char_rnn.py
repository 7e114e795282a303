"""A recurrent language model of characters, trained by truncated back-propagation through time.

The probability of a text is the product of those of its characters, each given all before it, which the state h sums up:

    log p(x_1 .. x_n) = sum_t log p(x_t | h_t)          h_{t+1} = cell(h_t, x_t)
    nll = -1/n sum_t log p(x_t | h_t)                   nats per character;  nll / log 2 is bits per character

A batch is T characters of N streams (`minigen/data/text.py`). The state with which a batch ends is the one with which the
next begins, so the network has always read what stands before; gradients stop at the seam, T characters back (Williams and
Peng 1990; Mikolov et al. 2010). What keeps a recurrent network trainable: the gradient's joint norm is clipped (Pascanu et
al. 2013). What keeps half a million parameters from learning a megabyte by heart: dropout off the recurrent path (Zaremba et
al. 2014), and few passes over the text, through which the learning rate falls to zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from minigen import nn, ops
from minigen.autograd import grad, no_grad
from minigen.data import Streams, Text
from minigen.device import feed, place
from minigen.errors import UserError
from minigen.models import text as models
from minigen.optim import SCHEDULES, Adam, clip_grad_norm
from minigen.tensor import Tensor
from minigen.train.config import DataInfo
from minigen.train.text import TextRecipe, TextTrainer

PASSES, FEWEST, MOST = 10, 300, 10_000  # over the text, and the steps that this may come to


class CharRNNTrainer(TextTrainer):
    def __init__(self, config: CharRNN, info: DataInfo, data: Text | None) -> None:
        super().__init__(config, info)
        c = config
        model = models.CharRNN(len(self.vocabulary), c.embedding, c.hidden, c.layers, c.cell, c.dropout)
        self.streams = None if data is None else Streams(data.train, c.batch_size or 1, c.seq_length)
        self.params = nn.parameters(model)
        self.opt = Adam(self.params, c.lr)
        self.opt.schedule = SCHEDULES[c.lr_schedule](c.steps or 1)
        # What the network remembers of each stream: h, and c for an LSTM.
        shape = (c.layers, c.batch_size or 1, c.hidden)
        self.carried = [place(np.zeros(shape, np.float32)) for _ in range(model.rnn.states)]
        self.parts = {"model": model, "opt": self.opt, "carried": self.carried}

    @property
    def begin(self) -> int:
        """A text begins as a line does; where there are no lines, with the first character of the vocabulary."""
        return max(self.vocabulary.characters.find("\n"), 0)

    def update(self) -> dict[str, Tensor]:
        x, y = feed(self._batch)
        logits, state = self.model(x, _state([Tensor(a) for a in self.carried]))
        nll = ops.cross_entropy(ops.reshape(logits, (y.size, -1)), y)
        grads, _ = clip_grad_norm(grad(nll, self.params), self.config.clip)
        self.opt.step(grads)
        for a, s in zip(self.carried, state if isinstance(state, tuple) else (state,), strict=True):
            a[...] = s.data  # numbers, not a graph: the gradient stops here
        return {"nll": nll}

    def _batch(self) -> Any:
        assert self.streams is not None
        x, y = self.streams.at(self.opt.t)
        return x, y.reshape(-1)

    def likelihood(self, indices: Any, chunk: int = 1000) -> float:
        """nll of one text, indices (n,), read from beginning to end with one state. Its first character is given."""
        total, state = 0.0, None
        with self.looking(self.model), no_grad():
            for i in range(0, len(indices) - 1, chunk):
                x = indices[i : i + chunk + 1].astype(np.int64)
                logits, state = self.model(x[:-1, None], state)
                total += ops.cross_entropy(logits[:, 0], x[1:]).item() * (len(x) - 1)
        return total / (len(indices) - 1)

    def evaluate(self, text: Text) -> dict[str, float]:
        """nats and bits per character over the whole held-out part, in one pass."""
        nll = self.likelihood(text.test)
        return {"nll": nll, "bits": nll / math.log(2)}


def _state(states: list[Tensor]) -> Any:
    return states[0] if len(states) == 1 else tuple(states)


@dataclass
class CharRNN(TextRecipe):
    """Train a recurrent network to predict the next character of a text."""

    name: ClassVar[str] = "char-rnn"

    hidden: int = 512
    """Units of each recurrent layer."""
    layers: int = 1
    """Recurrent layers, one upon the other."""
    embedding: int = 256
    """Features of a character's embedding."""
    dropout: float = 0.2
    """Share of the features dropped before, between and after the recurrent layers."""
    seq_length: int = 100
    """T: characters of each stream in a batch, through which gradients flow back."""
    lr: float = 2e-3
    """Adam's learning rate at the start."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate falls to zero over --steps, if it does: constant, linear or cosine."""
    clip: float = 1.0
    """The largest joint norm of the gradient."""

    def resolve(self, info: DataInfo) -> None:
        super().resolve(info)
        if not 0 <= self.dropout < 1:
            raise UserError(f"--dropout must be in [0, 1), not {self.dropout}")
        self.require_above_zero("clip")
        assert self.batch_size is not None
        if self.steps is None:  # a multiple of 100
            steps = PASSES * 0.9 * info.count / (self.batch_size * self.seq_length)
            self.steps = int(min(max(100 * round(steps / 100), FEWEST), MOST))

    def build(self, info: DataInfo, data: Any) -> CharRNNTrainer:
        return CharRNNTrainer(self, info, data)
