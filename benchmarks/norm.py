"""Batch norm (with the leaky ReLU that follows it) and layer norm in the DCGANs, batch 64.

Operations on each element: forward 3 for mean and variance, 2 for the result, 1 for the activation; backward about 9.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness.case import Args, Case, normal, reference

BATCH = [(64, 128, 49), (64, 64, 196), (64, 128, 64), (64, 64, 256)]  # (N, C, L)
LAYER = [(64, 6272), (128, 8192)]  # (N, D)
SLOPE, EPS = 0.2, 1e-5


def cases() -> list[Case]:
    made = []
    for n, c, l in BATCH:
        x, size, shape = (n, c, l), n * c * l, f"{n}x{c}x{l}"
        forward = normal(x, (c,), (c,), then=(EPS, SLOPE))
        backward = _after("batch_norm_forward", forward)
        made += [
            Case("batch_norm_forward", shape, forward, 6 * size, 8 * size, _batch_norm),
            Case("batch_norm_backward", shape, backward, 9 * size, 16 * size, _batch_norm_backward),
        ]
    for n, d in LAYER:
        size, shape = n * d, f"{n}x{d}"
        forward = normal((n, d), (d,), (d,), then=(EPS,))
        backward = _after("layer_norm_forward", forward)
        made += [
            Case("layer_norm_forward", shape, forward, 5 * size, 8 * size, _layer_norm),
            Case("layer_norm_backward", shape, backward, 9 * size, 12 * size, _layer_norm_backward),
        ]
    return made


def _after(forward: str, forward_args: Any) -> Any:
    """The backward's arguments: dy, x, what the forward saved, weight; batch norm's also takes y and the slope."""

    def draw(rng: np.random.Generator) -> Args:
        x, weight, *rest = forward_args(rng)
        y, mean, inv_std = reference(forward, x, weight, *rest)
        dy = rng.standard_normal(x.shape, dtype=np.float32)
        return (dy, x, y, mean, inv_std, weight, SLOPE) if forward == "batch_norm_forward" else (dy, x, mean, inv_std, weight)

    return draw


def _batch_norm(x: Any, weight: Any, bias: Any, eps: float, slope: float) -> Any:
    import torch

    y, mean, inv_std = torch.native_batch_norm(x, weight, bias, None, None, True, 0.1, eps)
    return torch.nn.functional.leaky_relu(y, slope), mean, inv_std


def _batch_norm_backward(dy: Any, x: Any, y: Any, mean: Any, inv_std: Any, weight: Any, slope: float) -> Any:
    import torch

    d = torch.ops.aten.leaky_relu_backward(dy, y, slope, True)
    return torch.ops.aten.native_batch_norm_backward(d, x, weight, None, None, mean, inv_std, True, EPS, [True] * 3)


def _layer_norm(x: Any, weight: Any, bias: Any, eps: float) -> Any:
    import torch

    y, mean, inv_std = torch.native_layer_norm(x, weight.shape, weight, bias, eps)
    return y, mean.flatten(), inv_std.flatten()


def _layer_norm_backward(dy: Any, x: Any, mean: Any, inv_std: Any, weight: Any) -> Any:
    import torch

    mean, inv_std = mean[:, None], inv_std[:, None]
    return torch.ops.aten.native_layer_norm_backward(dy, x, weight.shape, mean, inv_std, weight, weight, [True, True, True])
