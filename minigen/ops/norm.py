"""Batch and layer normalisation: subtract a mean, divide by a standard deviation, scale and shift.

Notation: m values x share one mean and variance; w and b are the scale and shift; xh = (x - mean) / std.

    forward     y  = act(w xh + b),   std = sqrt(var + eps), var biased (divided by m)
    backward    d  = dy act'(y),  db = sum d,  dw = sum(d xh),  dx = (w / std) (d - db / m - xh dw / m)

(Ioffe and Szegedy 2015, section 3; Ba et al. 2016, section 3.) The m values are one channel over the batch and all
positions (batch norm) or one sample's features (layer norm, where w multiplies d *before* the two sums). `act` is a leaky
ReLU fused in because it costs nothing there: slope 1 is no activation, 0 is ReLU. Its mask is read off the sign of y.

Both gradients are fused too, as Ops of their own. Their gradient, the second order, is that of the formulas above written
as an expression: see `_batch_norm_gradient`, which a reader may take as the definition of the fused backward.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigen.autograd import Op
from minigen.dispatch import kernel
from minigen.ops.arithmetic import square
from minigen.ops.bias_act import act, by_channel, check_slope, through
from minigen.ops.elementwise import sqrt
from minigen.ops.example import example
from minigen.ops.piecewise import leaky_relu, slopes
from minigen.ops.shape import reshape
from minigen.ops.vjp import vjp
from minigen.tensor import Tensor


@kernel("norm")
def batch_norm_forward(x_ncl, weight_c, bias_c, eps, negative_slope):
    """x (N, C, L) -> y (N, C, L), mean (C,), 1 / std (C,). Statistics over N and L."""
    mean_c = x_ncl.mean(axis=(0, 2))
    centred = x_ncl - mean_c[:, None]
    inv_std_c = 1.0 / np.sqrt((centred * centred).mean(axis=(0, 2)) + eps)
    y_ncl = act(centred * (weight_c * inv_std_c)[:, None] + bias_c[:, None], negative_slope)
    return y_ncl, mean_c, inv_std_c


@kernel("norm")
def batch_norm_backward(dy_ncl, x_ncl, y_ncl, mean_c, inv_std_c, weight_c, negative_slope):
    """-> dx (N, C, L), dweight (C,), dbias (C,)."""
    m = x_ncl.shape[0] * x_ncl.shape[2]
    d = through(dy_ncl, y_ncl, negative_slope)
    xh = (x_ncl - mean_c[:, None]) * inv_std_c[:, None]
    dbias_c = d.sum(axis=(0, 2))
    dweight_c = (d * xh).sum(axis=(0, 2))
    dx_ncl = (weight_c * inv_std_c)[:, None] * (d - (dbias_c / m)[:, None] - xh * (dweight_c / m)[:, None])
    return dx_ncl, dweight_c, dbias_c


@kernel("norm")
def layer_norm_forward(x_nd, weight_d, bias_d, eps):
    """x (N, D) -> y (N, D), mean (N,), 1 / std (N,). Statistics over D."""
    mean_n = x_nd.mean(axis=1)
    centred = x_nd - mean_n[:, None]
    inv_std_n = 1.0 / np.sqrt((centred * centred).mean(axis=1) + eps)
    return centred * inv_std_n[:, None] * weight_d + bias_d, mean_n, inv_std_n


@kernel("norm")
def layer_norm_backward(dy_nd, x_nd, mean_n, inv_std_n, weight_d):
    """-> dx (N, D), dweight (D,), dbias (D,)."""
    xh = (x_nd - mean_n[:, None]) * inv_std_n[:, None]
    d = dy_nd * weight_d
    dx_nd = inv_std_n[:, None] * (d - d.mean(axis=1)[:, None] - xh * (d * xh).mean(axis=1)[:, None])
    return dx_nd, (dy_nd * xh).sum(axis=0), dy_nd.sum(axis=0)


class BatchNorm(Op):
    """x (N, C, L), weight (C,), bias (C,). After the call, `mean` and `inv_std` hold the statistics (arrays)."""

    def __init__(self, eps: float, negative_slope: float) -> None:
        self.eps, self.negative_slope = eps, negative_slope

    def forward(self, x, weight, bias):
        y, self.mean, self.inv_std = batch_norm_forward(x, weight, bias, self.eps, self.negative_slope)
        self.y = y
        return y

    def backward(self, dy):
        x, weight, _ = self.inputs
        saved = (self.y, self.mean, self.inv_std)
        return BatchNormGrad(self.eps, self.negative_slope, saved)(dy, x, weight)


class BatchNormGrad(Op):
    outputs = 3

    def __init__(self, eps: float, negative_slope: float, saved: tuple[Any, Any, Any]) -> None:
        self.eps, self.negative_slope, self.saved = eps, negative_slope, saved

    def forward(self, dy, x, weight):
        y, mean, inv_std = self.saved
        return batch_norm_backward(dy, x, y, mean, inv_std, weight, self.negative_slope)

    def backward(self, *cotangents):
        y = self.saved[0]
        mask = Tensor(slopes(y, self.negative_slope))
        eps = self.eps
        return vjp(lambda dy, x, w: _batch_norm_gradient(dy * mask, x, w, eps), self.inputs, cotangents, self.needs)


def _batch_norm_gradient(d: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The backward formulas at the head of this file, as an expression."""
    centred = x - x.mean((0, 2), keepdim=True)
    inv_std = 1.0 / sqrt(square(centred).mean((0, 2), keepdim=True) + eps)
    xh = centred * inv_std
    dbias, dweight = d.sum((0, 2)), (d * xh).sum((0, 2))
    scale = reshape(weight, (1, -1, 1)) * inv_std
    dx = scale * (d - d.mean((0, 2), keepdim=True) - xh * (d * xh).mean((0, 2), keepdim=True))
    return dx, dweight, dbias


