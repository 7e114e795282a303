"""The mathematics: one file per family. In each, always in this order: notation and equations, the NumPy reference, the
Op, its gradient Op where the backward is fused, the public function, and EXAMPLES that the gradient check runs."""

import minigen.ops.philox  # noqa: F401  puts its kernels into the registry; there is no op, for noise has no gradient
from minigen.ops.arithmetic import add, astype, broadcast_to, compare, div, mul, neg, power, square, sub
from minigen.ops.bias_act import bias_act
from minigen.ops.conv import conv2d, conv2d_weight_grad, conv_transpose2d
from minigen.ops.dropout import dropout
from minigen.ops.elementwise import exp, log, sigmoid, softplus, sqrt, tanh
from minigen.ops.gather import embedding, gather, one_hot, scatter_add
from minigen.ops.gru import gru
from minigen.ops.gru_cho import gru_cho
from minigen.ops.losses import bce_with_logits, cross_entropy, hinge, mse
from minigen.ops.lstm import lstm
from minigen.ops.matmul import linear, matmul
from minigen.ops.norm import batch_norm, layer_norm
from minigen.ops.piecewise import abs, clip, leaky_relu, maximum, minimum, relu, where
from minigen.ops.reduce import argmax, argmin, logsumexp, max, mean, sum, var
from minigen.ops.rnn import rnn
from minigen.ops.shape import concatenate, getitem, pad, permute, reshape, stack, to, transpose
from minigen.ops.softmax import log_softmax, softmax
from minigen.ops.spectral_norm import spectral_norm
from minigen.ops.vq import nearest_code, rotate_as, rotation_trick, straight_through

FAMILIES = (
    "arithmetic", "elementwise", "piecewise", "reduce", "shape", "matmul", "gather", "softmax", "conv",
    "norm", "bias_act", "dropout", "losses", "spectral_norm", "rnn", "gru", "gru_cho", "lstm", "vq",
)  # fmt: skip

__all__ = [
    "FAMILIES", "abs", "add", "argmax", "argmin", "astype", "batch_norm", "bce_with_logits", "bias_act", "broadcast_to",
    "clip", "compare", "concatenate", "conv2d", "conv2d_weight_grad", "conv_transpose2d", "cross_entropy", "div",
    "dropout", "embedding", "examples", "exp", "gather", "getitem", "gru", "gru_cho", "hinge", "layer_norm",
    "leaky_relu", "linear", "log", "log_softmax", "logsumexp", "lstm", "matmul", "max", "maximum", "mean", "minimum",
    "mse", "mul", "nearest_code", "neg", "one_hot", "pad", "permute", "power", "relu", "reshape", "rnn", "rotate_as",
    "rotation_trick", "scatter_add", "sigmoid", "softmax", "softplus", "spectral_norm", "sqrt", "square", "stack",
    "straight_through", "sub", "sum", "tanh", "to", "transpose", "var", "where",
]  # fmt: skip


def examples():  # type: ignore[no-untyped-def]
    """{op name: [Example, ...]} over all families: what the gradient check runs."""
    import importlib

    found = {}
    for family in FAMILIES:
        found.update(importlib.import_module(f"minigen.ops.{family}").EXAMPLES)
    return found
