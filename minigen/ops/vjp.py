"""The gradient of an expression, for Ops whose backward is fused: how batch norm gets its second order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigen.autograd import Op, enable_grad, grad, is_recording
from minigen.tensor import Tensor


class Identity(Op):
    """The same values as a new node of the graph."""

    view = True

    def forward(self, x):
        return x

    def backward(self, dy):
        return (dy,)


def vjp(f: Any, inputs: Sequence[Tensor], cotangents: Sequence[Tensor | None], needs: Sequence[bool]) -> list[Tensor | None]:
    """Gradients of sum <cotangent, f(*inputs)> for the inputs that `needs` names, f being composed of ops.

    For the backward of a fused gradient Op: what the kernel computes is written once more as an expression, and that is
    differentiated. Each input is held apart by an Identity, so that paths from one input to another (the cotangent of a
    layer depends on the layer's input) are not followed here: the outer walk does that.
    """
    create_graph = is_recording()
    with enable_grad():
        held = [Identity()(t) if need else t.detach() for t, need in zip(inputs, needs, strict=True)]
        outs = f(*held)
    # An output that depends on none of the inputs that are asked for has nothing to add.
    pairs = [(o, c) for o, c in zip(outs, cotangents, strict=True) if c is not None and o.requires_grad]
    asked = [t for t, need in zip(held, needs, strict=True) if need]
    found = iter(grad([o for o, _ in pairs], asked, [c for _, c in pairs], create_graph, allow_unused=True))
    results: list[Tensor | None] = []
    for t, need in zip(held, needs, strict=True):
        g = next(found) if need else None
        results.append(Tensor(np.zeros_like(t._data)) if need and g is None else g)
    return results
