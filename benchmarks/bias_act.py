"""Bias and leaky ReLU after the layers of the GANs, batch 64: one multiply-add and one product for each element."""

from __future__ import annotations

from typing import Any

from benchmarks.harness.case import Case, normal

SHAPES = [(64, 256, 1), (64, 64, 196), (128, 64, 256)]  # (N, C, L): a linear layer, a convolution, the critic's two batches
SLOPE = 0.2


def cases() -> list[Case]:
    made = []
    for n, c, l in SHAPES:
        size, shape = n * c * l, f"{n}x{c}x{l}"
        made += [
            Case("bias_act_forward", shape, normal((n, c, l), (c,), then=(SLOPE,)), 3 * size, 8 * size, _forward),
            Case("bias_act_backward", shape, normal((n, c, l), (n, c, l), then=(SLOPE,)), 2 * size, 12 * size, _backward),
        ]
    return made


def _forward(x: Any, bias: Any, slope: float) -> Any:
    from torch.nn.functional import leaky_relu

    return leaky_relu(x + bias[:, None], slope)


def _backward(dy: Any, y: Any, slope: float) -> Any:
    import torch

    dx = torch.ops.aten.leaky_relu_backward(dy, y, slope, True)
    return dx, dx.sum((0, 2))
