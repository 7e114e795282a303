"""Smooth functions of each element: values and gradients against PyTorch, and the edges of the number line."""

from __future__ import annotations

import numpy as np
import pytest

import minigen as mg
from minigen import ops

INF = np.inf


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
    "exp": (ops.exp, lambda t, x: x.exp(), (normal(9),)),
    "log": (ops.log, lambda t, x: x.log(), (positive(9),)),
    "sqrt": (ops.sqrt, lambda t, x: x.sqrt(), (positive(9),)),
    "tanh": (ops.tanh, lambda t, x: x.tanh(), (normal(9) * 3,)),
    "sigmoid": (ops.sigmoid, lambda t, x: x.sigmoid(), (normal(9) * 3,)),
    "softplus": (ops.softplus, lambda t, x: t.nn.functional.softplus(x), (normal(9) * 5,)),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", AGAINST_TORCH)
def test_values_and_gradients_are_torchs(name, dtype):
    # Sixteen roundings: no formula here has more.
    ours, theirs, arrays = AGAINST_TORCH[name]
    assert ulps(ours, theirs, *arrays, dtype=dtype) < 16


@pytest.mark.parametrize("shape", [(), (1,), (0,), (0, 3)])
@pytest.mark.parametrize("name", [n for n, (_, _, arrays) in AGAINST_TORCH.items() if len(arrays) == 1])
def test_numbers_and_empty_tensors(name, shape):
    ours, theirs, _ = AGAINST_TORCH[name]
    assert ulps(ours, theirs, np.full(shape, 0.75), dtype=np.float32) < 16


# (op, input, output, derivative): limits that a formula written without care turns into NaN, 0 or an overflow
EDGES = [
    ("sigmoid", 1000, 1, 0),
    ("sigmoid", -1000, 0, 0),
    ("sigmoid", INF, 1, 0),
    ("sigmoid", -INF, 0, 0),
    ("softplus", 1000, 1000, 1),
    ("softplus", -1000, 0, 0),
    ("softplus", INF, INF, 1),
    ("softplus", -INF, 0, 0),
    ("tanh", 1000, 1, 0),
    ("tanh", -INF, -1, 0),
    ("exp", -1000, 0, 0),
]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("name", "at", "value", "slope"), EDGES)
def test_edges(name, at, value, slope, dtype):
    """Warnings are errors in this suite: an overflow on the way to a right answer fails too."""
    x = mg.tensor(np.array([at], dtype), requires_grad=True)
    y = getattr(ops, name)(x)
    assert y.item() == value
    assert mg.grad(y, x)[0].item() == slope


@pytest.mark.parametrize("name", AGAINST_TORCH)
def test_nan_goes_through(name):
    y = getattr(ops, name)(mg.tensor([np.nan, 0.5]))
    assert np.isnan(y.data).tolist() == [True, False]
