"""Reshape, permute, concatenate, stack, slice, pad: NumPy's results, and gradients that go back to where they came from."""

from __future__ import annotations

import numpy as np
import pytest

import minigen as mg
from minigen import ops

X = np.arange(24.0).reshape(2, 3, 4)

# name: (ours, NumPy's)
MOVES = {
    "reshape": (lambda x: ops.reshape(x, (4, -1)), lambda x: x.reshape(4, -1)),
    "reshape to one axis": (lambda x: x.reshape(-1), lambda x: x.reshape(-1)),
    "permute": (lambda x: ops.permute(x, (2, 0, 1)), lambda x: x.transpose(2, 0, 1)),
    "permute from behind": (lambda x: x.permute(-1, 0, 1), lambda x: x.transpose(2, 0, 1)),
    "transpose": (lambda x: ops.transpose(x, 0, -1), lambda x: x.swapaxes(0, -1)),
    "T": (lambda x: x.T, lambda x: x.swapaxes(-1, -2)),
    "concatenate": (lambda x: ops.concatenate([x, x * 2, x], -2), lambda x: np.concatenate([x, x * 2, x], 1)),
    "stack": (lambda x: ops.stack([x, x * 3], -1), lambda x: np.stack([x, x * 3], -1)),
    "stack in front": (lambda x: ops.stack([x, x * 3]), lambda x: np.stack([x, x * 3])),
    "slice": (lambda x: x[1, ::2, -1:], lambda x: x[1, ::2, -1:]),
    "reverse": (lambda x: x[:, ::-1], lambda x: x[:, ::-1]),
    "pad": (lambda x: ops.pad(x, [(1, 0), (0, 0), (2, 3)]), lambda x: np.pad(x, [(1, 0), (0, 0), (2, 3)])),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", MOVES)
def test_values_are_numpys_and_the_gradient_is_the_adjoint(name, dtype):
    """Each is linear, y = A x: <A x, v> = <x, A^T v>, exactly, because whole numbers are only moved and added."""
    ours, numpys = MOVES[name]
    x = mg.tensor(X.astype(dtype), requires_grad=True)
    y = ours(x)
    np.testing.assert_array_equal(y.data, numpys(X).astype(dtype), strict=True)
    v = np.random.default_rng(0).integers(-3, 4, y.shape).astype(dtype)
    (g,) = mg.grad(y, x, v)
    assert g.shape == X.shape and g.dtype == dtype
    h = np.random.default_rng(1).integers(-3, 4, X.shape).astype(dtype)
    assert (g.data * h).sum() == (v * numpys(h)).sum()


def test_views_share_memory_and_version():
    x = mg.tensor(X, requires_grad=True)
    for y in (x.reshape(4, 6), x.T, x[0], x[:, 1:], ops.broadcast_to(x, (5, 2, 3, 4))):
        assert np.shares_memory(y.data, x.data)
        x.bump()
        assert y.version == x.version


def test_concatenate_of_unequal_parts_gives_each_its_share():
    x, y = mg.tensor(np.ones((1, 2)), requires_grad=True), mg.tensor(np.ones((3, 2), np.float32), requires_grad=True)
    z = ops.concatenate([x, y])
    dx, dy = mg.grad(z, [x, y], np.arange(8.0).reshape(4, 2))
    assert dx.data.tolist() == [[0, 1]] and dy.data.tolist() == [[2, 3], [4, 5], [6, 7]]
    assert (z.dtype, dx.dtype, dy.dtype) == (np.float64, np.float64, np.float32)
    (dy,) = mg.grad(ops.concatenate([x.detach(), y]), y, np.arange(8.0).reshape(4, 2))
    assert dy.data.tolist() == [[2, 3], [4, 5], [6, 7]]


def test_empty_tensors():
    x = mg.tensor(np.zeros((0, 3)), requires_grad=True)
    for y in (x.T, ops.concatenate([x, x]), ops.stack([x, x]), x.reshape(3, 0), x[:0], ops.pad(x, [(1, 1), (0, 0)])):
        assert mg.grad(y, x, np.zeros(y.shape))[0].shape == (0, 3)


def test_several_gradients_into_one_tensor_add_up():
    x = mg.tensor(np.zeros(4), requires_grad=True)
    y = x[:3].sum() + x[1:].sum() + (x[2] * 3.0)
    assert mg.grad(y, x)[0].data.tolist() == [1, 2, 5, 1]


@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (lambda x: x.reshape(5, 5), ValueError, "reshape"),
        (lambda x: x.permute(0, 0, 1), ValueError, "repeated axis"),
        (lambda x: x[5], IndexError, "out of bounds"),
        (lambda x: ops.concatenate([x, x[0]]), ValueError, "dimension"),
        (lambda x: ops.stack([x, x[:1]]), ValueError, "match"),
        (lambda x: ops.pad(x, [(1, 1)]), ValueError, "1 pairs of widths for 3 axes"),
    ],
)
def test_bad_arguments(f, error, message):
    with pytest.raises(error, match=message):
        f(mg.tensor(X))


def test_negative_widths_are_refused():
    """numpy.pad raises; cutting off in silence would be a slice."""
    with pytest.raises(ValueError):
        ops.pad(mg.tensor(X), [(-1, 0), (0, 0), (0, 0)])
