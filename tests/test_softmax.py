"""Softmax and its logarithm: against PyTorch to the second order, and with logits that would overflow; the cross-entropy too.

Every implementation is asked the same: the NumPy reference, the CPU's, and CUDA's on the emulator.
"""

from __future__ import annotations

import numpy as np
import pytest
from minigen.kernels import cuda, device_array, emulator

import minigen as mg
from minigen import dispatch, ops
from minigen.dispatch import REGISTRY
from minigen.ops.softmax import CrossEntropy

X = np.random.default_rng(0).standard_normal((3, 4, 2)) * 3


BACK_ENDS = pytest.mark.parametrize("back_end", ["reference", "auto"])
EMULATED = pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))
WHERE = pytest.mark.parametrize("where", ["reference", "cpu", pytest.param("cuda", marks=EMULATED)])


def computed(where, name, *arrays):
    """What a kernel gives for NumPy arrays, as a NumPy array."""
    stem, reference = REGISTRY[name]
    if where == "reference":
        return reference(*arrays)
    f = dispatch._find(stem, name, where)
    assert f is not None
    if where == "cpu":
        return f(*arrays)
    with cuda.using(cuda.Emulated()):
        return f(*map(device_array.to_device, arrays)).get()


@BACK_ENDS
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_values_and_both_gradients_are_torchs(name, dim, dtype, back_end):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    v, u = rng.standard_normal(X.shape).astype(dtype), rng.standard_normal(X.shape).astype(dtype)

    def derivatives(f, x, gradient, wrap):
        y = f(x, dim)
        (g,) = gradient(y, x, wrap(v), create_graph=True)
        return y, g, gradient((g * wrap(u)).sum(), x)[0]

    x = mg.tensor(X.astype(dtype), requires_grad=True)
    t = torch.tensor(X.astype(dtype), dtype=torch.float64, requires_grad=True)
    with mg.mode(back_end):
        ours = derivatives(getattr(ops, name), x, mg.grad, mg.tensor)
    theirs = derivatives(getattr(torch, name), t, torch.autograd.grad, lambda a: torch.tensor(a, dtype=torch.float64))
    for f, e in zip(ours, theirs, strict=True):
        exact = e.detach().numpy()
        assert f.dtype == dtype
        # Some twenty roundings along the three formulas.
        assert np.abs(f.data - exact).max() < 20 * np.finfo(dtype).eps * np.abs(exact).max()


@EMULATED
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_every_axis_on_the_device(name, dim):
    v, found = np.random.default_rng(1).standard_normal(X.shape), []
    with cuda.using(cuda.Emulated()):
        for device in ("cpu", "cuda"):
            x = mg.tensor(X, requires_grad=True, device=device)
            y = getattr(ops, name)(x, dim)
            found.append([a.to("cpu").detach().numpy() for a in (y, *mg.grad(y, x, mg.tensor(v, device=device)))])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-14)


@BACK_ENDS
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_cross_entropy_of_each_row_and_both_gradients_are_torchs(dtype, back_end):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    logits, target = rng.standard_normal((7, 40)) * 3, rng.integers(0, 40, 7)
    v, u = rng.standard_normal(7), rng.standard_normal((7, 40))

    def derivatives(f, x, w, gradient, wrap):
        (g,) = gradient(f(x), x, w, create_graph=True)
        return f(x), g, *gradient((g * wrap(u)).sum(), [x, w])

    x, w = (mg.tensor(a.astype(dtype), requires_grad=True) for a in (logits, v))
    t, z = (torch.tensor(a.data, dtype=torch.float64, requires_grad=True) for a in (x, w))
    with mg.mode(back_end):
        ours = derivatives(CrossEntropy(target), x, w, mg.grad, lambda a: mg.tensor(a.astype(dtype)))
    theirs = derivatives(lambda t: torch.nn.functional.cross_entropy(t, torch.tensor(target), reduction="none"), t, z,
                         torch.autograd.grad, lambda a: torch.tensor(a.astype(dtype), dtype=torch.float64))  # fmt: skip
    for f, e in zip(ours, theirs, strict=True):
        exact = e.detach().numpy()
        assert f.dtype == dtype
        # Sums of 40 terms, and some twenty roundings beside.
        assert np.abs(f.data - exact).max() < 40 * np.finfo(dtype).eps * np.abs(exact).max()


