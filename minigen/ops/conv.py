"""Two-dimensional convolution: one trilinear form, and its three partial derivatives.

Notation: images x (N, I, H, W), weights w (O, I, kh, kw), feature maps y (N, O, P, Q). Everything comes from

    F(x, w, y) = sum over n, o, p, q, i, k, l of  y[n,o,p,q] * w[o,i,k,l] * x[n,i, s p + d k - pad, s q + d l - pad]

(s stride, d dilation; x is zero outside). F is linear in each argument, so each derivative is a function of the other two:

    conv2d(x, w)              = dF/dy      the convolution itself (cross-correlation, as in PyTorch)
    conv_transpose2d(y, w)    = dF/dx      its gradient with respect to the image
    conv2d_weight_grad(x, y)  = dF/dw      its gradient with respect to the weight

The gradient of any of the three with respect to any argument is again one of the three: three forwards give every order.

    op                     cotangent g    d first                     d second
    conv2d(x, w)           like y         conv_transpose2d(g, w)      conv2d_weight_grad(x, g)
    conv_transpose2d(y, w) like x         conv2d(g, w)                conv2d_weight_grad(g, y)
    conv2d_weight_grad(x, y) like w       conv_transpose2d(y, g)      conv2d(x, g)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.autograd import Op
from minigen.dispatch import kernel
from minigen.ops.example import example
from minigen.tensor import Tensor

Pair = tuple[int, ...]  # vertical, horizontal


def _windows(x_nihw, kernel_size, stride, padding, dilation):
    """The patches that meet each output pixel, as a view: (N, I, P, Q, kh, kw)."""
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = kernel_size, stride, padding, dilation
    x = np.pad(x_nihw, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    reach = (dh * (kh - 1) + 1, dw * (kw - 1) + 1)
    return np.lib.stride_tricks.sliding_window_view(x, reach, axis=(2, 3))[:, :, ::sh, ::sw, ::dh, ::dw]


@kernel("conv")
def conv2d_forward(x_nihw, w_oikk, stride, padding, dilation):
    """dF/dy: (N, I, H, W), (O, I, kh, kw) -> (N, O, P, Q)."""
    patches = _windows(x_nihw, w_oikk.shape[2:], stride, padding, dilation)
    return np.tensordot(patches, w_oikk, axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)


@kernel("conv")
def conv_transpose2d_forward(y_nohw, w_oikk, stride, padding, dilation, size):
    """dF/dx: (N, O, P, Q), (O, I, kh, kw) -> (N, I, *size). Each tap of the kernel adds y, scaled, to a strided grid."""
    (sh, sw), (ph, pw), (dh, dw), (h, w) = stride, padding, dilation, size
    n, _, p, q = y_nohw.shape
    _, i, kh, kw = w_oikk.shape
    dtype = np.result_type(y_nohw, w_oikk)
    x = np.zeros((n, i, max(h + 2 * ph, dh * (kh - 1) + sh * p), max(w + 2 * pw, dw * (kw - 1) + sw * q)), dtype)
    for k in range(kh):
        for l in range(kw):
            tap = np.tensordot(y_nohw, w_oikk[:, :, k, l], axes=(1, 0)).transpose(0, 3, 1, 2)
            x[:, :, dh * k : dh * k + sh * p : sh, dw * l : dw * l + sw * q : sw] += tap
    return x[:, :, ph : ph + h, pw : pw + w]


@kernel("conv")
def conv2d_weight_grad_forward(x_nihw, y_nohw, stride, padding, dilation, kernel_size):
    """dF/dw: (N, I, H, W), (N, O, P, Q) -> (O, I, *kernel_size)."""
    patches = _windows(x_nihw, kernel_size, stride, padding, dilation)
    return np.tensordot(y_nohw, patches, axes=((0, 2, 3), (0, 2, 3)))


class _Conv(Op):
    def __init__(self, stride: Pair, padding: Pair, dilation: Pair, extent: Pair) -> None:
        """`extent`: what cannot be read off the inputs' shapes; the image's size, or the kernel's."""
        self.at = (stride, padding, dilation)
        self.extent = extent


class Conv2d(_Conv):
    def forward(self, x, w):
        return conv2d_forward(x, w, *self.at)

    def backward(self, g):
        x, w = self.inputs
        return (
            ConvTranspose2d(*self.at, x.shape[2:])(g, w) if self.needs[0] else None,
            Conv2dWeightGrad(*self.at, w.shape[2:])(x, g) if self.needs[1] else None,
        )


class ConvTranspose2d(_Conv):
    def forward(self, y, w):
        return conv_transpose2d_forward(y, w, *self.at, self.extent)

    def backward(self, g):
        y, w = self.inputs
        return (
            Conv2d(*self.at, w.shape[2:])(g, w) if self.needs[0] else None,
            Conv2dWeightGrad(*self.at, w.shape[2:])(g, y) if self.needs[1] else None,
        )


