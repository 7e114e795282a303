"""Layers: parameters, and a call. Names, argument order, weight layouts and default initialisation are PyTorch's.

A layer is a plain object: `nn.parameters` finds what it holds. Layers that end in a bias or a norm take `negative_slope`
when called, and then apply a leaky ReLU in the same pass; `Sequential` uses that for the activation that follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minigen import ops
from minigen.device import place
from minigen.nn.init import uniform
from minigen.tensor import Tensor


class Fusing:
    """Marks a layer whose call takes `negative_slope`: it applies the activation that follows in the same pass."""

    def __call__(self, x: Tensor, negative_slope: float = 1.0) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no call")


def _fused(y: Tensor, bias: Tensor | None, negative_slope: float) -> Tensor:
    if bias is not None:
        return ops.bias_act(y, bias, negative_slope)
    return y if negative_slope == 1.0 else ops.leaky_relu(y, negative_slope)


class Linear(Fusing):
    """x (..., in_features) -> (..., out_features): x W^T + b, weight (out, in)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        bound = 1 / math.sqrt(in_features)
        self.weight = uniform((out_features, in_features), bound)
        self.bias = uniform((out_features,), bound) if bias else None

    def __call__(self, x: Tensor, negative_slope: float = 1.0) -> Tensor:
        return ops.linear(x, self.weight, self.bias, negative_slope)


class Conv2d(Fusing):
    """x (N, in, H, W) -> (N, out, P, Q), weight (out, in, kh, kw)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
        bias: bool = True,
    ) -> None:  # fmt: skip
        kh, kw = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        bound = 1 / math.sqrt(in_channels * kh * kw)
        self.weight = uniform((out_channels, in_channels, kh, kw), bound)
        self.bias = uniform((out_channels,), bound) if bias else None
        self.stride, self.padding, self.dilation = stride, padding, dilation

    def __call__(self, x: Tensor, negative_slope: float = 1.0) -> Tensor:
        return _fused(ops.conv2d(x, self.weight, self.stride, self.padding, self.dilation), self.bias, negative_slope)


class ConvTranspose2d(Fusing):
    """x (N, in, P, Q) -> (N, out, H, W), weight (in, out, kh, kw)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, bias: bool = True, dilation: Any = 1,
    ) -> None:  # fmt: skip
        kh, kw = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        bound = 1 / math.sqrt(out_channels * kh * kw)
        self.weight = uniform((in_channels, out_channels, kh, kw), bound)
        self.bias = uniform((out_channels,), bound) if bias else None
        self.stride, self.padding, self.output_padding, self.dilation = stride, padding, output_padding, dilation

    def __call__(self, x: Tensor, negative_slope: float = 1.0) -> Tensor:
        at = (self.stride, self.padding, self.output_padding, self.dilation)
        return _fused(ops.conv_transpose2d(x, self.weight, *at), self.bias, negative_slope)


class _BatchNorm(Fusing):
    """x (N, C, ...) normalised per channel over everything else; running statistics for evaluation."""

    ndims: tuple[int, ...] = ()

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        self.weight = Tensor(place(np.ones(num_features, np.float32)), True)
        self.bias = Tensor(place(np.zeros(num_features, np.float32)), True)
        self.running_mean = place(np.zeros(num_features, np.float32))
        self.running_var = place(np.ones(num_features, np.float32))
        self.num_batches_tracked = place(np.zeros((), np.int64))
        self.eps, self.momentum = eps, momentum
        self.training = True

    def __call__(self, x: Tensor, negative_slope: float = 1.0) -> Tensor:
        if x.ndim not in self.ndims:
            raise ValueError(f"{type(self).__name__} wants {' or '.join(f'{n}-D' for n in self.ndims)} input, not {x.shape}")
        if x.shape[1] != self.weight.shape[0]:
            raise ValueError(f"{type(self).__name__}: {x.shape[1]} channels, {self.weight.shape[0]} expected")
        if self.training:
            self.num_batches_tracked += 1
        return ops.batch_norm(
            x, self.weight, self.bias, self.running_mean, self.running_var, self.training, self.momentum, self.eps,
            negative_slope,
        )  # fmt: skip


class BatchNorm1d(_BatchNorm):
    ndims = (2, 3)


class BatchNorm2d(_BatchNorm):
    ndims = (4,)


class LayerNorm:
    """x (..., *normalized_shape) normalised over those axes, each sample by itself."""

    def __init__(self, normalized_shape: Any, eps: float = 1e-5) -> None:
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.weight = Tensor(place(np.ones(shape, np.float32)), True)
        self.bias = Tensor(place(np.zeros(shape, np.float32)), True)
        self.eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        return ops.layer_norm(x, self.weight, self.bias, self.eps)


class Embedding:
    """Integers (...) -> rows (..., dim) of weight (count, dim)."""

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        from minigen.random import generator

        self.weight = Tensor(place(generator().standard_normal((num_embeddings, embedding_dim), dtype=np.float32)), True)

    def __call__(self, index: Any) -> Tensor:
        return ops.embedding(self.weight, index)


class Dropout:
    def __init__(self, p: float = 0.5) -> None:
        self.p, self.training = p, True

    def __call__(self, x: Tensor) -> Tensor:
        return ops.dropout(x, self.p, self.training)


class ReLU:
    negative_slope = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        return ops.relu(x)


class LeakyReLU:
    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope

    def __call__(self, x: Tensor) -> Tensor:
        return ops.leaky_relu(x, self.negative_slope)


class Tanh:
    def __call__(self, x: Tensor) -> Tensor:
        return ops.tanh(x)


class Sigmoid:
    def __call__(self, x: Tensor) -> Tensor:
        return ops.sigmoid(x)


class Flatten:
    """x (N, ...) -> (N, features)."""

    def __call__(self, x: Tensor) -> Tensor:
        return ops.reshape(x, (x.shape[0], -1))


class Unflatten:
    """x (N, features) -> (N, *shape)."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def __call__(self, x: Tensor) -> Tensor:
        return ops.reshape(x, (x.shape[0], *self.shape))


class Sequential(list[Callable[[Tensor], Tensor]]):
    """Layers one after another. A list, so parameters are named by position: "0.weight".

    An activation after a layer that can apply it in the same pass is handed to that layer.
    """

    def __init__(self, *layers: Callable[[Tensor], Tensor]) -> None:
        super().__init__(layers)

    def __call__(self, x: Tensor) -> Tensor:
        i = 0
        while i < len(self):
            layer, follower = self[i], self[i + 1] if i + 1 < len(self) else None
            if isinstance(layer, Fusing) and isinstance(follower, (ReLU, LeakyReLU)) and follower.negative_slope >= 0:
                x = layer(x, follower.negative_slope)
                i += 2
            else:
                x = layer(x)
                i += 1
        return x
