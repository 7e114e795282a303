"""Networks that write and judge characters. V characters, E features of an embedding, D hidden units, N texts, T steps.

    CharRNN         index -> Embedding (V, E) -> RNN, GRU or LSTM (E -> D) -> Linear (D -> V): logits of the next character
    TextGenerator   the same, and one more embedding, which stands before the first character; it can write inside the graph
    TextCritic      one-hots (N, T, V) -> Linear (V -> E), no bias -> GRU (E -> D) -> mean over the steps -> Linear (D -> 1)

Dropout stands on what goes into the recurrent layers, between them and after them, never on the state (Zaremba et al. 2014).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen import nn, ops
from minigen.device import constant, place
from minigen.tensor import Tensor


class CharRNN:
    """Logits of the next character, after each character read."""

    def __init__(
        self, characters: int, embedding: int, hidden: int, layers: int = 1, cell: str = "gru", dropout: float = 0.0,
        symbols: int = 0,
    ) -> None:  # fmt: skip
        """symbols: embeddings beside those of the characters, at indices V, V + 1, ..; they are read but never written."""
        self.characters = characters
        self.embedding = nn.Embedding(characters + symbols, embedding)
        self.dropout = nn.Dropout(dropout)
        self.rnn = nn.CELLS[cell](embedding, hidden, layers, dropout=dropout)
        self.head = nn.Linear(hidden, characters)

    def __call__(self, index: Any, state: Any = None) -> tuple[Tensor, Any]:
        """index (T, N) of integers, the state that an earlier call returned -> logits (T, N, V), state."""
        out, state = self.rnn(self.dropout(self.embedding(index)), state)
        return self.head(self.dropout(out)), state

    def step(self, index: Any, state: Any = None) -> tuple[Tensor, Any]:
        """One character: index (N,) -> logits (N, V), state."""
        return self.read(self.embedding(index), state)

    def read(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One step from an embedding (N, E) -> logits (N, V), state."""
        out, state = self.rnn.step(self.dropout(x), state)
        return self.head(self.dropout(out)), state


class TextGenerator(CharRNN):
    """A CharRNN that begins from nothing, and whose own characters may carry gradients."""

    def __init__(self, characters: int, embedding: int, hidden: int, layers: int = 1, cell: str = "gru") -> None:
        super().__init__(characters, embedding, hidden, layers, cell, symbols=1)

    @property
    def begin(self) -> int:
        """The index that stands before the first character."""
        return self.characters

    def write(self, noise: Any, temperature: float, hard: bool) -> Tensor:
        """T steps of free running, in the graph: noise (T, N, V) from a Gumbel distribution -> (N, T, V).

        With l the logits after what was written so far, and g the noise,

            y = softmax((l + g) / temperature)              what is written, and read at the next step

        The largest entry of l + g is an exact draw from softmax(l). `hard` writes its one-hot, and takes y's gradient for it.

        What is read back carries no gradient. Each character changes those that follow, and through a chain of 32 draws the
        gradient of that grows ten-thousandfold and points nowhere; through the state, and within a step, it is well behaved.
        """
        x = self.embedding(constant(np.full, noise.shape[1], self.begin))
        table, state, written = self.embedding.weight[: self.characters], None, []
        for g in noise:
            logits, state = self.read(x, state)
            y = ops.softmax((logits + Tensor(place(g))) * (1 / temperature))
            if hard:
                chosen = one_hot(y.data.argmax(1), self.characters)
                y = y + Tensor(chosen - y.data)  # one's value, the other's gradient
            x = y.detach() @ table
            written.append(y)
        return ops.stack(written, 1)


class TextCritic:
    """One score for each text (N, T, V): a logit for a GAN, unbounded for a WGAN."""

    def __init__(self, characters: int, embedding: int, hidden: int) -> None:
        self.embedding = nn.Linear(characters, embedding, bias=False)
        self.embedding.weight = nn.init.uniform((embedding, characters), 1.0)  # of a one-hot's entries a single one counts
        self.rnn = nn.GRU(embedding, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 1)

    def __call__(self, x: Tensor, labels: Any = None) -> Tensor:
        out, _ = self.rnn(self.embedding(x))
        return ops.reshape(self.head(out.mean(1)), (x.shape[0],))


    def read_like(self, generator: TextGenerator) -> None:
        """Begin from the embedding of a generator of the same sizes, and from its first recurrent layer if that is a GRU."""
        self.embedding.weight.assign(generator.embedding.weight.data[: generator.characters].T)
        if isinstance(generator.rnn, nn.GRU):
            for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
                getattr(self.rnn, name).assign(getattr(generator.rnn, name).data)


def one_hot(index: Any, characters: int) -> Any:
    """Integers (...) -> float32 (..., V), where the index is."""
    return ops.one_hot(index, characters).data
