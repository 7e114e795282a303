"""Picking rows, and adding them back: the embedding of 6400 characters, and of the codes of 64 images. Traffic alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness.case import Args, Case

SHAPES = [(256, 512, (64, 100)), (512, 64, (64, 8, 8))]  # rows to choose from, their length, shape of the index


def cases() -> list[Case]:
    made = []
    for v, d, index in SHAPES:
        rows, shape = int(np.prod(index)), f"{v}x{d}, {'x'.join(map(str, index))}"
        made += [
            Case("gather_forward", shape, _args((v, d), v, index), 0, 4 * (v * d + rows * d) + 8 * rows, _gather),
            Case(
                "scatter_add_forward", shape, _args((*index, d), v, index, v), rows * d, 4 * (rows * d + v * d) + 8 * rows,
                _scatter_add,
            ),
        ]  # fmt: skip
    return made


def _args(values: tuple[int, ...], v: int, index: tuple[int, ...], *then: int) -> Any:
    def draw(rng: np.random.Generator) -> Args:
        return rng.standard_normal(values, dtype=np.float32), rng.integers(0, v, index), *then

    return draw


def _gather(w: Any, index: Any) -> Any:
    from torch.nn.functional import embedding

    return embedding(index, w)


def _scatter_add(y: Any, index: Any, size: int) -> Any:
    return y.new_zeros(size, y.shape[-1]).index_add_(0, index.flatten(), y.flatten(0, -2))
