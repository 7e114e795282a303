"""Recurrent layers. Names, argument order, weight layouts, gate order and initial weights are PyTorch's.

A layer is a matrix product over all steps at once, W x, and a fused scan (`minigen/ops/scan.py`). Layers stack: each reads
the outputs of the one below it. A bidirectional layer scans twice, once from each end, and its outputs are joined.

    x (T, N, in)  ->  output (T, N, D) of the last layer, and the last state (layers, N, D); D is 2 D if bidirectional
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigen import ops
from minigen.device import constant, is_array
from minigen.nn.init import uniform
from minigen.ops.arithmetic import as_tensor
from minigen.tensor import Tensor


class _Recurrent:
    gates = 1
    states = 1

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, batch_first: bool = False, dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:  # fmt: skip
        if min(input_size, hidden_size, num_layers) < 1:
            raise ValueError(f"sizes and layers must be positive, not {input_size}, {hidden_size}, {num_layers}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), not {dropout}")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.batch_first, self.dropout, self.bidirectional = batch_first, dropout, bidirectional
        self.training = True
        bound, rows = 1 / math.sqrt(hidden_size), self.gates * hidden_size
        for layer, suffix in self._passes():
            width = input_size if layer == 0 else hidden_size * (1 + bidirectional)
            setattr(self, f"weight_ih_{suffix}", uniform((rows, width), bound))
            setattr(self, f"weight_hh_{suffix}", uniform((rows, hidden_size), bound))
            setattr(self, f"bias_ih_{suffix}", uniform((rows,), bound))
            setattr(self, f"bias_hh_{suffix}", uniform((rows,), bound))

    def _passes(self) -> list[tuple[int, str]]:
        """(layer, name) of each scan, in the order of the states: l0, l0_reverse, l1, ..."""
        ends = ("", "_reverse") if self.bidirectional else ("",)
        return [(layer, f"l{layer}{end}") for layer in range(self.num_layers) for end in ends]

    def __call__(self, x: Tensor, state: Any = None, mask: Any = None) -> tuple[Tensor, Any]:
        """x (T, N, in) -> output (T, N, D) and the last state: (passes, N, D), a pair of them for an LSTM.

        With batch_first, x and output are (N, T, ...). state: zeros if None. mask (T, N), or (N, T): where it is False the
        state is carried on unchanged, so the last state is that of each sequence's last step.
        """
        if x.ndim != 3 or x.shape[2] != self.input_size:
            raise ValueError(f"{type(self).__name__}: x {x.shape}; wanted three axes, the last of {self.input_size} features")
        if self.batch_first:
            x = ops.transpose(x, 0, 1)
            mask = None if mask is None else np.swapaxes(_array(mask), 0, 1)
        if mask is not None:  # whatever the padding holds, NaN even, must not reach the products
            mask = _array(mask)
            if mask.shape != x.shape[:2]:
                raise ValueError(f"{type(self).__name__}: a mask of shape {mask.shape}; wanted (T, N) = {x.shape[:2]}")
            x = ops.where(mask[:, :, None], x, 0.0)
        passes = self._passes()
        starts = self._starts(state, x, len(passes))
        last: list[tuple[Tensor, ...]] = []
        for layer in range(self.num_layers):
            if layer and self.dropout:
                x = ops.dropout(x, self.dropout, self.training)
            outs = []
            for _, suffix in (p for p in passes if p[0] == layer):
                backwards = suffix.endswith("reverse")
                out, *ends = self._scan(x, starts[len(last)], suffix, mask, backwards)
                outs.append(out)
                last.append(tuple(ends))
            x = outs[0] if len(outs) == 1 else ops.concatenate(outs, 2)
        finals = tuple(ops.stack([ends[s] for ends in last]) for s in range(self.states))
        return (ops.transpose(x, 0, 1) if self.batch_first else x), (finals if self.states > 1 else finals[0])

    def step(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One time step: x (N, in), state as the last call returned it -> output (N, D), state. For sampling."""
        if self.bidirectional:
            raise ValueError("a bidirectional layer needs the whole sequence; it has no step()")
        axis = 1 if self.batch_first else 0
        out, state = self(ops.reshape(x, (x.shape[0], 1, -1) if axis else (1, *x.shape)), state)
        return ops.reshape(out, (x.shape[0], -1)), state

    def _starts(self, state: Any, x: Tensor, passes: int) -> list[tuple[Tensor, ...]]:
        """The initial states of each pass."""
        shape = (passes, x.shape[1], self.hidden_size)
        if state is None:
            zero = Tensor(constant(np.zeros, shape[1:], self.weight_hh_l0.dtype))  # type: ignore[attr-defined]
            return [(zero,) * self.states] * passes
        given = tuple(state) if isinstance(state, (tuple, list)) else (state,)
        given = tuple(as_tensor(s) for s in given)
        if len(given) != self.states or any(s.shape != shape for s in given):
            raise ValueError(f"{type(self).__name__}: {self.states} state(s) of shape {shape} wanted")
        return [tuple(s[i] for s in given) for i in range(passes)]

    def _scan(self, x: Tensor, starts: tuple[Tensor, ...], suffix: str, mask: Any, backwards: bool) -> tuple[Tensor, ...]:
        """One pass over x (T, N, in): outputs (T, N, D) in x's order, then the last state or states (N, D)."""
        w_ih, w_hh, b_ih, b_hh = (getattr(self, f"{n}_{suffix}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        x = ops.linear(x[::-1] if backwards else x, w_ih)
        mask = mask[::-1] if backwards and mask is not None else mask
        out, *others = self._op(x, starts, w_hh, b_ih, b_hh, mask)
        last = out[-1]
        return (out[::-1] if backwards else out, last, *others)

    def _op(
        self, x: Tensor, starts: tuple[Tensor, ...], w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, mask: Any
    ) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no scan")


class RNN(_Recurrent):
    """Elman's net with tanh: `minigen/ops/rnn.py`."""

    def _op(self, x, starts, w_hh, b_ih, b_hh, mask):  # type: ignore[no-untyped-def]
        return (ops.rnn(x, starts[0], w_hh, b_ih + b_hh, mask),)


class LSTM(_Recurrent):
    """Gates i, f, g, o: `minigen/ops/lstm.py`. The state is a pair (h, c)."""

    gates, states = 4, 2

    def _op(self, x, starts, w_hh, b_ih, b_hh, mask):  # type: ignore[no-untyped-def]
        return ops.lstm(x, starts[0], starts[1], w_hh, b_ih + b_hh, mask)


class GRU(_Recurrent):
    """Gates r, z, n. `reset_after` (the default) is cuDNN's and PyTorch's cell, `minigen/ops/gru.py`; without it the reset gate
    acts before the matrix product, as in Cho et al. 2014: `minigen/ops/gru_cho.py`. In both z keeps the old state."""

    gates = 3

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, batch_first: bool = False, dropout: float = 0.0,
        bidirectional: bool = False, reset_after: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, num_layers, batch_first, dropout, bidirectional)
        self.reset_after = reset_after

    def _op(self, x, starts, w_hh, b_ih, b_hh, mask):  # type: ignore[no-untyped-def]
        if not self.reset_after:
            return (ops.gru_cho(x, starts[0], w_hh, b_ih + b_hh, mask),)
        d = self.hidden_size
        bias = ops.concatenate([b_ih[: 2 * d] + b_hh[: 2 * d], b_ih[2 * d :], b_hh[2 * d :]])  # r and z see only the sum
        return (ops.gru(x, starts[0], w_hh, bias, mask),)


def _array(mask: Any) -> Any:
    """A mask as an array of booleans, where it is."""
    mask = mask._data if isinstance(mask, Tensor) else mask
    return mask.astype(bool) if is_array(mask) else np.array(mask, bool)


CELLS: dict[str, Any] = {"rnn": RNN, "gru": GRU, "lstm": LSTM}  # by the name that recipes use
