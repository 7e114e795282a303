"""Batch and layer norm: against PyTorch to the second order, running statistics, and values far from zero."""

from __future__ import annotations

import numpy as np
import pytest

import minigen as mg
from minigen import ops

BACK_ENDS = pytest.mark.parametrize("back_end", ["reference", "auto"])
DTYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def three(*shape, features, seed=0):
    """x, weight, bias."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape), rng.random(features) + 0.5, rng.standard_normal(features)]


def ulps(ours, theirs, arrays, dtype):
    """Output, gradients, and gradients of a weighted sum of them, against PyTorch's in float64: worst, in epsilons."""
    torch = pytest.importorskip("torch")
    arrays = [np.asarray(a, dtype) for a in arrays]
    y_shape = arrays[0].shape
    rng = np.random.default_rng(9)
    v = rng.standard_normal(y_shape).astype(dtype)
    u = [rng.standard_normal(a.shape).astype(dtype) for a in arrays]

    def derivatives(f, leaf, constant, gradient):
        xs, cotangent = [leaf(a) for a in arrays], leaf(v)
        y = f(*xs)
        first = gradient(y, xs, cotangent, create_graph=True)
        total = sum((g * constant(w)).sum() for g, w in zip(first, u, strict=True))
        return [y, *first, *gradient(total, [xs[0], xs[1], cotangent])]

    double = {"dtype": torch.float64}
    found = derivatives(ours, lambda a: mg.tensor(a, requires_grad=True), mg.tensor, mg.grad)
    exact = derivatives(
        lambda *xs: theirs(torch, *xs),
        lambda a: torch.tensor(a, requires_grad=True, **double),
        lambda a: torch.tensor(a, **double),
        torch.autograd.grad,
    )
    assert [f.dtype for f in found] == [dtype] * len(found)
    exact = [e.detach().numpy() for e in exact]
    worst = [np.abs(f.data - e).max() / np.abs(e).max() for f, e in zip(found, exact, strict=True)]
    return np.max(worst) / np.finfo(dtype).eps


@BACK_ENDS
@DTYPES
@pytest.mark.parametrize("slope", [1.0, 0.2, 0.0])
@pytest.mark.parametrize("shape", [(8, 3), (4, 3, 5), (3, 5, 4, 7), (5, 1, 1, 1), (64, 9, 7, 7)])
def test_batch_norm_is_torchs(shape, slope, dtype, back_end):
    def theirs(t, x, w, b):
        return t.nn.functional.leaky_relu(t.nn.functional.batch_norm(x, None, None, w, b, training=True), slope)

    arrays = three(*shape, features=shape[1])
    # The second derivative subtracts three means of products: errors of some tens of epsilons, times 1 / std <= 10 or so.
    with mg.mode(back_end):
        assert ulps(lambda x, w, b: ops.batch_norm(x, w, b, negative_slope=slope), theirs, arrays, dtype) < 500


@BACK_ENDS
@DTYPES
@pytest.mark.parametrize(("shape", "inner"), [((6, 5), (5,)), ((2, 3, 4), (4,)), ((3, 2, 4, 5), (2, 4, 5)), ((70, 33), (33,))])
def test_layer_norm_is_torchs(shape, inner, dtype, back_end):
    def theirs(t, x, w, b):
        return t.nn.functional.layer_norm(x, inner, w, b)

    with mg.mode(back_end):
        assert ulps(ops.layer_norm, theirs, three(*shape, features=inner), dtype) < 500


@BACK_ENDS
@DTYPES
def test_running_statistics_follow_torch(dtype, back_end):
    torch = pytest.importorskip("torch")
    mean, var = np.zeros(3, dtype), np.ones(3, dtype)
    t_mean, t_var = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    for step in range(3):
        x, w, b = (a.astype(dtype) for a in three(4, 3, 2, 2, features=3, seed=step))
        x *= 3
        with mg.mode(back_end):
            ops.batch_norm(*map(mg.tensor, (x, w, b)), mean, var, momentum=0.3)
        torch.nn.functional.batch_norm(torch.tensor(x).double(), t_mean, t_var, training=True, momentum=0.3)
    assert mean.dtype == var.dtype == dtype
    np.testing.assert_allclose(mean, t_mean, rtol=0, atol=20 * np.finfo(dtype).eps)
    np.testing.assert_allclose(var, t_var, rtol=40 * np.finfo(dtype).eps)


