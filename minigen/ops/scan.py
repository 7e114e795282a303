"""What RNN, GRU and LSTM share: how a scan over a whole sequence meets the graph.

A scan is fused: one Op for all T steps, not T small ones. Its gradient is an Op of its own, and so is the gradient of that:

    forward           h_t = cell(x_t, h_{t-1})                     t = 1 .. T
    backward          dh_{t-1} from dh_t                           t = T .. 1
    double backward   both sweeps again, with tangents

The third line needs a word. Let F(u) be the forward sweep, u all its inputs, and B(u, dy) = F'(u)^T dy the backward sweep. When
a penalty on a gradient is differentiated, B receives a cotangent v, shaped like u, and owes the gradient of

    <v, B(u, dy)>  =  <v, F'(u)^T dy>  =  <F'(u) v, dy>

    for dy:   F'(u) v                      the forward sweep's derivative along v: its tangents
    for u:    d/dh B(u + h v, dy), h = 0   the backward sweep's derivative along v (second derivatives are symmetric)

So nothing new is derived: each line of the two sweeps is written once more by the product rule. In the code `vq` is the tangent
of q. The test is the complex step, Im B(u + ih v, dy) / h, which needs no derivation at all.

**Masks.** mask (T, N) says which steps of which sequences exist. Elsewhere the state is carried on unchanged, so the last state
is that of the last existing step. What x holds there does not matter, be it NaN: the gates kept from those steps are zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minigen.autograd import GradientError, Op
from minigen.device import constant
from minigen.ops.arithmetic import as_tensor
from minigen.tensor import Tensor

Kernel = Callable[..., Any]


def sigmoid(x: Any) -> Any:
    """By tanh, which neither overflows nor minds complex numbers."""
    return 0.5 * np.tanh(0.5 * x) + 0.5


class Scan(Op):
    """Inputs: the input's part of the gates x (T, N, G), one or two initial states (N, D), w_hh (G, D), bias.

    Outputs: h (T, N, D) and, of a cell with two states, c_n (N, D). A subclass names its three kernels:

        forward_kernel(x, *states, w, bias, mask)                      -> h (T+1, N, D) with the initial state first, *saved
        backward_kernel(dh, *dstates, h, *saved, w, mask, want_w)      -> dx, *dstates, dw, dbias
        double_backward_kernel(vx, *vstates, vw, vbias, dh, *dstates, dx, h, *saved, w, mask)
                                                                       -> gradients for x, *states, w, bias, dh, *dstates

    where `dstates` are gradients of the last state(s) other than h, whose last step is in dh already.
    """

    states = 1
    outputs: int
    forward_kernel: Kernel
    backward_kernel: Kernel
    double_backward_kernel: Kernel
    grad: type[ScanGrad]
    double_backward: type[ScanDoubleBackward]

    def __init_subclass__(cls) -> None:
        """Give the cell's gradient Ops names of their own, GRUGrad and GRUDoubleBackward, for error messages."""
        cls.outputs = cls.states
        cls.grad = type(f"{cls.__name__}Grad", (ScanGrad,), {"scan": cls, "outputs": 3 + cls.states})
        double = type(f"{cls.__name__}DoubleBackward", (ScanDoubleBackward,), {"scan": cls, "outputs": 3 + 2 * cls.states})
        cls.double_backward = double

    def __init__(self, mask: Any) -> None:
        self.mask = mask

    def __call__(self, *inputs: Tensor) -> Any:
        result = super().__call__(*inputs)
        self.given = _versions(*(result if isinstance(result, tuple) else (result,)))
        return result

    def forward(self, *inputs):
        self.saved = type(self).forward_kernel(*inputs, self.mask)
        h = self.saved[0]
        return h[1:] if self.states == 1 else (h[1:], self.saved[1][-1])

    def backward(self, *grads):
        _unchanged(self.name, self.given)
        x, *states, w, bias = self.inputs
        t, n, _ = x.shape
        shapes = ((t, n, w.shape[1]), (n, w.shape[1]))
        given = [Tensor(np.zeros_like(x._data, shape=s)) if g is None else g for g, s in zip(grads, shapes, strict=False)]
        want_w = self.needs[-2] or self.needs[-1]
        return self.grad(self.mask, self.saved, self.given, want_w)(x, *states, w, bias, *given)


def _versions(*given: Tensor) -> list[Any]:
    """What a sweep keeps for the next one it also gives to the user, the same array: it must not change in place."""
    return [(t._version, t._version[0]) for t in given]


def _unchanged(name: str, given: list[Any]) -> None:
    for version, count in given:
        if version[0] != count:
            raise GradientError(f"{name}: what this scan gave was changed in place before backward")


