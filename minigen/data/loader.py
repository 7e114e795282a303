"""Shuffled batches whose order can be resumed.

The order of epoch e is one permutation, drawn from PCG64 seeded with (seed, e) and nothing else. So two
integers, (epoch, position), say exactly where a run stands, and a run that was killed continues bit for bit:

    loader = Loader(data.images, data.labels, batch_size=64, seed=0)
    x, y = loader.next()
    saved = loader.state_dict()      # into the checkpoint
    loader.load_state_dict(saved)    # in the next process
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from minigen.data.dataset import to_float
from minigen.errors import UserError


class Loader:
    """Endless shuffled batches; a last batch shorter than `batch_size` is dropped and the next epoch begins.

    images  uint8 (N, C, H, W), or float32 (N, 2) points
    labels  int64 (N,) or None
    seed    an integer >= 0

    Raises UserError when N < batch_size or batch_size < 1.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray | None, batch_size: int, seed: int = 0) -> None:
        if batch_size < 1:
            raise UserError(f"the batch size must be at least 1, not {batch_size}")
        if seed < 0:
            raise UserError(f"the seed must not be negative, not {seed}")
        if len(images) < batch_size:
            raise UserError(f"the data has {len(images)} examples, fewer than one batch of {batch_size}")
        if labels is not None and len(labels) != len(images):
            raise ValueError(f"{len(images)} images but {len(labels)} labels")
        self.images = images
        self.labels = labels
        self.batch_size = batch_size
        self.seed = seed
        self._epoch = 0
        self._position = 0
        self._order = self._permutation(0)

    @property
    def epoch(self) -> int:
        """The epoch the last batch came from, counted from 0."""
        return self._epoch

    @property
    def batches_per_epoch(self) -> int:
        return len(self.images) // self.batch_size

    def next(self) -> tuple[np.ndarray, np.ndarray | None]:
        """One batch: x float32 (B, C, H, W) in [-1, 1], or points (B, 2); labels int64 (B,) or None."""
        if self._position + self.batch_size > len(self.images):
            self._epoch += 1
            self._position = 0
            self._order = self._permutation(self._epoch)
        rows = self._order[self._position : self._position + self.batch_size]
        self._position += self.batch_size
        x = self.images[rows]
        labels = None if self.labels is None else self.labels[rows]
        return (to_float(x) if x.dtype == np.uint8 else x), labels

    def state_dict(self) -> dict[str, np.ndarray]:
        """position, int64 (2,): the epoch, and how many examples of it were already drawn."""
        return {"position": np.array([self._epoch, self._position], np.int64)}

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from a `state_dict()`. Raises UserError when it cannot belong to data of this size."""
        epoch, position = (int(i) for i in arrays["position"])
        if epoch < 0 or not 0 <= position <= len(self.images):
            raise UserError(
                f"cannot resume at epoch {epoch}, example {position}: the data has {len(self.images)}"
            )
        self._epoch, self._position = epoch, position
        self._order = self._permutation(self._epoch)

    def _permutation(self, epoch: int) -> np.ndarray:
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, epoch])))
        return generator.permutation(len(self.images))