@BACK_ENDS
@pytest.mark.parametrize("slope", [1.0, 0.2])
def test_evaluation_uses_and_keeps_the_running_statistics(slope, back_end):
    torch = pytest.importorskip("torch")
    mean, var = np.array([0.5, -1.0]), np.array([2.0, 0.3])
    kept = mean.copy(), var.copy()

    def theirs(t, x, w, b):
        y = t.nn.functional.batch_norm(x, t.tensor(mean), t.tensor(var), w, b, training=False)
        return t.nn.functional.leaky_relu(y, slope)

    x, w, b = (mg.tensor(a, requires_grad=True) for a in three(3, 2, 4, features=2))
    t = [torch.tensor(a.data, requires_grad=True) for a in (x, w, b)]
    with mg.mode(back_end):
        y = ops.batch_norm(x, w, b, mean, var, training=False, negative_slope=slope)
        found = [y, *mg.grad(y, [x, w, b], np.ones(y.shape))]
    z = theirs(torch, *t)
    for f, e in zip(found, [z, *torch.autograd.grad(z.sum(), t)], strict=True):
        np.testing.assert_allclose(f.data, e.detach().numpy(), rtol=1e-12, atol=1e-13)
    assert (mean.tolist(), var.tolist()) == (kept[0].tolist(), kept[1].tolist())


@BACK_ENDS
@pytest.mark.parametrize("f", ["batch", "layer"])
def test_a_large_mean_costs_only_its_own_digits(f, back_end):
    """Deviations first, squares after: E x^2 - (E x)^2 would leave nothing of a variance of 1 at a mean of 10,000."""
    x = (10_000 + np.random.default_rng(0).standard_normal((64, 64))).astype(np.float32)
    axis = 0 if f == "batch" else 1
    exact = x.astype(np.float64)
    exact = (exact - exact.mean(axis, keepdims=True)) / np.sqrt(exact.var(axis, keepdims=True) + 1e-5)
    w, b = mg.tensor(np.ones(64, np.float32)), mg.tensor(np.zeros(64, np.float32))
    with mg.mode(back_end):
        y = (ops.batch_norm if f == "batch" else ops.layer_norm)(mg.tensor(x), w, b)
    # Each of the mean's 64 additions rounds a sum of up to 640,000 by at most 2^-5, and 64 * 2^-5 / 64 is left of that.
    np.testing.assert_allclose(y.data, exact, atol=2**-5)


@BACK_ENDS
def test_a_constant_channel_gives_the_bias(back_end):
    x = mg.tensor(np.full((4, 2, 3), 5.0, np.float32), requires_grad=True)
    w, b = mg.tensor(np.ones(2, np.float32), requires_grad=True), mg.tensor(np.array([0.5, -1.0], np.float32), True)
    with mg.mode(back_end):
        y = ops.batch_norm(x, w, b)
        (g,) = mg.grad(y, x, np.arange(24.0).reshape(y.shape))
    np.testing.assert_array_equal(y.data, np.broadcast_to(b.data[:, None], y.shape))
    assert np.isfinite(g.data).all()


@BACK_ENDS
def test_nan_stays_in_its_channel_or_sample(back_end):
    x = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)
    x[2, 3] = np.nan
    w, b = mg.tensor(np.ones(5, np.float32)), mg.tensor(np.zeros(5, np.float32))
    with mg.mode(back_end):
        batch, layer = ops.batch_norm(mg.tensor(x), w, b).data, ops.layer_norm(mg.tensor(x), w, b).data
    assert np.isnan(batch[:, 3]).all() and np.isnan(batch).sum() == 6
    assert np.isnan(layer[2]).all() and np.isnan(layer).sum() == 5


@BACK_ENDS
def test_a_slope_that_turns_values_round_is_refused_or_right(back_end):
    """The mask is read off the sign of y; with a negative slope that sign says nothing."""
    x, w, b = (mg.tensor(a, requires_grad=True) for a in three(8, 2, features=2))
    with mg.mode(back_end):
        try:
            y = ops.batch_norm(x, w, b, negative_slope=-0.5)
        except ValueError:
            return
        fused = mg.grad(y, x, np.ones((8, 2)))[0]
        plain = mg.grad(ops.leaky_relu(ops.batch_norm(x, w, b), -0.5), x, np.ones((8, 2)))[0]
    np.testing.assert_allclose(fused.data, plain.data, atol=1e-12)


@BACK_ENDS
def test_empty_batches(back_end):
    x, w, b = (mg.tensor(np.ones(s, np.float32)) for s in ((0, 3), 3, 3))
    with mg.mode(back_end):
        assert ops.layer_norm(x, w, b).shape == (0, 3)
        assert ops.batch_norm(x, w, b, np.zeros(3), np.ones(3), training=False).shape == (0, 3)


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda x, w: ops.batch_norm(x[:1], w, w), "more than one value per channel"),
        (lambda x, w: ops.batch_norm(x, w, w, training=False), "needs running statistics"),
        (lambda x, w: ops.layer_norm(x, w[:2], w[:2]), r"x \(4, 3\) does not end in the normalised shape \(2,\)"),
    ],
)
def test_bad_arguments(f, message):
    with pytest.raises(ValueError, match=message):
        f(mg.tensor(np.ones((4, 3))), mg.tensor(np.ones(3)))