class LayerNorm(Op):
    """x (N, D), weight (D,), bias (D,)."""

    def __init__(self, eps: float) -> None:
        self.eps = eps

    def forward(self, x, weight, bias):
        y, self.mean, self.inv_std = layer_norm_forward(x, weight, bias, self.eps)
        return y

    def backward(self, dy):
        x, weight, _ = self.inputs
        return LayerNormGrad(self.eps, (self.mean, self.inv_std))(dy, x, weight)


class LayerNormGrad(Op):
    outputs = 3

    def __init__(self, eps: float, saved: tuple[Any, Any]) -> None:
        self.eps, self.saved = eps, saved

    def forward(self, dy, x, weight):
        return layer_norm_backward(dy, x, *self.saved, weight)

    def backward(self, *cotangents):
        eps = self.eps
        return vjp(lambda dy, x, w: _layer_norm_gradient(dy, x, w, eps), self.inputs, cotangents, self.needs)


def _layer_norm_gradient(dy: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    centred = x - x.mean(1, keepdim=True)
    inv_std = 1.0 / sqrt(square(centred).mean(1, keepdim=True) + eps)
    xh = centred * inv_std
    d = dy * weight
    dx = inv_std * (d - d.mean(1, keepdim=True) - xh * (d * xh).mean(1, keepdim=True))
    return dx, (dy * xh).sum(0), dy.sum(0)


def batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Any = None,
    running_var: Any = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    negative_slope: float = 1.0,
) -> Tensor:
    """x (N, C, ...), normalised per channel; then a leaky ReLU with `negative_slope` (1: none, 0: ReLU).

    In training the batch's own statistics are used, and the arrays `running_mean`, `running_var` (C,), if given, move
    towards them by `momentum` in place (the variance unbiased, as in PyTorch). Otherwise the running ones are used, and
    nothing moves.
    """
    shape = x.shape
    check_slope(negative_slope)
    flat = reshape(x, by_channel(shape))
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm outside training needs running statistics")
        scale = weight / Tensor(np.sqrt(running_var + x.dtype.type(eps)))
        shift = bias - scale * Tensor(running_mean)
        y = flat * reshape(scale, (1, -1, 1)) + reshape(shift, (1, -1, 1))
        return reshape(y if negative_slope == 1.0 else leaky_relu(y, negative_slope), shape)
    m = flat.shape[0] * flat.shape[2]
    if m < 2:
        raise ValueError("batch_norm in training needs more than one value per channel")
    op = BatchNorm(eps, negative_slope)
    y = op(flat, weight, bias)
    if running_mean is not None:
        var = 1.0 / np.square(op.inv_std) - eps
        running_mean += momentum * (op.mean - running_mean)
        running_var += momentum * (var * (m / (m - 1)) - running_var)
    return reshape(y, shape)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """x normalised over its trailing axes, those of `weight` and `bias`, each sample by itself."""
    inner = weight.shape
    if x.shape[x.ndim - len(inner) :] != inner:
        raise ValueError(f"layer_norm: x {x.shape} does not end in the normalised shape {inner}")
    rows = math.prod(x.shape[: x.ndim - len(inner)])
    y = LayerNorm(eps)(reshape(x, (rows, weight.size)), reshape(weight, (-1,)), reshape(bias, (-1,)))
    return reshape(y, x.shape)


def _fixed_statistics(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return batch_norm(x, w, b, np.array([0.1, -0.2]), np.array([1.5, 0.7]), training=False)


EXAMPLES = {
    "batch_norm": [
        example(batch_norm, (4, 3), (3,), (3,)),
        example(lambda x, w, b: batch_norm(x, w, b, negative_slope=0.2), (3, 2, 2, 2), (2,), (2,)),
        example(_fixed_statistics, (3, 2), (2,), (2,)),
    ],
    "layer_norm": [
        example(layer_norm, (3, 5), (5,), (5,)),
        example(layer_norm, (2, 3, 2, 2), (3, 2, 2), (3, 2, 2)),
    ],
}
