"""Bias and leaky ReLU in one pass: the same as in two, and as PyTorch's, for every layout."""

from __future__ import annotations

import numpy as np
import pytest

import minigen as mg
from minigen import ops

BACK_ENDS = pytest.mark.parametrize("back_end", ["reference", "auto"])
SHAPES = [(5, 3), (2, 3, 7), (2, 3, 4, 5), (1, 1), (33, 17, 3, 3), (1, 3, 1)]


@BACK_ENDS
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("slope", [1.0, 0.2, 0.0, 1.5])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_torchs(shape, slope, dtype, back_end):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, v, b = (rng.standard_normal(s).astype(dtype) for s in (shape, shape, shape[1]))
    a = [mg.tensor(m, requires_grad=True) for m in (x, b)]
    c = [torch.tensor(m, dtype=torch.float64, requires_grad=True) for m in (x, b)]
    with mg.mode(back_end):
        y = ops.bias_act(*a, slope)
        found = [y, *mg.grad(y, a, v)]
    z = torch.nn.functional.leaky_relu(c[0] + c[1].reshape(-1, *[1] * (len(shape) - 2)), slope)
    exact = [z, *torch.autograd.grad(z, c, torch.tensor(v, dtype=torch.float64))]
    for f, e in zip(found, exact, strict=True):
        e = e.detach().numpy()
        assert f.dtype == dtype
        # Two roundings for each value; for the bias's gradient a sum of at most 297 terms, half an epsilon each.
        assert np.abs(f.data - e).max() <= 150 * np.finfo(dtype).eps * np.abs(e).max()


@BACK_ENDS
def test_second_order_equals_the_unfused(back_end):
    rng = np.random.default_rng(0)
    x, b, v = (mg.tensor(rng.standard_normal(s), requires_grad=True) for s in ((4, 3, 2), 3, (4, 3, 2)))
    u, w = rng.standard_normal((4, 3, 2)), rng.standard_normal(3)

    def second(y):
        dx, db = mg.grad(y, [x, b], v, create_graph=True)
        return mg.grad([dx, db], v, [u, w])[0].data

    with mg.mode(back_end):
        fused = second(ops.bias_act(x, b, 0.2))
        plain = second(ops.leaky_relu(x + b.reshape(1, 3, 1), 0.2))
    np.testing.assert_allclose(fused, plain, rtol=1e-14)


@BACK_ENDS
def test_edges(back_end):
    """Infinity, NaN, and exactly zero, where the slope is that of the left side, as in PyTorch."""
    x = mg.tensor(np.array([[np.inf, -np.inf, np.nan, 0.0]], np.float32).T, requires_grad=True)
    b = mg.tensor(np.zeros(1, np.float32))
    with mg.mode(back_end):
        y = ops.bias_act(x, b, 0.2)
        (g,) = mg.grad(y, x, np.ones((4, 1)))
    np.testing.assert_array_equal(y.data.ravel(), np.float32([np.inf, -np.inf, np.nan, 0]))
    np.testing.assert_array_equal(g.data.ravel()[[0, 1, 3]], np.float32([1, 0.2, 0.2]))


@BACK_ENDS
def test_relu_of_minus_infinity_is_zero(back_end):
    """0 * infinity is NaN: a ReLU that multiplies by its slope must not meet it."""
    x = mg.tensor(np.array([[-np.inf, np.nan]], np.float32), requires_grad=True)
    b = mg.tensor(np.zeros(2, np.float32))
    with mg.mode(back_end):
        y = ops.bias_act(x, b, 0.0)
        (g,) = mg.grad(y, x, np.array([[np.inf, 1.0]], np.float32))
    np.testing.assert_array_equal(y.data, [[0, np.nan]])
    assert g.data[0, 0] == 0


@BACK_ENDS
def test_a_slope_that_turns_values_round_is_refused_or_right(back_end):
    """The mask is read off the sign of y; with a negative slope that sign says nothing."""
    x, b = mg.tensor([[-2.0, 1.0]], requires_grad=True), mg.tensor([0.0, 0.0])
    with mg.mode(back_end):
        try:
            y = ops.bias_act(x, b, -0.5)
        except ValueError:
            return
        assert mg.grad(y.sum(), x)[0].data.tolist() == [[-0.5, 1.0]]


@BACK_ENDS
def test_empty_batches(back_end):
    b = mg.tensor(np.ones(3, np.float32), requires_grad=True)
    with mg.mode(back_end):
        for shape in ((0, 3), (0, 3, 4), (0, 3, 2, 2)):
            y = ops.bias_act(mg.tensor(np.ones(shape, np.float32)), b, 0.2)
            assert y.shape == shape and mg.grad(y, b, np.ones(shape))[0].data.tolist() == [0, 0, 0]


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 3)])
def test_a_bias_of_another_length(shape):
    with pytest.raises(ValueError, match=r"a bias of shape \(3,\) for 4 channels"):
        ops.bias_act(mg.tensor(np.ones(shape)), mg.tensor(np.ones(3)))
