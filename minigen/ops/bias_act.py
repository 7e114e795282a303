"""Bias and leaky ReLU in one pass: y = act(x + b), x (N, C, L), b (C,); slope 1 is no activation, 0 is ReLU.

    d = dy act'(y),  dx = d,  db = sum over N and L of d

The mask act' is read off the sign of y, so nothing but y is kept. The gradient is linear in dy with a constant mask, so
its own gradient is one line: (ddx + ddb) times the mask.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigen.autograd import Op
from minigen.dispatch import kernel
from minigen.ops.example import example
from minigen.ops.piecewise import slopes
from minigen.ops.shape import reshape
from minigen.tensor import Tensor


def act(a, slope):
    """Leaky ReLU. ReLU of -inf is 0, not 0 * inf; NaN stays NaN."""
    return np.where(a.real <= 0, slope * a if slope else 0, a).astype(a.dtype)


def through(d, y, slope):
    """d act', read off the sign of y."""
    return np.where(y.real > 0, d, slope * d if slope else 0).astype(d.dtype)


@kernel("bias_act")
def bias_act_forward(x_ncl, bias_c, negative_slope):
    """-> y (N, C, L)."""
    return act(x_ncl + bias_c[:, None], negative_slope)


@kernel("bias_act")
def bias_act_backward(dy_ncl, y_ncl, negative_slope):
    """-> dx (N, C, L), dbias (C,)."""
    dx_ncl = through(dy_ncl, y_ncl, negative_slope)
    return dx_ncl, dx_ncl.sum(axis=(0, 2))


class BiasAct(Op):
    """x (N, C, ...), bias (C,)."""

    def __init__(self, negative_slope: float) -> None:
        self.negative_slope = negative_slope

    def forward(self, x, bias):
        self.y = bias_act_forward(x.reshape(by_channel(x.shape)), bias, self.negative_slope).reshape(x.shape)
        return self.y

    def backward(self, dy):
        return BiasActGrad(self.y, self.negative_slope)(dy)


class BiasActGrad(Op):
    outputs = 2

    def __init__(self, y: Any, negative_slope: float) -> None:
        self.y, self.negative_slope = y, negative_slope

    def forward(self, dy):
        ncl = by_channel(dy.shape)
        dx, dbias = bias_act_backward(dy.reshape(ncl), self.y.reshape(ncl), self.negative_slope)
        return dx.reshape(dy.shape), dbias

    def backward(self, ddx, ddb):
        mask = Tensor(slopes(self.y, self.negative_slope))
        terms = [] if ddx is None else [ddx]
        if ddb is not None:
            terms.append(reshape(ddb, (-1,) + (1,) * (self.y.ndim - 2)))
        return ((terms[0] if len(terms) == 1 else terms[0] + terms[1]) * mask,)


def by_channel(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(N, C, ...) -> (N, C, L). Counted, because reshape's -1 has no answer for an empty batch."""
    return shape[0], shape[1], math.prod(shape[2:])


def check_slope(negative_slope: float) -> None:
    if not negative_slope >= 0:
        raise ValueError(f"a fused activation reads its mask off the output's sign: negative_slope >= 0, not {negative_slope}")


def bias_act(x: Tensor, bias: Tensor, negative_slope: float = 1.0) -> Tensor:
    """x (N, C, ...) plus bias (C,), then a leaky ReLU with `negative_slope` (1: none, 0: ReLU)."""
    if bias.shape != x.shape[1:2]:
        raise ValueError(f"bias_act: a bias of shape {bias.shape} for {x.shape[1]} channels")
    check_slope(negative_slope)
    return BiasAct(negative_slope)(x, bias)


EXAMPLES = {
    "bias_act": [
        example(lambda x, b: bias_act(x, b, 0.2), (3, 2, 2, 2), (2,)),
        example(lambda x, b: bias_act(x, b, 0.0), (3, 4), (4,)),
        example(bias_act, (3, 2, 2), (2,)),
    ]
}
