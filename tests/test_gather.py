"""Picking rows and adding them up again: against PyTorch, and each the other's gradient."""

from __future__ import annotations

import numpy as np
import pytest

import minigen as mg
from minigen import ops

INDEX = np.array([[0, 3, 3], [1, 3, 0]])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_gather_is_torchs_embedding(dtype, kind):
    torch = pytest.importorskip("torch")
    w = np.random.default_rng(0).standard_normal((5, 2)).astype(dtype)
    v = np.random.default_rng(1).standard_normal((2, 3, 2)).astype(dtype)
    ours, theirs = mg.tensor(w, requires_grad=True), torch.tensor(w, requires_grad=True)
    y, t = ops.gather(ours, INDEX.astype(kind)), torch.nn.functional.embedding(torch.tensor(INDEX), theirs)
    np.testing.assert_array_equal(y.data, t.detach().numpy(), strict=True)
    (g,), (h,) = mg.grad(y, ours, v), torch.autograd.grad(t, theirs, torch.tensor(v))
    np.testing.assert_allclose(g.data, h.numpy(), rtol=4 * np.finfo(dtype).eps, strict=True)  # three terms, any order


@pytest.mark.parametrize("back_end", ["reference", "auto"])
def test_scatter_add_is_the_adjoint(back_end):
    rng = np.random.default_rng(2)
    w, y = rng.standard_normal((5, 2)), rng.standard_normal((2, 3, 2))
    with mg.mode(back_end):
        added = ops.scatter_add(mg.tensor(y), INDEX, 5)
        picked = ops.gather(mg.tensor(w), INDEX)
    assert added.shape == (5, 2)
    np.testing.assert_allclose((picked.data * y).sum(), (w * added.data).sum(), rtol=1e-13)
    np.testing.assert_allclose(added.data[3], y[0, 1] + y[0, 2] + y[1, 1], rtol=1e-15)
    assert not added.data[[2, 4]].any()


def test_scatter_add_has_a_gradient():
    y = mg.tensor(np.ones((2, 3, 2)), requires_grad=True)
    v = np.arange(10.0).reshape(5, 2)
    (g,) = mg.grad(ops.scatter_add(y, INDEX, 5), y, v)
    np.testing.assert_array_equal(g.data, v[INDEX])


def test_rows_may_be_numbers_or_blocks_and_indices_one_or_none():
    for w in (np.arange(4.0), np.arange(24.0).reshape(4, 3, 2)):
        t = mg.tensor(w, requires_grad=True)
        for index in (np.array(2), np.array([], np.int64), np.array([[1], [0]])):
            y = ops.gather(t, index)
            np.testing.assert_array_equal(y.data, w[index], strict=True)
            assert mg.grad(y, t, np.ones(y.shape))[0].data.sum() == np.ones_like(w)[index].sum()


def test_the_index_has_no_gradient_and_may_be_a_tensor():
    w = mg.tensor(np.ones((3, 2)), requires_grad=True)
    (g,) = mg.grad(ops.embedding(w, mg.tensor([2, 2])).sum(), w)
    assert g.data.tolist() == [[0, 0], [0, 0], [2, 2]]


def test_an_index_changed_after_the_forward_does_not_change_the_gradient():
    """A loader that fills the same array again is the usual case."""
    w = mg.tensor(np.zeros((3, 1)), requires_grad=True)
    index = np.array([0, 0])
    y = ops.gather(w, index)
    index[:] = 2
    assert mg.grad(y.sum(), w)[0].data.ravel().tolist() == [2, 0, 0]


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        ([0, 5], IndexError, r"found 0\.\.5, rows are 0\.\.4"),
        ([-1], IndexError, r"found -1\.\.-1"),
        ([0.0], TypeError, "made of integers, not float64"),
        ([True], TypeError, "made of integers, not bool"),
    ],
)
def test_bad_indices(index, error, message):
    with pytest.raises(error, match=message):
        ops.gather(mg.tensor(np.zeros((5, 2))), index)
    with pytest.raises(error, match=message):
        ops.scatter_add(mg.tensor(np.zeros((len(index), 2))), index, 5)
