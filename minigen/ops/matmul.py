"""Matrix products. C = A B is bilinear, so its gradients are matrix products again:

    dA = dC B^T        dB = A^T dC

and every higher order follows from the same line. `linear` is y = act(x W^T + b), with PyTorch's weight layout (out, in) and
leaky ReLU for act, in one kernel; with d = dy act', read off the sign of y as in `bias_act.py`,

    dx = d W        dW = d^T x        db = sum over N of d
"""

from __future__ import annotations

import math
from typing import Any

from minigen.autograd import Op
from minigen.dispatch import kernel
from minigen.ops.arithmetic import pair, sum_to
from minigen.ops.bias_act import BiasActGrad, act, check_slope
from minigen.ops.example import example
from minigen.ops.piecewise import leaky_relu
from minigen.ops.shape import reshape, transpose
from minigen.tensor import Tensor


@kernel("matmul")
def matmul_forward(a_mk, b_kn):
    """(..., M, K) @ (..., K, N) -> (..., M, N); leading axes broadcast."""
    return a_mk @ b_kn


@kernel("matmul")
def linear_forward(x_ni, w_oi, bias_o, negative_slope):
    """-> y (N, O)."""
    return act(x_ni @ w_oi.T + bias_o, negative_slope)


class MatMul(Op):
    def forward(self, a, b):
        return matmul_forward(a, b)

    def backward(self, dc):
        a, b = self.inputs
        da = sum_to(MatMul()(dc, transpose(b, -2, -1)), a.shape) if self.needs[0] else None
        db = sum_to(MatMul()(transpose(a, -2, -1), dc), b.shape) if self.needs[1] else None
        return da, db


def matmul(a: Any, b: Any) -> Tensor:
    """a @ b for a (..., M, K) and b (..., K, N); a vector on either side is a matrix with one row or column."""
    a, b = pair(a, b)
    row, column = a.ndim == 1, b.ndim == 1
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError("matmul needs at least one axis on each side; use * for numbers")
    if row:
        a = reshape(a, (1, a.size))
    if column:
        b = reshape(b, (b.size, 1))
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul: inner sizes differ, {a.shape} @ {b.shape}")
    c = MatMul()(a, b)
    if row and column:
        return reshape(c, ())
    return reshape(c, c.shape[:-2] + c.shape[-1:]) if row else reshape(c, c.shape[:-1]) if column else c


class LinearMap(Op):
    """y = x W^T for x (N, in), W (out, in). Its own Op so that dW = dy^T x comes out in W's layout, not transposed."""

    def forward(self, x, weight):
        return matmul_forward(x, weight.T)

    def backward(self, dy):
        x, weight = self.inputs
        return _linear_gradients(dy, x, weight, self.needs)


class Linear(Op):
    """y = act(x W^T + b), b (out,)."""

    def __init__(self, negative_slope: float) -> None:
        self.negative_slope = negative_slope

    def forward(self, x, weight, bias):
        self.y = linear_forward(x, weight, bias, self.negative_slope)
        return self.y

    def backward(self, dy):
        x, weight, _ = self.inputs
        d, dbias = BiasActGrad(self.y, self.negative_slope)(dy)
        return (*_linear_gradients(d, x, weight, self.needs), dbias)


def _linear_gradients(d: Tensor, x: Tensor, weight: Tensor, needs: tuple[bool, ...]) -> tuple[Tensor | None, Tensor | None]:
    return MatMul()(d, weight) if needs[0] else None, MatMul()(transpose(d, 0, 1), x) if needs[1] else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, negative_slope: float = 1.0) -> Tensor:
    """x (..., in) -> (..., out): x W^T + b, with W (out, in) and b (out,); then a leaky ReLU (slope 1: none, 0: ReLU)."""
    if x.shape[-1] != weight.shape[1]:
        raise ValueError(f"linear: x has {x.shape[-1]} features, the weight {weight.shape} wants {weight.shape[1]}")
    # One 2-D product whatever the leading axes: a batched product would give W a gradient to sum over the batch.
    rows = x if x.ndim == 2 else reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))
    if bias is not None:
        if bias.shape != weight.shape[:1]:
            raise ValueError(f"linear: a bias of shape {bias.shape} for {weight.shape[0]} outputs")
        check_slope(negative_slope)
        y = Linear(negative_slope)(rows, weight, bias)
    else:
        y = LinearMap()(rows, weight)
        y = y if negative_slope == 1.0 else leaky_relu(y, negative_slope)
    return y if x.ndim == 2 else reshape(y, x.shape[:-1] + y.shape[1:])


EXAMPLES = {
    "matmul": [
        example(matmul, (3, 4), (4, 2)),
        example(matmul, (2, 3, 4), (4, 2)),
        example(matmul, (1, 3, 4), (2, 4, 2)),
        example(matmul, (4,), (4, 2)),
    ],
    "linear": [
        example(linear, (3, 4), (2, 4), (2,)),
        example(lambda x, w, b: linear(x, w, b, 0.2), (3, 4), (2, 4), (2,)),
        example(linear, (2, 3, 4), (2, 4)),
    ],
}
