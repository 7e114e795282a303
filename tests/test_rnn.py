"""Elman's net, fused: the same as its definition step by step, to the second order, and at the edges."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import minigen as mg
from minigen import ops

BACK_ENDS = pytest.mark.parametrize("back_end", ["reference", "auto"])
SIZES = pytest.mark.parametrize("sizes", [(5, 3, 4), (1, 3, 2), (4, 1, 3), (1, 1, 1), (3, 2, 17)])  # T, N, D
MASKS = pytest.mark.parametrize("masked", [False, True])


def step_by_step(x, h, w, b, mask=None):
    """The definition."""
    outs = []
    for t in range(len(x)):
        k = ops.tanh(x[t] + h @ w.T + b)
        h = k if mask is None else ops.where(mask[t][:, None], k, h)
        outs.append(h)
    return ops.stack(outs)


def inputs(t, n, d):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(s) for s in ((t, n, d), (n, d), (d, d), (d,))]


def mask_of(masked, t, n):
    return np.random.default_rng(1).random((t, n)) < 0.6 if masked else None


@BACK_ENDS
@MASKS
@SIZES
def test_fused_is_step_by_step(alike, sizes, masked, back_end):
    mask = mask_of(masked, *sizes[:2])
    with mg.mode(back_end):
        alike(lambda *u: ops.rnn(*u, mask), lambda *u: step_by_step(*u, mask), inputs(*sizes))


@BACK_ENDS
@MASKS
def test_whichever_gradients_are_asked_for(alike, masked, back_end):
    mask = mask_of(masked, 4, 3)
    for count in (1, 2, 3):
        for asked in itertools.combinations(range(4), count):
            with mg.mode(back_end):
                alike(lambda *u: ops.rnn(*u, mask), lambda *u: step_by_step(*u, mask), inputs(4, 3, 2), asked)


@BACK_ENDS
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_values_are_torchs(dtype, back_end):
    torch = pytest.importorskip("torch")
    x, h0, w, b = (a.astype(dtype) for a in inputs(6, 3, 20))
    theirs = torch.nn.RNN(20, 20).double()
    state = {"weight_ih_l0": np.eye(20), "weight_hh_l0": w, "bias_ih_l0": b, "bias_hh_l0": 0 * b}
    theirs.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
    exact, _ = theirs(torch.tensor(x).double(), torch.tensor(h0).double()[None])
    with mg.mode(back_end):
        found = ops.rnn(*map(mg.tensor, (x, h0, w, b)))
    assert found.dtype == dtype
    # Sums of twenty products; what is wrong by one epsilon in h is wrong by a few after the next step.
    np.testing.assert_allclose(found.data, exact.detach().numpy(), rtol=0, atol=200 * np.finfo(dtype).eps)


@BACK_ENDS
def test_saturation(back_end):
    """Far out tanh is +-1 exactly and its slope exactly 0: no NaN, no overflow, in either order."""
    x, h0, w, b = (a.astype(np.float32) for a in inputs(3, 2, 4))
    x[1] = [[1e30, -1e30, np.inf, -np.inf]] * 2
    xs = [mg.tensor(a, requires_grad=True) for a in (x, h0, w, b)]
    with mg.mode(back_end):
        y = ops.rnn(*xs)
        first = mg.grad(y[1:], xs, np.ones((2, 2, 4)), create_graph=True)
        second = mg.grad(sum((g * g).sum() for g in first), xs)
    np.testing.assert_array_equal(y.data[1], [[1, -1, 1, -1]] * 2)
    assert not first[0].data[:2].any() and not first[1].data.any() and first[0].data[2].all()  # nothing comes past step 1
    assert all(np.isfinite(g.data).all() for g in (*first, *second))
