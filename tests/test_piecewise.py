"""Piecewise functions: values and gradients against PyTorch, at the kinks too, and for infinity and NaN."""

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


# name: (ours, PyTorch's, inputs)
AGAINST_TORCH = {
    "relu": (ops.relu, lambda t, x: x.relu(), (np.append(normal(9), 0),)),
    "leaky": (lambda x: ops.leaky_relu(x, 0.2), lambda t, x: t.nn.functional.leaky_relu(x, 0.2), (np.append(normal(9), 0),)),
    "steep": (lambda x: ops.leaky_relu(x, 2.0), lambda t, x: t.nn.functional.leaky_relu(x, 2.0), (normal(9),)),
    "falling": (lambda x: ops.leaky_relu(x, -0.5), lambda t, x: t.nn.functional.leaky_relu(x, -0.5), (normal(9),)),
    "abs": (ops.abs, lambda t, x: x.abs(), (np.append(normal(9), 0),)),
    "maximum": (ops.maximum, lambda t, x, y: t.maximum(x, y), ([1.0, 2, 3, -1], [2.0, 2, -3, -1])),
    "minimum": (ops.minimum, lambda t, x, y: t.minimum(x, y), ([1.0, 2, 3, -1], [2.0, 2, -3, -1])),
    "where": (
        lambda x, y: ops.where([True, False, True], x, y),
        lambda t, x, y: t.where(t.tensor([True, False, True]), x, y),
        (normal(2, 3), normal(3)),
    ),
    "clip": (lambda x: ops.clip(x, -0.5, 0.5), lambda t, x: x.clamp(-0.5, 0.5), (np.append(normal(9), [-0.5, 0.5]),)),
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
    ("relu", -INF, 0, 0),
    ("relu", INF, INF, 1),
    ("abs", -INF, INF, -1),
]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("name", "at", "value", "slope"), EDGES)
def test_edges(name, at, value, slope, dtype):
    """Warnings are errors in this suite: an overflow on the way to a right answer fails too."""
    x = mg.tensor(np.array([at], dtype), requires_grad=True)
    y = getattr(ops, name)(x)
    assert y.item() == value
    assert mg.grad(y, x)[0].item() == slope


@pytest.mark.parametrize(
    "f", [ops.relu, ops.leaky_relu, ops.abs, lambda x: ops.clip(x, 0.0, 1.0), lambda x: ops.clip(x, high=1.0)]
)
def test_nan_goes_through(f):
    assert np.isnan(f(mg.tensor([np.nan, 0.5])).data).tolist() == [True, False]


@pytest.mark.parametrize("f", [ops.maximum, ops.minimum])
def test_nan_goes_through_either_side(f):
    x, y = mg.tensor([np.nan, 1.0, 1.0]), mg.tensor([1.0, np.nan, 1.0])
    assert np.isnan(f(x, y).data).tolist() == [True, True, False]


def test_constants_have_the_neighbours_dtype():
    x = mg.tensor(np.ones(2, np.float32))
    for y in (ops.where(True, x, 0.0), ops.maximum(0.5, x), ops.clip(x, 0.5), ops.power(2.0, x), 1 / x):
        assert y.dtype == np.float32
