"""GRU as first published, the reset gate before the product, fused: its definition, to the second order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import minigen as mg
from minigen import ops

BACK_ENDS = pytest.mark.parametrize("back_end", ["reference", "auto"])
SIZES = pytest.mark.parametrize("sizes", [(5, 3, 4), (1, 3, 2), (4, 1, 3), (1, 1, 1), (3, 2, 17)])  # T, N, D
MASKS = pytest.mark.parametrize("masked", [False, True])


def thirds(a):
    """Rows or columns r, z, n along the last axis."""
    d = a.shape[-1] // 3
    return a[..., :d], a[..., d : 2 * d], a[..., 2 * d :]


def step_by_step(x, h, w, b, mask=None, keeps=True):
    """Cho et al. 2014, equations 5 to 8: h' = z h + (1 - z) n; or with keeps=False Chung's h' = (1 - z) h + z n."""
    w_r, w_z, w_n = thirds(w.T)
    b_r, b_z, b_n = thirds(b)
    outs = []
    for t in range(len(x)):
        x_r, x_z, x_n = thirds(x[t])
        r = ops.sigmoid(x_r + h @ w_r + b_r)
        z = ops.sigmoid(x_z + h @ w_z + b_z)
        n = ops.tanh(x_n + (r * h) @ w_n + b_n)
        new = z * h + (1 - z) * n if keeps else (1 - z) * h + z * n
        h = new if mask is None else ops.where(mask[t][:, None], new, h)
        outs.append(h)
    return ops.stack(outs)


def inputs(t, n, d):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(s) for s in ((t, n, 3 * d), (n, d), (3 * d, d), (3 * d,))]


def mask_of(masked, t, n):
    return np.random.default_rng(1).random((t, n)) < 0.6 if masked else None


@BACK_ENDS
@MASKS
@SIZES
def test_fused_is_step_by_step(alike, sizes, masked, back_end):
    mask = mask_of(masked, *sizes[:2])
    with mg.mode(back_end):
        alike(lambda *u: ops.gru_cho(*u, mask), lambda *u: step_by_step(*u, mask), inputs(*sizes))


@BACK_ENDS
@MASKS
def test_whichever_gradients_are_asked_for(alike, masked, back_end):
    mask = mask_of(masked, 4, 3)
    for count in (1, 2, 3):
        for asked in itertools.combinations(range(4), count):
            with mg.mode(back_end):
                alike(lambda *u: ops.gru_cho(*u, mask), lambda *u: step_by_step(*u, mask), inputs(4, 3, 2), asked)


@BACK_ENDS
def test_chungs_update_gate_is_ours_with_the_sign_of_z_changed(alike, back_end):
    """sigmoid(-a) = 1 - sigmoid(a): negate W_z, U_z and b_z, and each form computes the other."""
    sign = np.ones(9)
    sign[3:6] = -1

    def ours(x, h, w, b):
        return ops.gru_cho(x * sign, h, w * sign[:, None], b * sign)

    with mg.mode(back_end):
        alike(ours, lambda *u: step_by_step(*u, keeps=False), inputs(4, 2, 3))


@BACK_ENDS
def test_with_the_reset_gate_open_both_forms_are_one_cell(alike, back_end):
    """r = 1: nothing to put before or after. Elsewhere they differ."""
    x, h, w, b = inputs(4, 2, 3)
    b[:3] = 40.0  # sigmoid(40) rounds to 1
    w[:3] = 0.0

    def after(x, h, w, b):
        return ops.gru(x, h, w, ops.concatenate([b, mg.Tensor(np.zeros(3))]))

    with mg.mode(back_end):
        alike(ops.gru_cho, after, [x, h, w, b], asked=(0, 1))
    b[:3] = 0.0
    x, h, w, b = (mg.tensor(a) for a in (x, h, w, b))
    assert np.abs(ops.gru_cho(x, h, w, b).data - after(x, h, w, b).data).max() > 1e-2


@BACK_ENDS
def test_a_closed_reset_gate_forgets_the_state(back_end):
    """r = 0 and z = 0: each output is tanh(x_n + b_n), whatever came before; only that step's x_n has a gradient."""
    x, h0, w, b = (a.astype(np.float32) for a in inputs(3, 2, 4))
    x[..., :8], x[1, :, :8] = -1e4, -np.inf
    xs = [mg.tensor(a, requires_grad=True) for a in (x, h0, w, b)]
    with mg.mode(back_end):
        h = ops.gru_cho(*xs)
        first = mg.grad(h, xs, np.ones(h.shape), create_graph=True)
        second = mg.grad(sum((g * g).sum() for g in first), xs)
    np.testing.assert_allclose(h.data, np.tanh(x[..., 8:] + b[8:]), rtol=1e-6)
    np.testing.assert_allclose(first[0].data[..., 8:], 1 - h.data**2, rtol=1e-6, atol=1e-7)
    assert not first[0].data[..., :8].any() and not first[1].data.any() and not first[2].data.any()
    assert all(np.isfinite(g.data).all() for g in (*first, *second))
