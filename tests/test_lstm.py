"""LSTM, fused: the same as its definition step by step, to the second order, and at the edges."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import minigen as mg
from minigen import ops

BACK_ENDS = pytest.mark.parametrize("back_end", ["reference", "auto"])
SIZES = pytest.mark.parametrize("sizes", [(5, 3, 4), (1, 3, 2), (4, 1, 3), (1, 1, 1), (3, 2, 17)])  # T, N, D
MASKS = pytest.mark.parametrize("masked", [False, True])


def step_by_step(x, h, c, w, b, mask=None):
    """The definition, gate by gate."""
    d = w.shape[1]
    outs = []
    for t in range(len(x)):
        a = x[t] + h @ w.T + b
        i, f = ops.sigmoid(a[:, :d]), ops.sigmoid(a[:, d : 2 * d])
        g, o = ops.tanh(a[:, 2 * d : 3 * d]), ops.sigmoid(a[:, 3 * d :])
        c_new = f * c + i * g
        h_new = o * ops.tanh(c_new)
        m = None if mask is None else mask[t][:, None]
        h, c = (h_new, c_new) if m is None else (ops.where(m, h_new, h), ops.where(m, c_new, c))
        outs.append(h)
    return ops.stack(outs), c


def inputs(t, n, d):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(s) for s in ((t, n, 4 * d), (n, d), (n, d), (4 * d, d), (4 * d,))]


def mask_of(masked, t, n):
    return np.random.default_rng(1).random((t, n)) < 0.6 if masked else None


@BACK_ENDS
@MASKS
@SIZES
def test_fused_is_step_by_step(alike, sizes, masked, back_end):
    mask = mask_of(masked, *sizes[:2])
    with mg.mode(back_end):
        alike(lambda *u: ops.lstm(*u, mask), lambda *u: step_by_step(*u, mask), inputs(*sizes))


@BACK_ENDS
@MASKS
@pytest.mark.parametrize("used", [0, 1])
def test_only_one_of_its_outputs_may_be_used(alike, used, masked, back_end):
    mask = mask_of(masked, 4, 3)
    with mg.mode(back_end):
        alike(lambda *u: ops.lstm(*u, mask)[used], lambda *u: step_by_step(*u, mask)[used], inputs(4, 3, 2))


@BACK_ENDS
@MASKS
def test_whichever_gradients_are_asked_for(alike, masked, back_end):
    mask = mask_of(masked, 4, 3)
    for count in (1, 2, 4):
        for asked in itertools.combinations(range(5), count):
            with mg.mode(back_end):
                alike(lambda *u: ops.lstm(*u, mask), lambda *u: step_by_step(*u, mask), inputs(4, 3, 2), asked)


@BACK_ENDS
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_values_are_torchs(dtype, back_end):
    torch = pytest.importorskip("torch")
    x, h0, c0, w, b = (a.astype(dtype) for a in inputs(6, 3, 20))
    theirs = torch.nn.LSTM(80, 20).double()
    state = {"weight_ih_l0": np.eye(80), "weight_hh_l0": w, "bias_ih_l0": b, "bias_hh_l0": 0 * b}
    theirs.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
    exact, (_, exact_c) = theirs(torch.tensor(x).double(), tuple(torch.tensor(s).double()[None] for s in (h0, c0)))
    with mg.mode(back_end):
        h, c = ops.lstm(*map(mg.tensor, (x, h0, c0, w, b)))
    assert h.dtype == c.dtype == dtype
    # Sums of twenty products; what is wrong by one epsilon in h is wrong by a few after the next step.
    np.testing.assert_allclose(h.data, exact.detach().numpy(), rtol=0, atol=200 * np.finfo(dtype).eps)
    np.testing.assert_allclose(c.data, exact_c[0].detach().numpy(), rtol=0, atol=200 * np.finfo(dtype).eps)


@BACK_ENDS
def test_saturated_gates_keep_or_replace_the_cell(back_end):
    """i = 0, f = 1 carries c on as it is, for ever; i = 1, f = 0, g = 1 forgets it for 1. o = 0 shows neither."""
    keep, replace, hidden = [-1e4, 1e4, 0.0, 1e4], [1e4, -np.inf, np.inf, 1e4], [-1e4, 1e4, 0.0, -np.inf]
    x = np.repeat(np.array([keep, keep, replace, hidden], np.float32)[:, None], 2, axis=2)  # two units
    h0, c0 = np.zeros((1, 2), np.float32), np.array([[0.25, -40.0]], np.float32)
    w, b = np.zeros((8, 2), np.float32), np.zeros(8, np.float32)
    xs = [mg.tensor(a, requires_grad=True) for a in (x, h0, c0, w, b)]
    with mg.mode(back_end):
        h, _ = ops.lstm(*xs)
        _, kept = ops.lstm(xs[0][:2], *xs[1:])
        first = mg.grad([h, kept], xs, [np.ones(h.shape), np.ones(kept.shape)], create_graph=True)
        second = mg.grad(sum((g * g).sum() for g in first), xs)
    np.testing.assert_array_equal(kept.data, c0)
    np.testing.assert_allclose(h.data[:, 0, 0], np.tanh([0.25, 0.25, 1.0, 0.0]) * [1, 1, 1, 0], rtol=3e-7)
    assert first[2].data[0, 0] == pytest.approx(1 + 2 * (1 - np.tanh(0.25) ** 2), rel=1e-6)  # kept, and seen twice
    assert all(np.isfinite(g.data).all() for g in (*first, *second))


@BACK_ENDS
def test_the_last_cell_state_goes_on_into_the_next_piece(back_end):
    """A long sequence in two pieces, states carried over, is the sequence in one: truncated BPTT without the truncation."""
    x, *rest = (mg.tensor(a, requires_grad=True) for a in inputs(6, 2, 3))
    h0, c0, w, b = rest
    with mg.mode(back_end):
        whole, c_whole = ops.lstm(x, h0, c0, w, b)
        one, c = ops.lstm(x[:2], h0, c0, w, b)
        two, c = ops.lstm(x[2:], one[-1], c, w, b)
        pieces = ops.concatenate([one, two])
        v, vc = np.random.default_rng(3).standard_normal((6, 2, 3)), np.ones((2, 3))
        exact = mg.grad([whole, c_whole], [x, *rest], [v, vc])
        found = mg.grad([pieces, c], [x, *rest], [v, vc])
    np.testing.assert_allclose(pieces.data, whole.data, rtol=1e-14)
    for f, e in zip(found, exact, strict=True):
        np.testing.assert_allclose(f.data, e.data, rtol=1e-12, atol=1e-13)
