"""Networks that give the same numbers on every machine.

Sums are what differs between machines: a BLAS adds up in the order its processor likes, with or without fused multiply-adds,
and rounds each time. Here weights are multiples of 2^-14 and what they multiply is a multiple of 2^-15. Every product and every
partial sum is then a multiple of 2^-29 below 2^23, which a float64 holds exactly: nothing is rounded, so no order matters, and
the sum may be left to BLAS. What is left is done value by value with + - * /, which IEEE 754 defines to the last bit, and with
`exp` below, made of nothing else.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np

from minigen import nn
from minigen.autograd import no_grad
from minigen.models.code_prior import CodePrior
from minigen.models.vqvae import Residual
from minigen.tensor import Tensor

Array = np.ndarray[Any, Any]
WEIGHT, VALUE = 2.0**14, 2.0**15  # a weight is a multiple of 1 / WEIGHT, what it multiplies of 1 / VALUE
LIMIT = 2.0**23
LN2_HIGH, LN2_LOW = 6.93145751953125e-1, 1.42860682030941723212e-6  # the first has few digits: n LN2_HIGH is exact


def on_grid(x: Any, step: float) -> Array:
    """x as float64, rounded to multiples of 1 / step."""
    return np.rint(np.asarray(x, np.float64) * step) / step


def exp(x: Array) -> Array:
    """e^x for x in [-700, 0], to 1e-12: 2^n e^r with |r| <= log(2) / 2, and the series of e^r."""
    n = np.rint(x * (1 / math.log(2)))
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    y = np.ones_like(r)
    for k in range(12, 0, -1):
        y = y * r / k + 1.0
    return np.ldexp(y, n.astype(np.int64))


def sigmoid(x: Array) -> Array:
    t = exp(np.maximum(-np.abs(x), -700.0))
    return np.where(x >= 0, 1.0, t) / (1.0 + t)


def tanh(x: Array) -> Array:
    t = exp(np.maximum(-2.0 * np.abs(x), -700.0))
    return np.copysign((1.0 - t) / (1.0 + t), x)


class FixedPrior:
    """p(k_t | k_1 .. k_{t-1}) of a `CodePrior`, step by step, as integer frequencies. No label.

    Raises ValueError if a weight is so large that sums would round.
    """

    def __init__(self, model: CodePrior, total: int) -> None:
        if not isinstance(model.rnn, (nn.GRU, nn.LSTM)):
            raise ValueError(f"the codec runs a GRU or an LSTM, not {type(model.rnn).__name__}")
        self.model, self.total, self.steps, self.num_codes = model, total, model.steps, model.embedding.weight.shape[0] - 1
        weights = {k: on_grid(v, WEIGHT) for k, v in nn.state_dict(model.rnn).items()}
        self.w_ih, self.w_hh = weights["weight_ih_l0"].T, weights["weight_hh_l0"].T
        self.b_ih, self.b_hh = weights["bias_ih_l0"], weights["bias_hh_l0"]
        self.w_out, self.b_out = on_grid(model.out.weight.data, WEIGHT).T, on_grid(model.out.bias.data, WEIGHT)  # type: ignore[union-attr]
        self.vectors = on_grid(model.embedding.weight.data, VALUE)
        largest = max(1.0, float(np.abs(self.vectors).max()))
        for w, b in ((self.w_ih, self.b_ih), (self.w_hh, self.b_hh), (self.w_out, self.b_out)):
            if not (np.abs(w).sum(0) * largest + np.abs(b)).max() < LIMIT:
                raise ValueError("the prior's weights are too large for exact sums")

    def begin(self, n: int) -> Any:
        """The state before the first code of n grids."""
        h = np.zeros((n, self.w_hh.shape[0]))
        return (h, h) if isinstance(self.model.rnn, nn.LSTM) else (h,)

    def frequencies(self, t: int, seen: Array, state: Any) -> tuple[Array, Any]:
        """seen (n, S + 1): codes before step t, and num_codes at the end -> frequencies (n, K), each at least 1, of one sum."""
        n = len(seen)
        vectors = self.vectors[seen[:, self.model._reads[t]]].reshape(n, -1)
        place = np.zeros((n, self.w_ih.shape[0] - vectors.shape[1]))
        place[:, : self.model._where.shape[1]] = self.model._where[t]  # labels, after it, stay zero: not told
        state = self._cell(np.concatenate([vectors, place], 1) @ self.w_ih + self.b_ih, *state)
        logits = (state[0] @ self.w_out + self.b_out)[:, : self.num_codes]
        weight = np.floor(exp(np.maximum(logits - logits.max(1, keepdims=True), -30.0)) * 2.0**32).astype(np.int64)
        share = weight * (self.total - self.num_codes) // weight.sum(1, keepdims=True)
        found = 1 + share
        found[np.arange(n), found.argmax(1)] += self.total - found.sum(1)
        return found, state

    def _cell(self, x: Array, h: Array, c: Any = None) -> Any:
        """One step; see `minigen/ops/gru.py` and `minigen/ops/lstm.py`."""
        a = h @ self.w_hh + self.b_hh
        if c is None:
            (xr, xz, xn), (ar, az, an) = np.split(x, 3, 1), np.split(a, 3, 1)
            z, candidate = sigmoid(xz + az), tanh(xn + sigmoid(xr + ar) * an)
            return (on_grid(candidate + z * (h - candidate), VALUE),)
        i, f, g, o = np.split(x + a, 4, 1)
        c = on_grid(sigmoid(f) * c + sigmoid(i) * tanh(g), VALUE)
        return on_grid(sigmoid(o) * tanh(c), VALUE), c


class FixedDecoder:
    """The decoder network of a VQ-VAE: codes (N, h, w) -> images (N, c, 4h, 4w) in [-1, 1], the same on every machine."""

    def __init__(self, decoder: Any, codes: Array) -> None:
        self.codes, self.layers = on_grid(codes, VALUE), copy.deepcopy(decoder)
        for _, node in nn.walk(self.layers):
            if isinstance(node, (nn.Conv2d, nn.ConvTranspose2d)):
                assert node.bias is not None
                node.weight, node.bias = (Tensor(on_grid(p.data, WEIGHT)) for p in (node.weight, node.bias))

    def __call__(self, indices: Array) -> Array:
        with no_grad():
            return self._run(self.layers, Tensor(np.ascontiguousarray(self.codes[indices].transpose(0, 3, 1, 2)))).data

    def _run(self, layers: Any, x: Tensor) -> Tensor:
        for layer in layers:
            if isinstance(layer, nn.ReLU):
                x = layer(x)
            elif isinstance(layer, Residual):
                x = x + self._run(layer.body, x)
            else:
                self._check(layer, x)
                x = Tensor(on_grid(layer(x).data, VALUE))
        return x

    @staticmethod
    def _check(layer: Any, x: Tensor) -> None:
        """Whatever the order of summation, no partial sum is larger than this."""
        outputs = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
        most = np.abs(layer.weight.data).sum(tuple(i for i in range(4) if i != outputs)).max()
        if not most * np.abs(x.data).max(initial=0) + np.abs(layer.bias.data).max() < LIMIT:
            raise ValueError("the decoder's values are too large for exact sums")
