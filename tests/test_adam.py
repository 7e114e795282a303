"""The Adam and AdamW update: against PyTorch and against the equations, on both back ends."""

from __future__ import annotations

import numpy as np
import pytest

import minigen as mg
from minigen.ops.adam import adam_rates, adam_update

BACK_ENDS = pytest.mark.parametrize("back_end", ["reference", "auto"])
SIZES = [(1,), (7,), (3, 5), (130, 67), ()]


def rates(lr, b1, b2, decay, step):
    return adam_rates(lr, b1, b2, decay, np.array([step]))[0]


def run(p, grads, lr=1e-2, b1=0.9, b2=0.99, eps=1e-8, decay=0.0):
    """Five steps in place; returns p, m, v."""
    p, m, v = p.copy(), np.zeros_like(p), np.zeros_like(p)
    for step, g in enumerate(grads, 1):
        adam_update(p, m, v, g, rates(lr, b1, b2, decay, step), b1, b2, eps)
    return p, m, v


def draw(shape, dtype):
    rng = np.random.default_rng(0)
    grads = [np.asarray(rng.standard_normal(shape), dtype) * 10.0 ** rng.integers(-3, 3) for _ in range(5)]
    return np.asarray(rng.standard_normal(shape), dtype), [g.astype(dtype) for g in grads]


@BACK_ENDS
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("shape", SIZES)
def test_five_steps_are_torchs(shape, decay, dtype, back_end):
    torch = pytest.importorskip("torch")
    p, grads = draw(shape, dtype)
    t = torch.tensor(p, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.AdamW([t], lr=1e-2, betas=(0.9, 0.99), eps=1e-8, weight_decay=decay)
    for g in grads:
        t.grad = torch.tensor(g, dtype=torch.float64)
        optimizer.step()
    with mg.mode(back_end):
        found = run(p, grads, decay=decay)
    state = optimizer.state[t]
    for f, e in zip(found, (t.detach(), state["exp_avg"], state["exp_avg_sq"]), strict=True):
        assert f.dtype == dtype and f.shape == shape
        # Five steps of ten roundings each, relative to the largest entry of p, m or v.
        assert np.abs(f - e.numpy()).max() < 50 * np.finfo(dtype).eps * max(np.abs(e.numpy()).max(), 0.1)


@BACK_ENDS
def test_the_first_step_moves_by_the_learning_rate(back_end):
    """Bias correction makes m / sqrt(v) = sign(g) at step 1, whatever the size of g: 14 orders of magnitude here."""
    g = np.array([1e-7, -1e-3, 1.0, -1e7])
    with mg.mode(back_end):
        p, _, _ = run(np.zeros(4), [g], lr=0.5, eps=0.0)
    np.testing.assert_allclose(p, -0.5 * np.sign(g), rtol=1e-14)


@BACK_ENDS
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_late_step_by_the_equations(dtype, back_end):
    b1, b2, eps, lr, decay, step = 0.5, 0.999, 1e-8, 0.01, 0.1, 1000
    rng = np.random.default_rng(2)
    p, m, v, g = (rng.random(9) for _ in range(4))
    m1, v1 = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    p1 = p * (1 - lr * decay) - lr * (m1 / (1 - b1**step)) / (np.sqrt(v1 / (1 - b2**step)) + eps)
    found = [a.astype(dtype) for a in (p, m, v)]
    with mg.mode(back_end):
        adam_update(*found, g.astype(dtype), rates(lr, b1, b2, decay, step), b1, b2, eps)
    for f, e in zip(found, (p1, m1, v1), strict=True):
        np.testing.assert_allclose(f, e, rtol=10 * np.finfo(dtype).eps)


@BACK_ENDS
def test_gradients_that_are_views(back_end):
    """A gradient may be a broadcast of one number (that of a sum), or lie transposed: it is read, never written."""
    ones, spread = np.ones((4, 6), np.float32), np.broadcast_to(np.float32(1), (4, 6))
    g = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    with mg.mode(back_end):
        for view, plain in (
            (spread, ones),
            (g.T, np.ascontiguousarray(g.T)),
            (np.repeat(g, 2, 0)[::2].T, np.ascontiguousarray(g.T)),
        ):
            for a, b in zip(run(ones, [view]), run(ones, [plain]), strict=True):
                np.testing.assert_array_equal(a, b)


@BACK_ENDS
def test_parameters_that_are_views_are_written_through_or_refused(back_end):
    """Never: a copy that is updated and dropped."""
    base = np.zeros((6, 4), np.float32)
    m, v, g = (np.full((4, 6), value, np.float32) for value in (0, 0, 1))
    with mg.mode(back_end):
        try:
            adam_update(base.T, m, v, g, rates(0.5, 0.9, 0.99, 0.0, 1), 0.9, 0.99, 0.0)
        except ValueError as error:
            assert "contiguous" in str(error) and not base.any() and not m.any() and not v.any()
        else:
            np.testing.assert_allclose(base, -0.5, rtol=1e-6)


@BACK_ENDS
def test_nan_and_nothing(back_end):
    g = np.zeros(5, np.float32)
    g[2] = np.nan
    with mg.mode(back_end):
        p, m, v = run(np.ones(5, np.float32), [g])
        empty = run(np.zeros((0, 3), np.float32), [np.zeros((0, 3), np.float32)])
    for a in (p, m, v):
        assert np.isnan(a).tolist() == [False, False, True, False, False]
    assert p[0] == 1  # a gradient of zero moves nothing
    assert empty[0].shape == (0, 3)
