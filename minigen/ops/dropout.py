"""Dropout (Srivastava et al. 2014): y = x * mask / (1 - p), each element kept with probability 1 - p.

The mask is drawn once, where x is, in the forward pass, and is a constant to every derivative.
"""

from __future__ import annotations

import numpy as np

from minigen import random
from minigen.ops.arithmetic import mul
from minigen.ops.example import example
from minigen.tensor import Tensor


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """x with each element zeroed with probability `p` and the others divided by 1 - p; x itself outside training."""
    if not 0 <= p < 1:
        raise ValueError(f"dropout: p must be in [0, 1), not {p}")
    if not training or p == 0:
        return x
    keep = random.draw("uniform", x.shape, np.float32, x.device) >= p
    return mul(x, Tensor(keep.astype(x.dtype) / x.dtype.type(1 - p)))


def _seeded(x: Tensor) -> Tensor:
    """Dropout with the same mask on every call, as a finite difference needs."""
    state = random.get_state()
    y = dropout(x, 0.4)
    random.set_state(state)
    return y


EXAMPLES = {"dropout": [example(_seeded, (4, 5))]}
