"""Spectral normalisation (Miyato et al. 2018, section 2.1 and algorithm 1): W / sigma(W), sigma the largest singular value.

    v <- W^T u / |W^T u|,   u <- W v / |W v|        power iteration: u, v approach the leading singular vectors
    sigma = u^T W v                                  u and v are constants to the gradient; sigma is linear in W

W is the weight with its first axis kept and all others flattened.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigen.ops.arithmetic import div, mul
from minigen.ops.example import example
from minigen.ops.reduce import sum
from minigen.ops.shape import reshape
from minigen.tensor import Tensor


def power_iteration(w_oi: Any, u_o: Any, steps: int = 1, eps: float = 1e-12) -> tuple[Any, Any]:
    """Arrays W (O, I), u (O,) -> u (O,), v (I,) after `steps` rounds, both of length one."""
    for _ in range(steps):
        v_i = w_oi.T @ u_o
        v_i = v_i / np.maximum(np.linalg.norm(v_i), eps)
        u_o = w_oi @ v_i
        u_o = u_o / np.maximum(np.linalg.norm(u_o), eps)
    return u_o, v_i


def spectral_norm(weight: Tensor, u: Any, v: Any) -> Tensor:
    """weight / (u^T W v), for arrays u (O,) and v (I,) from `power_iteration`."""
    flat = reshape(weight, (weight.shape[0], -1))
    sigma = sum(mul(flat, Tensor(np.outer(u, v).astype(weight.dtype, copy=False))))
    return div(weight, sigma)


def _example(w: Tensor) -> Tensor:
    rng = np.random.default_rng(0)
    return spectral_norm(w, rng.standard_normal(3), rng.standard_normal(4))


EXAMPLES = {"spectral_norm": [example(_example, (3, 2, 2))]}
