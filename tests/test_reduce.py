"""Sums, means, variances, maxima, logsumexp: against PyTorch, and where all values are equal, huge or absent."""

from __future__ import annotations

import numpy as np
import pytest

import minigen as mg
from minigen import ops

X = np.random.default_rng(0).standard_normal((3, 4, 5))


def ulps(ours, theirs, array, dtype):
    """Worst distance of our output and gradient from PyTorch's float64 answer: over its largest entry, in epsilons."""
    torch = pytest.importorskip("torch")
    array = np.asarray(array, dtype)
    x, t = mg.tensor(array, requires_grad=True), torch.tensor(array, dtype=torch.float64, requires_grad=True)
    y, z = ours(x), theirs(t)
    assert y.shape == z.shape
    v = np.random.default_rng(9).standard_normal(z.shape).astype(dtype)
    pairs = [(y, z), (*mg.grad(y, x, v), *torch.autograd.grad(z, t, torch.tensor(v, dtype=torch.float64)))]
    assert all(f.dtype == dtype for f, _ in pairs)
    exact = [(f.data, e.detach().numpy()) for f, e in pairs]
    return np.max([np.abs(f - e).max() / (np.abs(e).max() or 1) for f, e in exact]) / np.finfo(dtype).eps


DIMS = [0, -1, (0, 2), (-1, 0), (0, 1, 2)]
NAMES = {
    "sum": (ops.sum, lambda x, **at: x.sum(**at)),
    "mean": (ops.mean, lambda x, **at: x.mean(**at)),
    "var": (ops.var, lambda x, **at: x.var(**at)),
    "biased": (lambda x, **at: ops.var(x, correction=0, **at), lambda x, **at: x.var(correction=0, **at)),
    "max": (ops.max, lambda x, **at: x.amax(**at)),
    "logsumexp": (ops.logsumexp, lambda x, **at: x.logsumexp(**at)),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_torchs(name, dim, keepdim, dtype):
    # Up to 60 terms: half an epsilon for each in the worst case, and a few more roundings before and after.
    ours, theirs = NAMES[name]
    at = {"dim": dim, "keepdim": keepdim}
    assert ulps(lambda x: ours(x, **at), lambda t: theirs(t, **at), X, dtype) < 40


@pytest.mark.parametrize("name", ["sum", "mean", "var", "max", "logsumexp"])
def test_all_axes_by_default(name):
    theirs = {"max": lambda t: t.amax((0, 1, 2)), "logsumexp": lambda t: t.logsumexp((0, 1, 2))}
    assert ulps(getattr(ops, name), theirs.get(name, lambda t: getattr(t, name)()), X, np.float32) < 40


def test_equal_maxima_share_the_gradient():
    x = mg.tensor(np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]]), requires_grad=True)
    (g,) = mg.grad(ops.max(x, 1), x, np.array([1.0, 3.0]))
    assert g.data.tolist() == [[0, 0.5, 0.5], [1, 1, 1]]


def test_positions():
    x = np.array([[1.0, 3.0, 3.0], [-2.0, -2.0, 5.0]])
    for f, expected, flat in ((ops.argmax, [1, 2], 5), (ops.argmin, [0, 0], 3)):
        y = f(mg.tensor(x), 1)
        assert y.data.tolist() == expected and y.dtype == np.int64
        assert f(mg.tensor(x)).item() == flat


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1000.0, 1000.0], 1000 + np.log(2)),
        ([-1000.0, -1000.0], -1000 + np.log(2)),
        ([1000.0, -1000.0], 1000.0),
        ([0.0, -np.inf], 0.0),
        ([-np.inf, -np.inf], -np.inf),  # the logarithm of nothing: a row that was masked out whole
        ([np.inf, 0.0], np.inf),
    ],
)
def test_logsumexp_at_the_edges(values, expected):
    y = ops.logsumexp(mg.tensor(np.array(values)))
    np.testing.assert_allclose(y.item(), expected, rtol=1e-15)


@pytest.mark.parametrize("name", ["sum", "mean", "var", "max", "logsumexp"])
def test_nan_goes_through(name):
    y = getattr(ops, name)(mg.tensor([[np.nan, 1.0], [2.0, 3.0]]), 1)
    assert np.isnan(y.data).tolist() == [True, False]


def test_variance_of_nearly_equal_values():
    """Deviations first, squares after: E x^2 - (E x)^2 would lose all digits here in float32."""
    x = (10_000 + np.arange(5)).astype(np.float32)
    assert ops.var(mg.tensor(x), correction=0).item() == 2.0


def test_sum_of_nothing_and_of_one():
    empty = mg.tensor(np.zeros((0, 3), np.float32), requires_grad=True)
    assert ops.sum(empty).item() == 0 and ops.sum(empty, 0).data.tolist() == [0, 0, 0]
    assert mg.grad(ops.sum(empty), empty)[0].shape == (0, 3)
    one = mg.tensor(2.0, requires_grad=True)
    for f in (ops.sum, ops.mean, ops.max, ops.logsumexp):
        y = f(one)
        assert y.item() == 2.0 and mg.grad(y, one)[0].item() == 1.0


@pytest.mark.parametrize("f", [ops.sum, ops.mean, ops.var, ops.max, ops.logsumexp])
def test_axes_that_do_not_exist(f):
    with pytest.raises(IndexError, match="dim 2 of a tensor with 2 axes"):
        f(mg.tensor([[1.0]]), 2)
