"""The softmax and the cross-entropy of characters and of pixel values: e^x is counted as 20 operations, a maximum as one."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness.case import Args, Case, normal

SHAPES = [(6400, 65), (50176, 256)]  # 64 streams of 100 characters; a batch of 64 images of 784 pixels of 256 values
EXP = 20


def cases() -> list[Case]:
    made = []
    for n, k in SHAPES:
        size, of_rows, shape = n * k, 12 * n, f"{n}x{k}"  # of a row: its target, and one number
        x, pair, forward, backward = normal((n, k)), normal((n, k), (n, k)), _targets(n, k), _targets(n, k, (n,))
        made += [
            Case("softmax_forward", shape, x, (EXP + 4) * size, 8 * size, _softmax),
            Case("softmax_backward", shape, pair, 4 * size, 12 * size, _softmax_backward),
            Case("log_softmax_forward", shape, x, (EXP + 5) * size, 8 * size, _log_softmax),
            Case("log_softmax_backward", shape, pair, (EXP + 3) * size, 12 * size, _log_softmax_backward),
            Case("cross_entropy_forward", shape, forward, (EXP + 3) * size, 4 * size + of_rows, _cross_entropy),
            Case("cross_entropy_backward", shape, backward, (EXP + 5) * size, 8 * size + of_rows, _cross_entropy_backward),
        ]
    return made


def _targets(n: int, k: int, *before: tuple[int, ...]) -> Any:
    def draw(rng: np.random.Generator) -> Args:
        return *normal(*before, (n, k))(rng), rng.integers(0, k, n)

    return draw


def _softmax(x: Any) -> Any:
    return x.softmax(1)


def _softmax_backward(dy: Any, y: Any) -> Any:
    import torch

    return torch.ops.aten._softmax_backward_data(dy, y, 1, y.dtype)


def _log_softmax(x: Any) -> Any:
    return x.log_softmax(1)


def _log_softmax_backward(dl: Any, l: Any) -> Any:
    import torch

    return torch.ops.aten._log_softmax_backward_data(dl, l, 1, l.dtype)


def _cross_entropy(x: Any, target: Any) -> Any:
    from torch.nn.functional import cross_entropy

    return cross_entropy(x, target, reduction="none")


def _cross_entropy_backward(dnll: Any, x: Any, target: Any) -> Any:
    import torch

    p = x.softmax(1)
    p[torch.arange(len(p), device=p.device), target] -= 1
    return p * dnll[:, None]
