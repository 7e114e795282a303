"""Convolutions of the DCGAN: batch 64, kernel 4, stride 2, padding 1; the three derivatives of one form.

All three multiply each weight with each position of the smaller map, once per image.
"""

from __future__ import annotations

from typing import Any

from benchmarks.harness.case import Case, normal

N, K = 64, 4
AT = ((2, 2), (1, 1), (1, 1))  # stride, padding, dilation
SHAPES = [(1, 64, 28), (64, 128, 14), (3, 64, 32), (64, 128, 16)]  # channels of the larger map and of the smaller; size


def cases() -> list[Case]:
    made = []
    for i, o, h in SHAPES:
        p = h // 2
        x, w, y = (N, i, h, h), (o, i, K, K), (N, o, p, p)
        flops = 2 * N * o * i * K * K * p * p
        nbytes = 4 * (N * i * h * h + o * i * K * K + N * o * p * p)
        shape = f"{i}-{o} {h}x{h}"
        made += [
            Case("conv2d_forward", shape, normal(x, w, then=AT), flops, nbytes, _conv2d),
            Case("conv_transpose2d_forward", shape, normal(y, w, then=(*AT, (h, h))), flops, nbytes, _conv_transpose2d),
            Case("conv2d_weight_grad_forward", shape, normal(x, y, then=(*AT, (K, K))), flops, nbytes, _weight_grad),
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
