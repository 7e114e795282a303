"""The pixel net of `pixel.py` over a grid of codes: p(k) = prod_t p(k_t | k_1 .. k_{t-1}, label).

A pixel's value is a quantity and enters as a number; a code is a name and enters as a vector, learned for each. What lies
outside the grid has a vector too. A label enters as one-hot; where it is -1 it enters as zeros, and a net that saw both in
training gives p(k | label) and p(k).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigen import nn, ops
from minigen.models.pixel import PixelRNN, _spread
from minigen.tensor import Tensor

Array = np.ndarray[Any, Any]


class CodePrior(PixelRNN):
    """Codes are integers (N, h, w) in 0 .. num_codes-1; labels (N,), -1 where there is none, or None."""

    _bernoulli = False

    def __init__(
        self, grid: Sequence[int], num_codes: int, cell: str = "gru", hidden: int = 256, embedding: int = 32, context: int = 2,
        classes: int = 0,
    ) -> None:  # fmt: skip
        self._features, self._outside = embedding, num_codes
        self.embedding = nn.Embedding(num_codes + 1, embedding)
        super().__init__((1, *grid), cell, hidden, "pixel", context, num_codes, classes)

    def _fed(self, x: Array) -> Array:
        return x

    def _inputs(self, seen: Any, where: Any, told: Any) -> Tensor:
        vectors = ops.reshape(self.embedding(seen), (*seen.shape[:-1], -1))
        return ops.concatenate([vectors, Tensor(np.concatenate(_spread(seen, where, told), -1))], vectors.ndim - 1)

    def _and_untold(self, labels: Any, n: int) -> Any:
        return np.concatenate([labels, np.full(n, -1)])

    def _told(self, labels: Any, n: int) -> Any:
        labels = np.full(n, -1) if labels is None else np.asarray(labels)
        return np.concatenate([np.eye(self.classes, dtype=np.float32), np.zeros((1, self.classes), np.float32)])[labels]
