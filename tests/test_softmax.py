"""Softmax and its logarithm: against PyTorch to the second order, and with logits that would overflow."""

from __future__ import annotations

import numpy as np
import pytest

import minigen as mg
from minigen import ops

X = np.random.default_rng(0).standard_normal((3, 4, 2)) * 3


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_values_and_both_gradients_are_torchs(name, dim, dtype):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    v, u = rng.standard_normal(X.shape).astype(dtype), rng.standard_normal(X.shape).astype(dtype)

    def derivatives(f, x, gradient, wrap):
        y = f(x, dim)
        (g,) = gradient(y, x, wrap(v), create_graph=True)
        return y, g, gradient((g * wrap(u)).sum(), x)[0]

    x = mg.tensor(X.astype(dtype), requires_grad=True)
    t = torch.tensor(X.astype(dtype), dtype=torch.float64, requires_grad=True)
    ours = derivatives(getattr(ops, name), x, mg.grad, mg.tensor)
    theirs = derivatives(getattr(torch, name), t, torch.autograd.grad, lambda a: torch.tensor(a, dtype=torch.float64))
    for f, e in zip(ours, theirs, strict=True):
        exact = e.detach().numpy()
        assert f.dtype == dtype
        # Some twenty roundings along the three formulas.
        assert np.abs(f.data - exact).max() < 20 * np.finfo(dtype).eps * np.abs(exact).max()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_large_logits(dtype):
    x = mg.tensor(np.array([[1000, 0, -1000], [-1000, -1000, -1000]], dtype), requires_grad=True)
    np.testing.assert_allclose(ops.softmax(x).data, [[1, 0, 0], [1 / 3] * 3], rtol=1e-6)
    np.testing.assert_allclose(ops.log_softmax(x).data, [[0, -1000, -2000], [-np.log(3)] * 3], rtol=1e-6)
    v = np.array([[0, 1, 0], [0, 1, 0]], dtype)
    np.testing.assert_allclose(mg.grad(ops.log_softmax(x), x, v)[0].data, [[-1, 1, 0], [-1 / 3, 2 / 3, -1 / 3]], rtol=1e-6)


def test_a_logit_of_minus_infinity_is_a_class_left_out():
    x = mg.tensor(np.array([0.0, -np.inf, 0.0]), requires_grad=True)
    y = ops.softmax(x)
    assert y.data.tolist() == [0.5, 0.0, 0.5]
    assert mg.grad(y, x, np.array([1.0, 5.0, 0.0]))[0].data.tolist() == [0.25, 0.0, -0.25]


@pytest.mark.parametrize("f", [ops.softmax, ops.log_softmax])
def test_nan_one_class_and_no_rows(f):
    assert np.isnan(f(mg.tensor([[np.nan, 1.0], [0.0, 1.0]])).data).tolist() == [[True, True], [False, False]]
    assert f(mg.tensor([[3.0]])).item() == (1.0 if f is ops.softmax else 0.0)
    assert f(mg.tensor(np.zeros((0, 3)))).shape == (0, 3)


def test_log_softmax_keeps_what_softmax_rounds_to_zero():
    x = mg.tensor(np.array([0.0, 200.0], np.float32))
    assert ops.softmax(x).data.tolist() == [0.0, 1.0]
    assert ops.log_softmax(x).data.tolist() == [-200.0, 0.0]


def test_an_axis_that_does_not_exist():
    for f in (ops.softmax, ops.log_softmax):
        with pytest.raises(IndexError):
            f(mg.tensor([1.0]), 1)
