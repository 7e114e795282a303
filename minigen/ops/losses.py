"""Losses, each the mean over all elements (or samples) of differentiable ops.

    bce_with_logits   softplus(x) - x t        = -[t log s(x) + (1 - t) log(1 - s(x))], s the sigmoid; never overflows
    cross_entropy     logsumexp(x) - x_t       x (N, K) logits, t (N,) class indices; fused, in `softmax.py`
    mse               (x - t)^2
    hinge             max(0, 1 - t x)          t = +1 or -1
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.ops.arithmetic import as_tensor, mul, square, sub
from minigen.ops.elementwise import softplus
from minigen.ops.example import example, off_kink
from minigen.ops.gather import on_device, together
from minigen.ops.piecewise import relu
from minigen.ops.reduce import mean
from minigen.ops.softmax import CrossEntropy
from minigen.tensor import Tensor


def _for(x: Tensor, target: Any, name: str) -> Tensor:
    """The target as a Tensor. One that would broadcast x, (4, 1) against (4,) say, is refused: it averages the wrong pairs."""
    t = as_tensor(target, x)
    if np.broadcast_shapes(x.shape, t.shape) != x.shape:
        raise ValueError(f"{name}: a target of shape {t.shape} for predictions of shape {x.shape}")
    return t


def bce_with_logits(x: Tensor, target: Any) -> Tensor:
    """Binary cross-entropy of sigmoid(x) against `target` in [0, 1] (a number, or a Tensor that broadcasts to x)."""
    if isinstance(target, (int, float)):  # the two targets of a GAN, without a multiplication
        return mean(softplus(x)) if target == 0 else mean(softplus(-x)) if target == 1 else mean(softplus(x) - x * target)
    return mean(softplus(x) - mul(x, _for(x, target, "bce_with_logits")))


def cross_entropy(x: Tensor, target: Any) -> Tensor:
    """x (N, K) logits, target (N,) integers in 0..K-1 (array or Tensor) -> mean of -log softmax(x)[target], in nats.

    Raises ValueError for other shapes and targets. Targets on the device stay there: one that is no class makes the loss NaN.
    TypeError if they are there and x is not.
    """
    index = target._data if isinstance(target, Tensor) else target
    index = index if on_device(index) else np.array(index)  # a copy: backward needs it as it was
    if x.ndim != 2 or index.shape != x.shape[:1]:
        raise ValueError(f"cross_entropy wants logits (N, K) and targets (N,), not {x.shape} and {index.shape}")
    in_range = on_device(index) or not index.size or 0 <= index.min() <= index.max() < x.shape[1]
    if index.dtype.kind not in "iu" or not in_range:
        raise ValueError(f"cross_entropy: targets must be integers in 0..{x.shape[1] - 1}")
    return mean(CrossEntropy(together(index, x.device))(x))


def mse(x: Tensor, target: Any) -> Tensor:
    """Mean squared error."""
    return mean(square(sub(x, _for(x, target, "mse"))))


def hinge(x: Tensor, target: Any) -> Tensor:
    """Mean of max(0, 1 - target * x) for targets +1 and -1."""
    return mean(relu(sub(1.0, mul(_for(x, target, "hinge"), x))))


_CLASSES = np.array([0, 3, 1])

EXAMPLES = {
    "bce_with_logits": [
        example(lambda x: bce_with_logits(x, 1), (4, 2)),
        example(lambda x: bce_with_logits(x, 0), (4,)),
        example(bce_with_logits, (3, 2), lambda rng: rng.random((3, 2))),
    ],
    "cross_entropy": [
        example(lambda x: cross_entropy(x, _CLASSES), (3, 4)),
        example(lambda x: CrossEntropy(together(_CLASSES, x.device))(x), (3, 4)),  # before the mean: cotangents that differ
    ],
    "mse": [example(mse, (3, 4), (3, 4))],
    "hinge": [
        example(lambda x: hinge(x, 1), off_kink(5, kinks=(1.0,))),
        example(lambda x: hinge(x, -1), off_kink(5, kinks=(-1.0,))),
    ],
}