class Conv2dWeightGrad(_Conv):
    def forward(self, x, y):
        return conv2d_weight_grad_forward(x, y, *self.at, self.extent)

    def backward(self, g):
        x, y = self.inputs
        return (
            ConvTranspose2d(*self.at, x.shape[2:])(y, g) if self.needs[0] else None,
            Conv2d(*self.at, self.extent)(x, g) if self.needs[1] else None,
        )


def _pair(value: Any, name: str, least: int) -> Pair:
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(isinstance(v, (int, np.integer)) and v >= least for v in pair):
        raise ValueError(f"{name} is one or two integers of at least {least}, not {value!r}")
    return int(pair[0]), int(pair[1])


def _geometry(stride: Any, padding: Any, dilation: Any) -> tuple[Pair, Pair, Pair]:
    return _pair(stride, "stride", 1), _pair(padding, "padding", 0), _pair(dilation, "dilation", 1)


def _check(name: str, maps: Tensor, weight: Tensor, axis: int) -> None:
    if maps.ndim != 4 or weight.ndim != 4:
        raise ValueError(f"{name} wants two 4-D tensors, not {maps.shape} and {weight.shape}")
    if maps.shape[1] != weight.shape[axis]:
        wanted = f"the weight {weight.shape} wants {weight.shape[axis]}"
        raise ValueError(f"{name}: the input has {maps.shape[1]} channels, {wanted}")


def conv2d(x: Tensor, weight: Tensor, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> Tensor:
    """x (N, I, H, W), weight (O, I, kh, kw) -> (N, O, P, Q), P = floor((H + 2 pad - d (kh - 1) - 1) / s) + 1.

    The bias is added outside. Raises ValueError where the kernel does not fit into the padded image.
    """
    at = _geometry(stride, padding, dilation)
    _check("conv2d", x, weight, 1)
    for n, k, p, d in zip(x.shape[2:], weight.shape[2:], at[1], at[2], strict=True):
        if n + 2 * p < d * (k - 1) + 1:
            kernel = f"a kernel of {weight.shape[2:]}, dilation {at[2]},"
            raise ValueError(f"conv2d: {kernel} does not fit into {x.shape[2:]}, padding {at[1]}")
    return Conv2d(*at, weight.shape[2:])(x, weight)


def conv_transpose2d(
    y: Tensor, weight: Tensor, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, dilation: Any = 1
) -> Tensor:
    """y (N, O, P, Q), weight (O, I, kh, kw) -> (N, I, H, W), H = s (P - 1) - 2 pad + d (kh - 1) + output_padding + 1.

    `weight` is (c_in, c_out, kh, kw) from this operation's own point of view, as in PyTorch. Several image sizes give the
    same P under conv2d; `output_padding` chooses among them.
    """
    at = _geometry(stride, padding, dilation)
    extra = _pair(output_padding, "output_padding", 0)
    _check("conv_transpose2d", y, weight, 0)
    size = tuple(
        s * (n - 1) - 2 * p + d * (k - 1) + e + 1
        for n, k, s, p, d, e in zip(y.shape[2:], weight.shape[2:], *at, extra, strict=True)
    )
    if any(e >= s for e, s in zip(extra, at[0], strict=True)):
        raise ValueError(f"output_padding {extra} must be smaller than the stride {at[0]}: more would only add empty rows")
    if min(size) < 1:
        raise ValueError(f"conv_transpose2d: the output would be {size}")
    return ConvTranspose2d(*at, size)(y, weight)


def conv2d_weight_grad(
    x: Tensor, y: Tensor, kernel_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1
) -> Tensor:
    """x (N, I, H, W), y (N, O, P, Q) -> (O, I, kh, kw): the gradient of conv2d's weight where y is the cotangent."""
    at = _geometry(stride, padding, dilation)
    return Conv2dWeightGrad(*at, _pair(kernel_size, "kernel_size", 1))(x, y)


EXAMPLES = {
    "conv2d": [
        example(lambda x, w: conv2d(x, w, 2, 1), (2, 2, 6, 5), (3, 2, 4, 3)),
        example(lambda x, w: conv2d(x, w, (1, 2), (0, 2), (2, 1)), (2, 1, 5, 4), (2, 1, 2, 3)),
    ],
    "conv_transpose2d": [
        example(lambda y, w: conv_transpose2d(y, w, 2, 1), (2, 2, 3, 2), (2, 3, 4, 4)),
        example(lambda y, w: conv_transpose2d(y, w, (3, 2), 1, (2, 1), (1, 2)), (1, 2, 2, 2), (2, 1, 3, 2)),
    ],
    "conv2d_weight_grad": [
        example(lambda x, y: conv2d_weight_grad(x, y, (4, 3), 2, 1), (2, 2, 6, 5), (2, 3, 3, 3)),
        example(lambda x, y: conv2d_weight_grad(x, y, 2, 1, 0, 2), (2, 1, 4, 5), (2, 2, 2, 3)),
    ],
}