# --- the edges of the number line ---------------------------------------------------------------------------------------


def edges(dtype, size):
    """Rows of logits, one as it should be and one for everything that may come in its place, and a target in each."""
    x = np.random.default_rng(3).standard_normal((12, size)).astype(dtype)
    last, most = size - 1, np.finfo(dtype).max
    x[1] = -np.inf
    x[2, last] = np.inf
    x[3, 0] = np.nan
    x[4, last] = np.copysign(np.nan, -1)
    x[5, :last] = -np.inf
    x[6, 0] = -np.inf  # its target
    x[7] = most
    x[8] = -most
    x[8, 0] = most
    x[9] -= 3e4
    x[10] *= 40  # e to most of these is less than any normal number
    x[11] = -1e-30
    return x, np.array([0, 1, 2, 1, 1, 1, 0, 2, 2, 1, last, last]) % size


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of infinity less infinity, in NumPy
@WHERE
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("size", [1, 3, 40, 130])
def test_infinities_nan_and_very_large_logits(size, dtype, where):
    """What the formulas give with more digits: for infinity, for NaN, and where nothing is left of e^x."""
    x, target = edges(dtype, size)
    wide = x.astype(np.longdouble)
    shifted = wide - np.where(np.isnan(wide).any(1, keepdims=True), np.nan, wide.max(1, keepdims=True))
    p = np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True)
    l = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    nll, onehot = -l[np.arange(12), target], target[:, None] == np.arange(size)
    ones = np.ones_like(x)
    for name, arrays, wanted in [
        ("softmax_forward", (x,), p),
        ("log_softmax_forward", (x,), l),
        ("cross_entropy_forward", (x, target), nll),
        ("cross_entropy_backward", (ones[:, 0], x, target), p - onehot),
        ("softmax_backward", (x, p.astype(dtype)), p * (wide - (wide * p).sum(1, keepdims=True))),
        ("log_softmax_backward", (ones, l.astype(dtype)), 1 - np.exp(l) * size),
    ]:
        found = computed(where, name, *arrays)
        assert found.dtype == dtype
        with np.errstate(all="ignore"):
            wanted = wanted.astype(dtype)
        if name == "softmax_backward":  # a product of numbers this large has no digits to compare, but for the rows below
            found, wanted = found[[0, 1, 3, 4, 11]], wanted[[0, 1, 3, 4, 11]]
        np.testing.assert_allclose(found, wanted, rtol=200 * np.finfo(dtype).eps, atol=10 * np.finfo(dtype).eps, err_msg=name)


@WHERE
def test_a_class_left_out_has_probability_zero_and_no_less(where):
    """-inf is exactly zero, and so is what lies so far below the maximum that e to it is not a normal number."""
    y = computed(where, "softmax_forward", np.array([[0, -np.inf, 0], [0, -1e30, -110]], np.float32))
    np.testing.assert_array_equal(y, [[0.5, 0, 0.5], [1, 0, 0]])


@WHERE
def test_a_target_that_is_no_class_gives_nan_in_its_row_alone(where):
    x, target = np.zeros((5, 4), np.float32), np.array([0, -1, 3, 4, 2**40])
    nll = computed(where, "cross_entropy_forward", x, target)
    dx = computed(where, "cross_entropy_backward", np.ones(5, np.float32), x, target)
    assert np.isnan(nll).tolist() == [False, True, False, True, True]
    assert np.isnan(dx).tolist() == [[bad] * 4 for bad in (False, True, False, True, True)]
    assert dx[2].tolist() == [0.25, 0.25, 0.25, -0.75]


