"""Tensor: construction, text, indexing, operators that broadcast as NumPy's do, and exchange without a copy."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import minigen as mg
from minigen import ops


@pytest.mark.parametrize(
    ("data", "dtype", "expected"),
    [
        (1.5, None, np.float32),
        ([1.0, 2.0], None, np.float32),
        ([1, 2], None, np.int64),
        ([True, False], None, np.bool_),
        (np.ones(2), None, np.float64),
        (np.ones(2, np.float32), None, np.float32),
        (np.ones(2, np.uint8), None, np.uint8),
        ([1, 2], np.float64, np.float64),
        (mg.tensor([1.0]), np.float64, np.float64),
    ],
)
def test_dtypes_of_new_tensors(data, dtype, expected):
    assert mg.tensor(data, dtype=dtype).dtype == expected


@pytest.mark.parametrize("data", ["text", 1j, [None], np.ones(1, np.float16), np.array(["a"])])
def test_what_a_tensor_cannot_hold(data):
    with pytest.raises(TypeError, match="a tensor holds float32, float64, integers or booleans"):
        mg.tensor(data)


def test_a_new_tensor_is_a_copy():
    array = np.zeros(2)
    t = mg.tensor(array)
    array[0] = 1.0
    assert t.data.tolist() == [0.0, 0.0]
    assert mg.tensor(3, requires_grad=True).dtype == np.float32  # a number that is to be trained is a float


def test_properties():
    t = mg.tensor(np.zeros((2, 3, 4), np.float32), requires_grad=True)
    assert (t.shape, t.ndim, t.size, len(t), t.device, t.requires_grad) == ((2, 3, 4), 3, 24, 2, "cpu", True)
    assert t.T.shape == (2, 4, 3)
    assert t.grad is None and t.version == 0
    assert {t: "hashes by identity"}[t]


@pytest.mark.parametrize(
    ("t", "text"),
    [
        (mg.tensor([1.0, 2.5]), "tensor([1. , 2.5])"),
        (mg.tensor([1.0], requires_grad=True), "tensor([1.], requires_grad=True)"),
        (mg.tensor([1.0], requires_grad=True) * 2, "tensor([2.], op=Mul)"),
        (mg.tensor([1, 2]), "tensor([1, 2], dtype=int64)"),
        (mg.tensor([1.0]) > 0, "tensor([ True], dtype=bool, op=Compare)"),
        (mg.tensor(np.zeros((100, 100), np.float32)), None),
    ],
)
def test_text(t, text):
    assert repr(t) == text if text else len(repr(t)) < 500


def test_setting_data_keeps_the_shape_and_bumps_the_version():
    t = mg.tensor([1.0, 2.0])
    alias = t.detach()
    t.assign(3.0)
    assert alias.data.tolist() == [3.0, 3.0] and alias.version == t.version == 1
    t.data = np.zeros(2, np.float32)
    assert t.version == 2
    with pytest.raises(ValueError, match=r"new data of shape \(3,\) for a tensor of shape \(2,\)"):
        t.data = np.zeros(3)


def test_numpy_and_arrays():
    t = mg.tensor([1.0, 2.0], requires_grad=True)
    for ask in (lambda: t.numpy(), lambda: (t * 2).numpy(), lambda: np.asarray(t)):
        with pytest.raises(RuntimeError, match=r"detach\(\)\.numpy\(\)"):
            ask()
    assert t.detach().numpy() is t.data
    assert np.asarray(t.detach(), dtype=np.float64).dtype == np.float64
    assert mg.tensor(2.5).item() == 2.5


@pytest.mark.parametrize(
    "index", [0, -1, slice(1, None), (slice(None), 1), (..., 0), (None, 1, ..., None), (slice(None, None, -1), slice(0, 0))]
)
def test_indexing_is_numpys(index):
    x = np.arange(24.0).reshape(2, 3, 4)
    t = mg.tensor(x, requires_grad=True)
    np.testing.assert_array_equal(t[index].data, x[index])
    expected = np.zeros_like(x)
    expected[index] = 1
    np.testing.assert_array_equal(mg.grad(t[index].sum(), t)[0].data, expected)


def test_indexing_by_an_array_picks_rows():
    x = np.arange(6.0).reshape(3, 2)
    t = mg.tensor(x, requires_grad=True)
    for index in ([2, 0, 2], np.array([2, 0, 2]), mg.tensor([2, 0, 2])):
        np.testing.assert_array_equal(t[index].data, x[[2, 0, 2]])
    np.testing.assert_array_equal(mg.grad(t[[2, 0, 2]].sum(), t)[0].data, [[1, 1], [0, 0], [2, 2]])
    with pytest.raises(IndexError):
        t[[3]]
    with pytest.raises(TypeError, match="indexed by"):
        t[[0], [1]]
    with pytest.raises(TypeError):
        t[x > 1]


# --- operators


OPERATORS = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "power": lambda x, y: x**y,
    "less": lambda x, y: x < y,
    "equal": lambda x, y: x == y,
}
SHAPES = hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=3, min_side=0)


@pytest.mark.parametrize("name", OPERATORS)
@given(shapes=SHAPES, seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_operators_broadcast_as_numpy(name, shapes, seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.random(s) + 0.5 for s in shapes.input_shapes)
    f = OPERATORS[name]
    x, y = mg.tensor(a, requires_grad=True), mg.tensor(b, requires_grad=True)
    z = f(x, y)
    np.testing.assert_allclose(z.data, f(a, b), rtol=1e-15)
    assert z.shape == shapes.result_shape
    if z.requires_grad:
        dx, dy = mg.grad(z, [x, y], np.ones(z.shape), create_graph=True)
        assert (dx.shape, dy.shape) == shapes.input_shapes
        if name == "mul":  # linear in both: sum of x dx = sum of x y = sum of y dy, however often each was repeated
            np.testing.assert_allclose([(a * dx.data).sum(), (b * dy.data).sum()], [(a * b).sum()] * 2, rtol=1e-12)


@pytest.mark.parametrize("number", [2, 2.0, np.float32(2), np.float64(2), np.full(2, 2.0, np.float32)])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "power", "less"])
def test_operators_with_numbers_and_arrays_on_either_side(name, number):
    f, a = OPERATORS[name], np.array([1.0, 3.0], np.float32)
    t = mg.tensor(a)
    for found, expected in ((f(t, number), f(a, number)), (f(number, t), f(number, a))):
        assert isinstance(found, mg.Tensor)
        np.testing.assert_allclose(found.data, expected, rtol=1e-6)
    assert isinstance(np.ones((1, 2), np.float32) @ mg.tensor(np.ones((2, 1), np.float32)), mg.Tensor)


def test_methods_are_the_functions():
    t = mg.tensor(np.array([[1.0, 2.0], [3.0, 4.0]]), requires_grad=True)
    for name in ("exp", "log", "sqrt", "tanh", "sigmoid", "relu", "sum", "mean", "var", "max", "argmax", "argmin"):
        np.testing.assert_array_equal(getattr(t, name)().data, getattr(ops, name)(t).data)
    assert t.reshape(4).shape == t.reshape((4,)).shape == t.reshape(-1).shape == (4,)
    assert t.permute(1, 0).shape == t.permute((1, 0)).shape == t.transpose(0, 1).shape
    assert abs(-t).data.tolist() == t.data.tolist() and bool(t[0, 0] == 1.0)
    with pytest.raises(ValueError, match="ambiguous"):
        bool(t)


# --- dtypes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_python_numbers_take_the_tensors_dtype(dtype):
    x = mg.tensor(np.ones(3, dtype), requires_grad=True)
    y = ops.clip(ops.leaky_relu(2.0 * x / 3 - 1 + x**3 + 2**x, 0.2), -9.0, 9.0) + ops.maximum(x, 0.5).mean()
    z = ops.logsumexp(ops.where(y > 0, y, 0.0)) + ops.mse(ops.pad(y, [(1, 1)]), 0.5) + ops.hinge(y, 1)
    assert y.dtype == z.dtype == dtype
    (g,) = mg.grad(z, x, create_graph=True)
    (gg,) = mg.grad(g.sum(), x)
    assert g.dtype == gg.dtype == dtype


def test_a_gradient_has_its_inputs_dtype():
    x, w = mg.tensor(np.ones(2, np.float32), requires_grad=True), mg.tensor(np.ones(2), requires_grad=True)
    y = x * w
    assert y.dtype == np.float64
    assert [g.dtype for g in mg.grad(y.sum(), [x, w])] == [np.float32, np.float64]


@pytest.mark.parametrize("cotangent", [np.ones((1, 1, 2, 2)), mg.tensor(np.ones((1, 1, 2, 2)))])
def test_a_cotangent_of_another_dtype_is_cast(cotangent):
    """np.ones is float64; as a cotangent in a float32 network it must change neither what runs nor the results."""
    x = mg.tensor(np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3), requires_grad=True)
    w = mg.tensor(np.ones((1, 1, 2, 2), np.float32), requires_grad=True)
    seen = []
    with mg.mode("reference"):
        y = ops.conv2d(x, w)
        right = type(y.op).backward
        y.op.backward = lambda dy: seen.append(dy.dtype) or right(y.op, dy)
        dw = mg.grad(y, [x, w], cotangent)[1]
    assert seen == [np.float32]
    assert dw.dtype == np.float32 and dw.data.ravel().tolist() == [8.0, 12.0, 20.0, 24.0]


# --- devices and other libraries


def test_there_is_only_a_cpu(monkeypatch):
    t = mg.tensor([1.0])
    assert t.to("cpu") is t and mg.tensor([1.0], device="cpu").device == "cpu"
    with pytest.raises(mg.UserError, match="cannot use --device cuda: "):
        t.to("cuda")
    with pytest.raises(mg.UserError, match="no device 'gpu'; choose from cpu, cuda"):
        t.to("gpu")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cupy" else find(name))
    with pytest.raises(mg.UserError, match="CuPy is not installed"):
        t.to("cuda")


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_dlpack_shares_memory_both_ways(library):
    take = np.from_dlpack if library == "numpy" else pytest.importorskip("torch").from_dlpack
    t = mg.tensor(np.arange(6, dtype=np.float32).reshape(2, 3))
    theirs = take(t)
    t.assign(7.0)
    assert theirs.tolist() == [[7.0] * 3] * 2
    back = mg.from_dlpack(theirs)
    assert np.shares_memory(back.data, t.data)
    assert back.shape == (2, 3) and back.dtype == np.float32 and not back.requires_grad
    with pytest.raises(BufferError, match="part of a graph"):
        take(mg.tensor([1.0], requires_grad=True))


def test_a_tensor_from_torch_sees_its_changes():
    torch = pytest.importorskip("torch")
    theirs = torch.zeros(2, 3).T
    ours = mg.from_dlpack(theirs)
    theirs += 1
    assert ours.data.tolist() == [[1.0, 1.0]] * 3
