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
from minigen.models.code_prior import CodePrior
from minigen.models.pixel import _spread
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

    def _told(self, captions: Any, n: int) -> Any:
        return captions or (np.zeros((1, n), np.int64), np.zeros((1, n), bool))

    def _understood(self, told: Any) -> Read:
        return self.reader(*told)

    def _and_untold(self, captions: Any, n: int) -> Any:
        return tuple(np.pad(a, ((0, 0), (0, n))) for a in captions)  # a mask of False

    def _begin(self, told: Read) -> Tensor:
        """s_0: (1, N, D)"""
        return ops.reshape(ops.tanh(self.start(told.last)), (1, told.last.shape[0], -1))

    def _inputs(self, seen: Any, where: Any, told: Read) -> Tensor:
        vectors = ops.reshape(self.embedding(seen), (*seen.shape[:-1], -1))
        caption = ops.broadcast_to(told.last, (*seen.shape[:-1], told.last.shape[-1]))
        position = Tensor(_spread(seen, where)[0])
        return ops.concatenate([vectors, position, caption], vectors.ndim - 1)

    def _judged(self, states: Tensor, told: Read) -> Tensor:
        if self.query is None or self.joined is None:
            return self.out(states)
        steps = ops.reshape(states, (-1, *states.shape[-2:]))
        found = attend(self.query(steps), told.states, told.mask)
        out = self.out(ops.tanh(self.joined(ops.concatenate([found, steps], 2))))
        return ops.reshape(out, (*states.shape[:-1], -1))