@WHERE
@pytest.mark.parametrize("name", ["softmax_forward", "log_softmax_forward", "cross_entropy_forward", "cross_entropy_backward"])
def test_rows_without_a_number_are_refused(name, where):
    x, more = np.zeros((2, 0), np.float32), np.zeros(2, np.int64)
    given = {"cross_entropy_forward": (x, more), "cross_entropy_backward": (np.zeros(2, np.float32), x, more)}
    with pytest.raises(ValueError):
        computed(where, name, *given.get(name, (x,)))


@pytest.mark.parametrize("where", ["cpu", pytest.param("cuda", marks=EMULATED)])
def test_as_many_targets_as_rows(where):
    x = np.zeros((3, 2), np.float32)
    with pytest.raises(ValueError, match=r"\(3, 2\) has 3 rows, and with them came an array \(4,\)"):
        computed(where, "cross_entropy_forward", x, np.zeros(4, np.int64))
    with pytest.raises(ValueError, match=r"came an array \(2,\)"):
        computed(where, "cross_entropy_backward", np.zeros(2, np.float32), x, np.zeros(3, np.int64))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_large_logits(dtype):
    x = mg.tensor(np.array([[1000, 0, -1000], [-1000, -1000, -1000]], dtype), requires_grad=True)
    np.testing.assert_allclose(ops.softmax(x).data, [[1, 0, 0], [1 / 3] * 3], rtol=1e-6)
    np.testing.assert_allclose(ops.log_softmax(x).data, [[0, -1000, -2000], [-np.log(3)] * 3], rtol=1e-6)
    v = np.array([[0, 1, 0], [0, 1, 0]], dtype)
    np.testing.assert_allclose(mg.grad(ops.log_softmax(x), x, v)[0].data, [[-1, 1, 0], [-1 / 3, 2 / 3, -1 / 3]], rtol=1e-6)


def test_a_logit_of_minus_infinity_is_a_class_left_out():
    x = mg.tensor(np.array([0.0, -np.inf, 0.0]), requires_grad=True)
    y = ops.softmax(x)
    assert y.data.tolist() == [0.5, 0.0, 0.5]
    assert mg.grad(y, x, np.array([1.0, 5.0, 0.0]))[0].data.tolist() == [0.25, 0.0, -0.25]


@pytest.mark.parametrize("f", [ops.softmax, ops.log_softmax])
def test_nan_one_class_and_no_rows(f):
    assert np.isnan(f(mg.tensor([[np.nan, 1.0], [0.0, 1.0]])).data).tolist() == [[True, True], [False, False]]
    assert f(mg.tensor([[3.0]])).item() == (1.0 if f is ops.softmax else 0.0)
    assert f(mg.tensor(np.zeros((0, 3)))).shape == (0, 3)


def test_log_softmax_keeps_what_softmax_rounds_to_zero():
    x = mg.tensor(np.array([0.0, 200.0], np.float32))
    assert ops.softmax(x).data.tolist() == [0.0, 1.0]
    assert ops.log_softmax(x).data.tolist() == [-200.0, 0.0]


@BACK_ENDS
def test_rows_that_do_not_lie_together(back_end):
    x = np.random.default_rng(4).standard_normal((70, 90)).astype(np.float32)
    with mg.mode(back_end):
        dense = ops.softmax(mg.Tensor(np.ascontiguousarray(x.T))).data
        np.testing.assert_allclose(ops.softmax(mg.Tensor(x.T)).data, dense, rtol=1e-6)
        np.testing.assert_allclose(ops.softmax(mg.Tensor(x[::2, ::3])).data.sum(1), 1, rtol=1e-6)


def test_an_axis_that_does_not_exist():
    for f in (ops.softmax, ops.log_softmax):
        with pytest.raises(IndexError):
            f(mg.tensor([1.0]), 1)
