"""A caption is read, codes are written: p(k | caption) = prod_t p(k_t | k_1 .. k_{t-1}, caption).

S codes in raster order, T characters, D units of the writer, E of the reader.

    reader   e_j = GRU(character_j, e_{j-1})                 c = e_T, of each caption's own T    (Cho et al. 2014, section 2.2)
    writer   s_0 = tanh(V c),   s_t = GRU((f_t, c), s_{t-1})     f_t as in `code_prior.py`: the codes around t that come
             p(k_t | ..) = softmax(A s_t + b)                    before it, and where t is

With attention each step looks over all that was read, not only at its end (Luong et al. 2015, section 3, equations 5 to 8):

    a_tj = softmax_j(s_t^T W e_j),   v_t = sum_j a_tj e_j,   p(k_t | ..) = softmax(A tanh(U [v_t; s_t]) + b)

It stands after the recurrence: no s_t depends on any v_t, so all steps run at once, in a fused scan, and the looking is two
matrix products. What a step cannot know is where those before it looked (their input feeding, section 3.3).

No caption is one of no characters: c = 0 and v_t = 0. A net that saw both in training gives p(k | caption) and p(k).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from minigen import nn, ops
from minigen.autograd import no_grad
from minigen.models.code_prior import CodePrior
from minigen.models.pixel import _draw, _log_prob
from minigen.tensor import Tensor

Array = np.ndarray[Any, Any]
NEVER = -1e9  # a score whose weight is zero; not -inf, of which a row would give NaN


class Read(NamedTuple):
    """Captions that were read."""

    states: Tensor  # (T, N, E), after each character
    last: Tensor  # (N, E), after the last one
    mask: Array  # (T, N), False where a caption has ended


class Reader:
    """Indices of characters (T, N) and their mask -> what was read."""

    def __init__(self, characters: int, embedding: int, hidden: int) -> None:
        self.embedding = nn.Embedding(characters, embedding)
        self.rnn = nn.GRU(embedding, hidden)

    def __call__(self, index: Array, mask: Array) -> Read:
        states, last = self.rnn(self.embedding(index), mask=mask)
        return Read(states, last[0], mask)


def attend(query: Tensor, states: Tensor, mask: Array) -> Tensor:
    """query (S, N, E), states (T, N, E), mask (T, N) -> for each query the mean of the states, weighted by exp(query . state).

    Where the mask is False the weight is zero. If it is so everywhere, all states count alike.
    """
    over = ops.permute(states, (1, 0, 2))
    scores = ops.permute(query, (1, 0, 2)) @ ops.permute(states, (1, 2, 0))  # (N, S, T)
    weights = ops.softmax(ops.where(mask.T[:, None], scores, NEVER))
    return ops.transpose(weights @ over, 0, 1)


class Seq2Seq(CodePrior):
    """Codes are integers (N, h, w) in 0 .. num_codes-1; captions a pair (index, mask) as `Reader` takes them, or None."""

    def __init__(
        self, grid: Sequence[int], num_codes: int, characters: int, hidden: int = 256, embedding: int = 32, context: int = 2,
        read: int = 128, attention: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(grid, num_codes, "gru", hidden, embedding, context, classes=read)  # c in the label's place
        self.reader = Reader(characters, embedding, read)
        self.start = nn.Linear(read, hidden)
        self.query = nn.Linear(hidden, read, bias=False) if attention else None
        self.joined = nn.Linear(read + hidden, hidden) if attention else None

    def read(self, captions: Any, n: int) -> Read:
        return self.reader(*(captions or (np.zeros((1, n), np.int64), np.zeros((1, n), bool))))

    def logits(self, x: Array, captions: Any = None) -> Tensor:
        """Logits (S, N, 1, num_codes) of each code, given those before it."""
        seen = self._seen(self._sequence(x))[:, self._reads].swapaxes(0, 1)  # (S, N, F)
        steps, n, _ = seen.shape
        read = self.read(captions, n)
        where = np.broadcast_to(self._where[:, None], (steps, n, self._where.shape[1]))
        told = ops.broadcast_to(read.last, (steps, *read.last.shape))
        states, _ = self.rnn(self._inputs(seen, where, told), self._begin(read))
        return self._unpacked(self._judged(states, read))

    def generate(  # type: ignore[override]  # there are no rows given
        self, rng: np.random.Generator, n: int, captions: Any = None
    ) -> tuple[Array, Array]:
        """Draw n grids of codes (N, 1, h, w), and log p of each (N,). Captions are read once; the writer's state is kept."""
        drawn, total = np.zeros((n, self.values), np.int64), np.zeros(n)
        seen = self._seen(drawn)
        with no_grad():
            read = self.read(captions, n)
            state = self._begin(read)
            for t in range(self.steps):
                where = np.broadcast_to(self._where[t], (n, self._where.shape[1]))
                s, state = self.rnn.step(self._inputs(seen[:, self._reads[t]], where, read.last), state)
                logits = self._unpacked(self._judged(ops.reshape(s, (1, *s.shape)), read)).data[0]
                drawn[:, t : t + 1] = seen[:, t : t + 1] = _draw(rng, logits, self.levels)
                total += _log_prob(logits, drawn[:, t : t + 1], self.levels).sum(axis=1, dtype=np.float64)
        return drawn.reshape(n, *self.shape), total

    def _begin(self, read: Read) -> Tensor:
        """s_0: (1, N, D)"""
        return ops.reshape(ops.tanh(self.start(read.last)), (1, read.last.shape[0], -1))

    def _judged(self, states: Tensor, read: Read) -> Tensor:
        """The writer's states (S, N, D) -> what the softmax is taken of."""
        if self.query is not None and self.joined is not None:
            found = attend(self.query(states), read.states, read.mask)
            states = ops.tanh(self.joined(ops.concatenate([found, states], 2)))
        return self.out(states)

    def _inputs(self, seen: Array, where: Array, told: Any) -> Tensor:
        vectors = ops.reshape(self.embedding(seen), (*seen.shape[:-1], -1))
        return ops.concatenate([vectors, Tensor(where), told], vectors.ndim - 1)
