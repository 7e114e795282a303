"""Convolutions of the DCGAN (kernel 4, stride 2) and of the VQ-VAE (3x3 and 1x1), batch 64; the three derivatives of one form.

All three multiply each weight with each position of the smaller map, once per image.
"""

from __future__ import annotations

from typing import Any

from benchmarks.harness.case import Case, normal

N = 64
# Channels of the larger map and of the smaller, height and width of the larger; kernel, stride, padding.
LAYERS = [
    (1, 64, 28, 4, 2, 1), (64, 128, 14, 4, 2, 1), (3, 64, 32, 4, 2, 1), (64, 128, 16, 4, 2, 1),
    (128, 128, 8, 3, 1, 1), (128, 32, 8, 3, 1, 1), (32, 128, 8, 1, 1, 0),
]  # fmt: skip


def cases() -> list[Case]:
    made = []
    for i, o, h, k, stride, padding in LAYERS:
        p, at = (h + 2 * padding - k) // stride + 1, ((stride, stride), (padding, padding), (1, 1))
        x, w, y = (N, i, h, h), (o, i, k, k), (N, o, p, p)
        flops = 2 * N * o * i * k * k * p * p
        nbytes = 4 * (N * i * h * h + o * i * k * k + N * o * p * p)
        shape = f"{i}-{o} {h}x{h} k{k}"
        made += [
            Case("conv2d_forward", shape, normal(x, w, then=at), flops, nbytes, _conv2d),
            Case("conv_transpose2d_forward", shape, normal(y, w, then=(*at, (h, h))), flops, nbytes, _conv_transpose2d),
            Case("conv2d_weight_grad_forward", shape, normal(x, y, then=(*at, (k, k))), flops, nbytes, _weight_grad),
        ]
    return made


def _conv2d(x: Any, w: Any, stride: Any, padding: Any, dilation: Any) -> Any:
    from torch.nn.functional import conv2d

    return conv2d(x, w, None, stride, padding, dilation)


def _conv_transpose2d(y: Any, w: Any, stride: Any, padding: Any, dilation: Any, size: Any) -> Any:
    from torch.nn.functional import conv_transpose2d

    return conv_transpose2d(y, w, None, stride, padding, 0, 1, dilation)


def _weight_grad(x: Any, y: Any, stride: Any, padding: Any, dilation: Any, kernel_size: Any) -> Any:
    from torch.nn.grad import conv2d_weight

    return conv2d_weight(x, (y.shape[1], x.shape[1], *kernel_size), y, stride, padding, dilation)
