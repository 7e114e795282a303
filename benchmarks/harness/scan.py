"""Cases of the recurrent cells: one layer of D units over T steps of a batch of 64, no step missing.

Products that no implementation can do without, each of T N G D multiply-adds (G = D, 3 D or 4 D, the rows of U):

    forward           h U^T                                                           1
    backward          da U; for the weight da^T h                                     2
    double backward   vh U^T; da U and vda U; for the weight vda^T h and da^T vh      5

The double backward is that of a penalty on the data's gradient (WGAN-GP): a cotangent of dx arrives, and none of dU. With one,
h vU^T and da vU would be added.

PyTorch's layers compute the input's part of the gates, W x, themselves: that product is in their time, and not in the kernels'.
It is as small as it can be, for x here is one number a step. The double backward of 784 steps of 512 units is left out: the
reference that it is compared with would take ten gigabytes, and one of those steps costs what one of 100 does.

On a GPU the layers are cuDNN's. What its forward saved is copied before each backward, since it is used again here. It has no
double backward: that is of PyTorch's own kernels, step by step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.harness.case import Args, Case, reference

N = 64
SHAPES = [(28, 128), (100, 128), (784, 128), (28, 512), (100, 512), (784, 512)]  # T, D
Rng = np.random.Generator


@dataclass(frozen=True)
class Cell:
    stem: str
    gates: int  # G / D
    biases: int  # length of the bias / D
    states: int  # 2 with a cell state
    saved: int  # what the forward keeps of each step beside the states / D
    layer: str | None  # PyTorch's, in torch.nn


def cases(cell: Cell) -> list[Case]:
    made = []
    for t, d in SHAPES:
        product, shape = 2 * t * N * cell.gates * d * d, f"T={t} D={d}"
        for which, (count, args, nbytes) in {
            "forward": (1, _forward_args, _forward_bytes),
            "backward": (2, _backward_args, _backward_bytes),
            "double_backward": (5, _double_args, _double_bytes),
        }.items():
            if which == "double_backward" and t * d > 784 * 128:
                continue
            too_large = (which == "double_backward" or d > 128) and t > 100  # the graph of PyTorch's gradient holds gigabytes
            peer = None if cell.layer is None or too_large else Peer(cell, which, t, d)
            made.append(
                Case(
                    f"{cell.stem}_{which}", shape, _drawn(args, cell, t, d), count * product, nbytes(cell, t, d),
                    torch=peer and peer.run, torch_args=peer and peer.prepare, torch_part=peer and peer.part,
                )
            )  # fmt: skip
    return made


# --- arguments: drawn in the same order for the kernel and for PyTorch ---------------------------------------------------


@dataclass(frozen=True)
class Numbers:
    """x_t = w_in p_t with one number p_t for each sequence and step: what a net that reads pixels sees."""

    p: Any  # (T, N, 1)
    w_in: Any  # (G, 1)
    states: list[Any]  # (N, D)
    w: Any  # (G, D)
    bias: Any
    dy: list[Any]  # (T, N, D), and (N, D) for c
    vp: Any  # (T, N, 1), the tangent of p


def _numbers(cell: Cell, t: int, d: int, rng: Rng) -> Numbers:
    g, bound = cell.gates * d, 1 / math.sqrt(d)

    def uniform(*shape: int) -> Any:
        return (rng.random(shape, dtype=np.float32) * 2 - 1) * np.float32(bound)

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape, dtype=np.float32)

    states = [np.tanh(normal(N, d)) for _ in range(cell.states)]
    dy = [normal(t, N, d), normal(N, d)][: cell.states]
    return Numbers(normal(t, N, 1), uniform(g, 1), states, uniform(g, d), uniform(cell.biases * d), dy, normal(t, N, 1))


def _drawn(args: Callable[..., Args], cell: Cell, t: int, d: int) -> Callable[[Rng], Args]:
    return lambda rng: args(cell, _numbers(cell, t, d, rng))


def _forward_args(cell: Cell, a: Numbers) -> Args:
    return a.p * a.w_in[:, 0], *a.states, a.w, a.bias, np.ones(a.p.shape[:2], bool)


def _backward_args(cell: Cell, a: Numbers) -> Args:
    u = _forward_args(cell, a)
    return *a.dy, *reference(f"{cell.stem}_forward", *u), a.w, u[-1], True


def _double_args(cell: Cell, a: Numbers) -> Args:
    *back, _ = _backward_args(cell, a)
    dx = reference(f"{cell.stem}_backward", *back, False)[0]
    v = a.vp * a.w_in[:, 0], *map(np.zeros_like, a.states), None, np.zeros_like(a.bias)
    return *v, *back[: cell.states], dx, *back[cell.states :]


# --- bytes: what is read once and written once; four for each number, one for each step of the mask -----------------------


def _parts(cell: Cell, t: int, d: int) -> tuple[int, int, int, int]:
    """x; initial states, w and bias; all states, h or h and c; gates that were saved."""
    own = cell.states * N * d + cell.gates * d * d + cell.biases * d
    return t * N * cell.gates * d, own, cell.states * (t + 1) * N * d, t * N * cell.saved * d


def _forward_bytes(cell: Cell, t: int, d: int) -> int:
    x, own, states, saved = _parts(cell, t, d)
    return 4 * (x + own + states + saved) + t * N


def _backward_bytes(cell: Cell, t: int, d: int) -> int:
    x, own, states, saved = _parts(cell, t, d)
    dy = t * N * d + (cell.states - 1) * N * d
    return 4 * (dy + states + saved + cell.gates * d * d + x + own) + t * N


def _double_bytes(cell: Cell, t: int, d: int) -> int:
    x, own, states, saved = _parts(cell, t, d)
    dy, w = t * N * d + (cell.states - 1) * N * d, cell.gates * d * d
    read = x + (own - w) + dy + x + states + saved + w  # v, without a vU; dy; dx; what was saved; U
    return 4 * (read + x + own + dy) + t * N


# --- PyTorch ---------------------------------------------------------------------------------------------------------------


@contextmanager
def _without_cudnn() -> Iterator[None]:
    from torch.backends import cudnn

    before, cudnn.enabled = cudnn.enabled, False
    try:
        yield
    finally:
        cudnn.enabled = before


@dataclass(frozen=True)
class Peer:
    """PyTorch's layer on the same numbers. What comes before the sweep in question is done in `prepare`, which is not timed."""

    cell: Cell
    which: str
    t: int
    d: int

    def prepare(self, rng: Rng, device: str) -> Args:
        import torch

        a, cell = _numbers(self.cell, self.t, self.d, rng), self.cell
        layer = getattr(torch.nn, str(cell.layer))(1, self.d)
        split = cell.gates * self.d  # PyTorch has two biases; a GRU's bias here is the first and the last third of the second
        second = np.zeros(split, np.float32)
        second[split - (len(a.bias) - split) :] = a.bias[split:]
        state = {"weight_ih_l0": a.w_in, "weight_hh_l0": a.w, "bias_ih_l0": a.bias[:split], "bias_hh_l0": second}
        layer.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
        layer.to(device)

        def there(x: Any) -> Any:
            return torch.from_numpy(x).to(device)

        p, vp = there(a.p), there(a.vp)
        states = [there(s[None]).requires_grad_() for s in a.states]
        dy = [there(a.dy[0]), *(there(c[None]) for c in a.dy[1:])]
        if self.which == "forward":
            return layer, p, states
        u = [*states, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0]
        if self.which == "backward":
            return self._outputs(layer, p, states), u, dy
        p.requires_grad_()
        dy = [v.requires_grad_() for v in dy]
        with _without_cudnn():
            dp = torch.autograd.grad(self._outputs(layer, p, states), p, dy, create_graph=True)
        return dp, [*u, *dy], [vp]

    def _outputs(self, layer: Any, p: Any, states: list[Any]) -> list[Any]:
        out, last = layer(p, tuple(states) if len(states) > 1 else states[0])
        return [out, last[1]] if len(states) > 1 else [out]

    def run(self, *args: Any) -> Any:
        import torch

        if self.which == "forward":
            return [y.detach() for y in self._outputs(*args)]
        return self._ours(torch.autograd.grad(*args, retain_graph=True))

    def _ours(self, found: Any) -> Any:
        """(states, w, b_ih, b_hh, ...) -> (states, w, bias, ...), shaped as the kernels' results."""
        import torch

        k, d = self.cell.states, self.d
        extra = (self.cell.biases - self.cell.gates) * d
        bias = torch.cat([found[k + 1], found[k + 2][-extra:]]) if extra else found[k + 1]
        dy = [*found[k + 3 : k + 4], *(c[0] for c in found[k + 4 :])]
        return [*(s[0] for s in found[:k]), found[k], bias, *dy]

    def part(self, results: list[Any]) -> list[Any]:
        """Of the kernel's results, those that PyTorch gives too."""
        if self.which == "forward":
            return [results[0][1:], results[1][-1][None]] if self.cell.states == 2 else [results[0][1:]]
        return results[1:]
