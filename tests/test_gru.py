"""GRU with the reset gate after the product, fused: its definition, to the second order; and whose z is whose."""

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


def step_by_step(x, h, w, b, mask=None):
    """The definition, as PyTorch's documentation writes it: h' = (1 - z) n + z h."""
    d = w.shape[1]
    w_r, w_z, w_n = thirds(w.T)
    b_r, b_z, b_n, b_q = (b[i * d : (i + 1) * d] for i in range(4))
    outs = []
    for t in range(len(x)):
        x_r, x_z, x_n = thirds(x[t])
        r = ops.sigmoid(x_r + h @ w_r + b_r)
        z = ops.sigmoid(x_z + h @ w_z + b_z)
        n = ops.tanh(x_n + b_n + r * (h @ w_n + b_q))
        new = (1 - z) * n + z * h
        h = new if mask is None else ops.where(mask[t][:, None], new, h)
        outs.append(h)
    return ops.stack(outs)


def chungs(x, h, w, b):
    """The same cell with Chung's update gate: h' = (1 - z) h + z n."""
    d = w.shape[1]
    w_r, w_z, w_n = thirds(w.T)
    b_r, b_z, b_n, b_q = (b[i * d : (i + 1) * d] for i in range(4))
    outs = []
    for t in range(len(x)):
        x_r, x_z, x_n = thirds(x[t])
        r = ops.sigmoid(x_r + h @ w_r + b_r)
        z = ops.sigmoid(x_z + h @ w_z + b_z)
        n = ops.tanh(x_n + b_n + r * (h @ w_n + b_q))
        h = (1 - z) * h + z * n
        outs.append(h)
    return ops.stack(outs)


def inputs(t, n, d):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(s) for s in ((t, n, 3 * d), (n, d), (3 * d, d), (4 * d,))]


def mask_of(masked, t, n):
    return np.random.default_rng(1).random((t, n)) < 0.6 if masked else None


@BACK_ENDS
@MASKS
@SIZES
def test_fused_is_step_by_step(alike, sizes, masked, back_end):
    mask = mask_of(masked, *sizes[:2])
    with mg.mode(back_end):
        alike(lambda *u: ops.gru(*u, mask), lambda *u: step_by_step(*u, mask), inputs(*sizes))


@BACK_ENDS
@MASKS
def test_whichever_gradients_are_asked_for(alike, masked, back_end):
    mask = mask_of(masked, 4, 3)
    for count in (1, 2, 3):
        for asked in itertools.combinations(range(4), count):
            with mg.mode(back_end):
                alike(lambda *u: ops.gru(*u, mask), lambda *u: step_by_step(*u, mask), inputs(4, 3, 2), asked)


@BACK_ENDS
def test_chungs_update_gate_is_ours_with_the_sign_of_z_changed(alike, back_end):
    """sigmoid(-a) = 1 - sigmoid(a): negate W_z, U_z and b_z, and each form computes the other."""
    sign = {"x": np.ones(9), "w": np.ones((9, 1)), "b": np.ones(12)}
    for s in sign.values():
        s[3:6] = -1
    with mg.mode(back_end):
        alike(lambda x, h, w, b: ops.gru(x * sign["x"], h, w * sign["w"], b * sign["b"]), chungs, inputs(4, 2, 3))
    x, h, w, b = (mg.tensor(a) for a in inputs(4, 2, 3))
    assert np.abs(ops.gru(x, h, w, b).data - chungs(x, h, w, b).data).max() > 0.1  # without it they differ


@BACK_ENDS
@pytest.mark.parametrize(("open_z", "kept"), [(1e4, True), (-1e4, False)])
def test_z_keeps_the_old_state(open_z, kept, back_end):
    x = np.zeros((3, 1, 6), np.float32)
    x[..., 2:4], x[..., 4:] = open_z, 1e4
    h0, w, b = np.full((1, 2), 0.5, np.float32), np.zeros((6, 2), np.float32), np.zeros(8, np.float32)
    xs = [mg.tensor(a, requires_grad=True) for a in (x, h0, w, b)]
    with mg.mode(back_end):
        h = ops.gru(*xs)
        first = mg.grad(h, xs, np.ones(h.shape), create_graph=True)
        second = mg.grad(sum((g * g).sum() for g in first), xs)
    np.testing.assert_array_equal(h.data, np.full((3, 1, 2), 0.5 if kept else 1.0))
    np.testing.assert_array_equal(first[1].data, np.full((1, 2), 3.0 if kept else 0.0))
    assert all(np.isfinite(g.data).all() for g in (*first, *second))


@BACK_ENDS
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_values_are_torchs(dtype, back_end):
    torch = pytest.importorskip("torch")
    x, h0, w, b = (a.astype(dtype) for a in inputs(6, 3, 20))
    theirs = torch.nn.GRU(60, 20).double()
    b_ih, b_hh = b[:60], np.concatenate([np.zeros(40), b[60:]])
    state = {"weight_ih_l0": np.eye(60), "weight_hh_l0": w, "bias_ih_l0": b_ih, "bias_hh_l0": b_hh}
    theirs.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
    exact, _ = theirs(torch.tensor(x).double(), torch.tensor(h0).double()[None])
    with mg.mode(back_end):
        found = ops.gru(*map(mg.tensor, (x, h0, w, b)))
    assert found.dtype == dtype
    # Sums of twenty products; what is wrong by one epsilon in h is wrong by a few after the next step.
    np.testing.assert_allclose(found.data, exact.detach().numpy(), rtol=0, atol=200 * np.finfo(dtype).eps)
