"""Arithmetic with broadcasting: values and gradients against PyTorch; casts, comparisons, powers of zero."""

from __future__ import annotations

import numpy as np
import pytest

import minigen as mg
from minigen import ops


def ulps(ours, theirs, *arrays, dtype):
    """Worst distance of our output and gradients from PyTorch's float64 answer: over its largest entry, in epsilons."""
    torch = pytest.importorskip("torch")
    arrays = [np.asarray(a, dtype) for a in arrays]
    xs = [mg.tensor(a, requires_grad=True) for a in arrays]
    ts = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]
    y, t = ours(*xs), theirs(torch, *ts)
    v = np.random.default_rng(9).standard_normal(t.shape).astype(dtype)
    found = [y, *mg.grad(y, xs, v)]
    exact = [e.detach().numpy() for e in (t, *torch.autograd.grad(t, ts, torch.tensor(v, dtype=torch.float64)))]
    assert [f.dtype for f in found] == [dtype] * len(found)
    worst = [np.abs(f.data - e).max(initial=0) / (np.abs(e).max(initial=0) or 1) for f, e in zip(found, exact, strict=True)]
    return np.max(worst) / np.finfo(dtype).eps


def normal(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape)


def positive(*shape):
    return 0.5 + np.random.default_rng(len(shape)).random(shape)


# name: (ours, PyTorch's, inputs)
AGAINST_TORCH = {
    "add": (ops.add, lambda t, x, y: x + y, (normal(3, 4), normal(4))),
    "sub": (ops.sub, lambda t, x, y: x - y, (normal(3, 1), normal(2, 1, 4))),
    "mul": (ops.mul, lambda t, x, y: x * y, (normal(3, 4), normal(3, 1))),
    "div": (ops.div, lambda t, x, y: x / y, (normal(3, 4), positive(1, 4))),
    "neg": (ops.neg, lambda t, x: -x, (normal(3),)),
    "power": (ops.power, lambda t, x, y: x**y, (positive(3, 4), normal(4))),
    "cube": (lambda x: x**3, lambda t, x: x**3, (normal(9),)),
    "square": (ops.square, lambda t, x: x.square(), (normal(9),)),
    "rpow": (lambda x: 2.0**x, lambda t, x: 2.0**x, (normal(9),)),
    "broadcast": (lambda x: ops.broadcast_to(x, (2, 3, 4)), lambda t, x: x.broadcast_to(2, 3, 4), (normal(3, 1),)),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", AGAINST_TORCH)
def test_values_and_gradients_are_torchs(name, dtype):
    # Sixteen roundings: no formula here has more, and the sums over a broadcast axis are of a few terms.
    ours, theirs, arrays = AGAINST_TORCH[name]
    assert ulps(ours, theirs, *arrays, dtype=dtype) < 16


@pytest.mark.parametrize("shape", [(), (1,), (0,), (0, 3)])
@pytest.mark.parametrize("name", [n for n, (_, _, arrays) in AGAINST_TORCH.items() if len(arrays) == 1 and n != "broadcast"])
def test_numbers_and_empty_tensors(name, shape):
    ours, theirs, _ = AGAINST_TORCH[name]
    assert ulps(ours, theirs, np.full(shape, 0.75), dtype=np.float32) < 16


@pytest.mark.parametrize("f", [ops.add, ops.sub, ops.mul, ops.div])
def test_nan_goes_through_either_side(f):
    x, y = mg.tensor([np.nan, 1.0, 1.0]), mg.tensor([1.0, np.nan, 1.0])
    assert np.isnan(f(x, y).data).tolist() == [True, True, False]


@pytest.mark.parametrize("exponent", [0, 1, 2, 3])
def test_whole_powers_of_zero(exponent):
    """d x^p / dx = p x^(p-1) is 0 * infinity at x = 0 where p is 0: the derivative is 0 there, to every order."""
    x = mg.tensor(0.0, requires_grad=True)
    y, found = x**exponent, []
    for _ in range(3):
        (y,) = mg.grad(y, x, create_graph=True)
        found.append(y.item())
        if not y.requires_grad:
            break
    expected = {0: [0, 0, 0], 1: [1, 0, 0], 2: [0, 2, 0], 3: [0, 0, 6]}[exponent]
    assert found == expected[: len(found)] and not any(expected[len(found) :])  # constant: no more derivatives


def test_casting():
    x = mg.tensor(np.array([1.25, -1.75], np.float32), requires_grad=True)
    y = ops.astype(x, np.float64)
    assert y.dtype == np.float64 and ops.astype(x, np.float32) is x
    (g,) = mg.grad((y * y).sum(), x, create_graph=True)
    assert g.dtype == np.float32 and g.data.tolist() == [2.5, -3.5]
    assert mg.grad(g.sum(), x)[0].data.tolist() == [2.0, 2.0]
    assert ops.astype(x, np.int64).data.tolist() == [1, -1]


def test_casting_to_integers_has_no_gradient_in_silence():
    x = mg.tensor([1.25], requires_grad=True)
    assert not ops.astype(x, np.int64).requires_grad


def test_comparing():
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    found = [x < 2, x <= 2, x > 1, x >= 2, x == 2, x != 2]
    assert [y.data.tolist() for y in found] == [[1, 0], [1, 1], [0, 1], [0, 1], [0, 1], [1, 0]]
    assert all(y.dtype == np.bool_ and not y.requires_grad for y in found)


def test_shapes_that_do_not_broadcast():
    with pytest.raises(ValueError, match="broadcast"):
        ops.add(mg.tensor([1.0, 2.0]), mg.tensor([1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match="broadcast"):
        ops.broadcast_to(mg.tensor([1.0, 2.0]), (3,))
