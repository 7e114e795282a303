"""Picking rows and adding them up again: against PyTorch, and each the other's gradient."""

from __future__ import annotations

import numpy as np
import pytest
from minigen.kernels import cuda, emulator
from minigen.kernels.device_array import to_device

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


# --- an index on the device ---------------------------------------------------------------------------------------------


@pytest.fixture
def device():
    if emulator.missing():
        pytest.skip(str(emulator.missing()))
    with cuda.using(cuda.Emulated()) as backend:
        yield backend


def alone(monkeypatch, backend):
    """From here on the device is left alone with what it has."""
    for name in ("upload", "download"):
        monkeypatch.setattr(backend, name, lambda *args: pytest.fail("a copy between the host and the device"))


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize("wrapped", [False, True])
def test_an_index_on_the_device_is_not_copied(monkeypatch, device, kind, wrapped):
    w, v = np.random.default_rng(0).standard_normal((5, 2)), np.random.default_rng(1).standard_normal((2, 3, 2))
    here = mg.tensor(w, requires_grad=True)
    y = ops.gather(here, INDEX)
    there, cotangent, index = mg.tensor(w, requires_grad=True, device="cuda"), mg.tensor(v, device="cuda"), INDEX.astype(kind)
    index = mg.tensor(index, device="cuda") if wrapped else to_device(index)
    with monkeypatch.context() as patch:
        alone(patch, device)
        z = there[index]
        (h,) = mg.grad(z, there, cotangent)
        added = ops.scatter_add(cotangent, index, 5)
    np.testing.assert_array_equal(z.data.get(), y.data)
    np.testing.assert_allclose(h.data.get(), mg.grad(y, here, v)[0].data, rtol=1e-15)
    np.testing.assert_allclose(added.data.get(), ops.scatter_add(mg.tensor(v), INDEX, 5).data, rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64, np.uint8])
def test_out_of_range_on_the_device(device, dtype):
    """A row that is not there is NaN, among integers 0; and what would be added to one is left out."""
    w, index = np.arange(1, 7).reshape(3, 2).astype(dtype), np.array([2, -1, 3, 0, 2**40])
    picked = ops.gather(mg.Tensor(to_device(w)), to_device(index)).data.get()
    missing = np.nan if np.dtype(dtype).kind == "f" else 0
    np.testing.assert_array_equal(picked, np.array([[5, 6], [missing] * 2, [missing] * 2, [1, 2], [missing] * 2]).astype(dtype))
    added = ops.scatter_add(mg.Tensor(to_device(np.ones((5, 2), dtype))), to_device(index), 3).data.get()
    np.testing.assert_array_equal(added, np.array([[1, 1], [0, 0], [1, 1]], dtype))


def test_no_row_at_all_on_the_device(device):
    w = mg.tensor(np.ones((0, 2), np.float32), device="cuda")
    assert np.isnan(ops.gather(w, to_device(np.array([0, 1]))).data.get()).all()


def test_what_is_refused_of_an_index_on_the_device(device):
    w, there = mg.tensor(np.ones((5, 2))), mg.tensor(np.ones((5, 2)), device="cuda")
    for f in (lambda x, index: ops.gather(x, index), lambda x, index: ops.scatter_add(x, index, 5)):
        with pytest.raises(TypeError, match=r"the index is on the device and the data is not: move one of them with \.to\(\)"):
            f(w, to_device(np.arange(5)))
        with pytest.raises(TypeError, match="made of integers, not float64"):
            f(there, to_device(np.zeros(5)))
        with pytest.raises(IndexError, match=r"found 0\.\.5, rows are 0\.\.4"):  # an index of the host is looked at
            f(there, np.array([0, 5, 1, 1, 1]))


# --- one-hots -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [INDEX, INDEX.astype(np.uint8), [2, 0], 3, np.zeros(0, np.int64), mg.tensor(INDEX)])
def test_one_hots_are_rows_of_the_identity(index):
    y = ops.one_hot(index, 5)
    assert y.dtype == np.float32 and y.device == "cpu"
    rows = index.data if isinstance(index, mg.Tensor) else index
    np.testing.assert_array_equal(y.data, np.eye(5, dtype=np.float32)[rows], strict=True)


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_one_hots_on_the_device(monkeypatch, device, kind):
    index = to_device(INDEX.astype(kind))
    with mg.device.on("cuda"), monkeypatch.context() as patch:
        first = ops.one_hot(index, 5)  # brings the classes there
        alone(patch, device)
        second = ops.one_hot(mg.Tensor(index), 5)
    for y in (first, second):
        assert y.device == "cuda" and y.dtype == np.float32
        np.testing.assert_array_equal(y.data.get(), np.eye(5)[INDEX])
    assert not ops.one_hot(to_device(np.array([-1, 5])), 5).data.get().any()
