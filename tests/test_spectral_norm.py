"""Spectral normalisation: sigma against the SVD, the division's gradient against PyTorch, and the wrapper layer."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import minigen as mg
from minigen import nn, ops
from minigen.ops.spectral_norm import power_iteration


def vectors(w, steps=200):
    flat = w.reshape(len(w), -1)
    return power_iteration(flat, np.ones(len(w), w.dtype) / np.sqrt(len(w)).astype(w.dtype), steps)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(3, 5), (7, 2), (1, 4), (6, 2, 3, 3)])
def test_the_largest_singular_value_becomes_one(shape, dtype):
    w = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    u, v = vectors(w)
    assert u.dtype == v.dtype == dtype
    np.testing.assert_allclose([np.linalg.norm(u), np.linalg.norm(v)], 1, rtol=4 * np.finfo(dtype).eps)
    y = ops.spectral_norm(mg.tensor(w), u, v)
    assert y.shape == shape and y.dtype == dtype
    singular = np.linalg.svd(y.data.reshape(len(w), -1).astype(np.float64), compute_uv=False)
    # An error e in u and v moves sigma by e^2: what is left is the rounding of a sum of at most 18 products.
    assert abs(singular[0] - 1) < 20 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_gradient_flows_through_sigma_as_in_torch(dtype):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    w, g = (rng.standard_normal((4, 3, 2)).astype(dtype) for _ in range(2))
    u, v = vectors(w, steps=3)  # not converged: they are constants all the same
    x, t = mg.tensor(w, requires_grad=True), torch.tensor(w, dtype=torch.float64, requires_grad=True)
    (found,) = mg.grad(ops.spectral_norm(x, u, v), x, g)
    sigma = torch.tensor(u).double() @ t.reshape(4, 6) @ torch.tensor(v).double()
    (exact,) = torch.autograd.grad(t / sigma, t, torch.tensor(g).double())
    assert np.abs(found.data - exact.numpy()).max() < 30 * np.finfo(dtype).eps * np.abs(exact.numpy()).max()


def test_the_gradient_has_no_part_along_the_weight():
    """W / sigma(W) does not change when W is scaled, so <gradient, W> = 0."""
    w = mg.tensor(np.random.default_rng(0).standard_normal((4, 5)), requires_grad=True)
    u, v = vectors(w.data)
    (g,) = mg.grad(ops.spectral_norm(w, u, v), w, np.random.default_rng(1).standard_normal((4, 5)))
    assert abs((g.data * w.data).sum()) < 1e-13


def test_one_more_iteration_comes_closer():
    w = np.random.default_rng(0).standard_normal((20, 30))
    exact = np.linalg.svd(w, compute_uv=False)[0]
    u, found = np.ones(20) / np.sqrt(20), []
    for _ in range(30):
        u, v = power_iteration(w, u)
        found.append(exact - u @ w @ v)
    assert all(b <= a + 1e-12 for a, b in pairwise(found))
    assert -1e-12 < found[-1] < found[0] / 10


def test_a_weight_of_zeros_gives_no_nan_in_the_vectors():
    u, v = power_iteration(np.zeros((3, 4)), np.ones(3) / np.sqrt(3))
    assert np.isfinite(u).all() and np.isfinite(v).all()


@pytest.mark.parametrize("layer", [lambda: nn.Linear(6, 4), lambda: nn.Conv2d(3, 4, 3, 2, 1)])
def test_the_layer_holds_its_slope_at_one(layer):
    """|f(x) - f(y)| <= |x - y| for the linear layer; for the convolution, of the flattened kernel."""
    mg.seed(0)
    inner = layer()
    inner.weight.assign(inner.weight.data * 10)
    wrapped = nn.SpectralNorm(inner)
    x = mg.randn(5, 6) if inner.weight.ndim == 2 else mg.randn(2, 3, 6, 6)
    for _ in range(30):
        wrapped(x)
    used = inner.weight.data.reshape(4, -1)
    assert abs(np.linalg.svd(used, compute_uv=False)[0] - 1) < 1e-3
    np.testing.assert_allclose(
        used * np.linalg.svd(wrapped.weight.data.reshape(4, -1))[1][0], wrapped.weight.data.reshape(4, -1), rtol=1e-3
    )


def test_the_layers_parameters_and_state():
    wrapped = nn.SpectralNorm(nn.Linear(6, 4))
    assert list(nn.named_parameters(wrapped)) == ["weight", "bias"]
    assert sorted(nn.state_dict(wrapped)) == ["bias", "u", "v", "weight"]
    other = nn.SpectralNorm(nn.Linear(6, 4))
    nn.load_state_dict(other, nn.state_dict(wrapped))
    x = mg.randn(3, 6)
    for _ in range(3):
        np.testing.assert_array_equal(wrapped(x).data, other(x).data)


def test_evaluation_moves_no_vector():
    wrapped = nn.SpectralNorm(nn.Linear(6, 4))
    nn.set_training(wrapped, False)
    kept = nn.state_dict(wrapped)
    first, second = wrapped(mg.randn(3, 6)), wrapped(mg.randn(3, 6))
    assert first.shape == second.shape == (3, 4)
    for name, array in nn.state_dict(wrapped).items():
        np.testing.assert_array_equal(array, kept[name])


def test_the_weight_gets_a_gradient_through_the_layer():
    wrapped = nn.SpectralNorm(nn.Linear(3, 2))
    y = wrapped(mg.randn(5, 3), 0.2)
    grads = mg.grad(y.sum(), nn.parameters(wrapped))
    assert [g.shape for g in grads] == [(2, 3), (2,)] and all(np.abs(g.data).max() > 0 for g in grads)
