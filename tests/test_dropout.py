"""Dropout: how much is kept, what is left of it in the gradient, and when it does nothing."""

from __future__ import annotations

import numpy as np
import pytest

import minigen as mg
from minigen import nn, ops


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_share_of_1_minus_p_is_kept_and_scaled(p, dtype):
    mg.seed(0)
    n = 20_000
    y = ops.dropout(mg.tensor(np.ones(n, dtype)), p).data
    kept = y != 0
    assert y.dtype == dtype
    np.testing.assert_allclose(y[kept], 1 / (1 - p), rtol=2 * np.finfo(dtype).eps)
    assert abs(kept.mean() - (1 - p)) < 5 * np.sqrt(p * (1 - p) / n)  # five standard deviations


def test_the_gradient_sees_the_same_mask():
    x = mg.tensor(np.arange(1.0, 101.0), requires_grad=True)
    y = ops.dropout(x, 0.3)
    v = np.arange(100.0, 0.0, -1.0)
    (g,) = mg.grad(y, x, v, create_graph=True)
    np.testing.assert_allclose(g.data, y.data / x.data * v, rtol=1e-15)
    assert 0 < np.count_nonzero(g.data) < 100


def test_a_seed_fixes_the_mask_and_two_calls_differ():
    x = mg.tensor(np.ones(100, np.float32))
    mg.seed(5)
    first, second = ops.dropout(x).data, ops.dropout(x).data
    mg.seed(5)
    np.testing.assert_array_equal(ops.dropout(x).data, first)
    assert (first != second).any()


def test_nothing_happens_outside_training_or_at_zero():
    x = mg.tensor(np.ones(3, np.float32))
    state = mg.random.get_state()
    assert ops.dropout(x, 0.5, training=False) is x and ops.dropout(x, 0.0) is x
    assert mg.random.get_state() == state  # evaluation does not move the random generator


def test_the_layer_obeys_set_training():
    layer = nn.Sequential(nn.Dropout(0.5))
    x = mg.tensor(np.ones(50, np.float32))
    assert (layer(x).data == 0).any()
    nn.set_training(layer, False)
    np.testing.assert_array_equal(layer(x).data, x.data)
    nn.set_training(layer, True)
    assert (layer(x).data == 0).any()


def test_nan_and_empty():
    assert np.isnan(ops.dropout(mg.tensor([np.nan] * 20), 0.5).data).all()
    assert ops.dropout(mg.tensor(np.zeros((0, 3))), 0.5).shape == (0, 3)


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, np.nan])
def test_probabilities_that_are_none(p):
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\)"):
        ops.dropout(mg.tensor([1.0]), p)