class ScanGrad(Op):
    """The backward sweep. `want_w`: whether the gradients of w and bias are used, which cost as much as the sweep."""

    scan: type[Scan]

    def __init__(self, mask: Any, saved: tuple[Any, ...], given: Any, want_w: bool) -> None:
        self.mask, self.saved, self.given, self.want_w = mask, saved, given, want_w

    def __call__(self, *inputs: Tensor) -> Any:
        result = super().__call__(*inputs)
        self.given = self.given + _versions(result[0])
        return result

    def forward(self, *inputs):
        w, grads = inputs[1 + self.scan.states], inputs[3 + self.scan.states :]
        found = self.scan.backward_kernel(*grads, *self.saved, w, self.mask, self.want_w)
        self.dx = found[0]
        return found

    def backward(self, *cotangents):
        _unchanged(self.name, self.given)
        present = [v for v in cotangents if v is not None]
        which = tuple(v is not None for v in cotangents)
        return self.scan.double_backward(self.mask, self.saved, self.dx, which)(*self.inputs, *present)


class ScanDoubleBackward(Op):
    """Both sweeps with tangents. It has no backward: a third derivative raises, and names the cell."""

    scan: type[Scan]

    def __init__(self, mask: Any, saved: tuple[Any, ...], dx: Any, which: tuple[bool, ...]) -> None:
        self.mask, self.saved, self.dx, self.which = mask, saved, dx, which

    def forward(self, *inputs):
        own = 3 + 2 * self.scan.states
        u, present = inputs[: 3 + self.scan.states], iter(inputs[own:])
        # A cotangent that nobody sent is zero; for w it stays None, because it would cost two large products.
        w = 1 + self.scan.states
        v = [next(present) if there else None if i == w else np.zeros_like(u[i]) for i, there in enumerate(self.which)]
        grads = inputs[3 + self.scan.states : own]
        return self.scan.double_backward_kernel(*v, *grads, self.dx, *self.saved, u[w], self.mask)

    def backward(self, *grads):
        raise GradientError(f"{self.name} has no gradient: a fused scan can be differentiated twice, not three times")


def checked(name: str, gates: int, x: Tensor, states: list[Tensor], w: Tensor, bias: Tensor, biases: int, mask: Any) -> Any:
    """The mask as an array (T, N) of booleans. ValueError says which shape is wrong, TypeError that dtypes differ."""
    if x.ndim != 3 or w.ndim != 2 or w.shape[0] != gates * w.shape[1] or x.shape[2] != w.shape[0]:
        raise ValueError(
            f"{name}: gates of shape {x.shape} and a weight of shape {w.shape}; wanted (T, N, {gates} D) and ({gates} D, D)"
        )
    t, n, d = x.shape[0], x.shape[1], w.shape[1]
    if t == 0:
        raise ValueError(f"{name}: a sequence of no steps")
    for s in states:
        if s.shape != (n, d):
            raise ValueError(f"{name}: an initial state of shape {s.shape}; wanted (N, D) = {(n, d)}")
    if bias.shape != (biases * d,):
        raise ValueError(f"{name}: a bias of shape {bias.shape}; wanted ({biases} D,) = {(biases * d,)}")
    if len({a.dtype for a in (x, *states, w, bias)}) > 1:
        kinds = ", ".join(str(a.dtype) for a in (x, *states, w, bias))
        raise TypeError(f"{name}: gates, states, weight and bias must have one dtype, not {kinds}")
    if mask is None:
        return np.ones((t, n), bool) if x.device == "cpu" else constant(np.ones, (t, n), bool)
    mask = as_tensor(mask, x).data
    mask = np.array(mask, bool) if x.device == "cpu" else mask.astype(bool)  # a copy: a loader may fill the same array again
    if mask.shape != (t, n):
        raise ValueError(f"{name}: a mask of shape {mask.shape}; wanted (T, N) = {(t, n)}")
    return mask


def split(a: Any, d: int) -> list[Any]:
    """(..., k D) -> k arrays (..., D): views."""
    return [a[..., i : i + d] for i in range(0, a.shape[-1], d)]


def weight_gradients(d_tng: Any, h_tnd: Any, want_w: bool) -> tuple[Any, Any]:
    """dw = sum d h^T over all steps, one product; db = sum d. Where nobody wants them, zeros without memory."""
    g, d = d_tng.shape[-1], h_tnd.shape[-1]
    if not want_w:
        return np.broadcast_to(d_tng.dtype.type(0), (g, d)), np.broadcast_to(d_tng.dtype.type(0), (g,))
    return d_tng.reshape(-1, g).T @ h_tnd.reshape(-1, d), d_tng.sum(axis=(0, 1))
