"""DeviceArray against NumPy: the same expression on both, the same values, shapes and dtypes."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minigen.kernels import cuda, emulator
from minigen.kernels.device_array import DeviceArray, to_device

pytestmark = pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))


@pytest.fixture(autouse=True, scope="module", params=["plain", "checked"])
def emulated(request):
    with cuda.using(cuda.Emulated(request.param == "checked")):
        yield


def check(f, *hosts, tolerance=1e-5):
    """f of device arrays is f of NumPy arrays."""
    with np.errstate(all="ignore"):
        wanted = f(*(h.copy() for h in hosts))
    found = f(*(to_device(h) for h in hosts))
    assert isinstance(found, DeviceArray)
    assert (found.shape, found.dtype) == (np.shape(wanted), wanted.dtype)
    np.testing.assert_allclose(found.get(), wanted, rtol=tolerance, atol=tolerance)


RNG = np.random.default_rng(0)
A = RNG.standard_normal((3, 4, 5)).astype(np.float32)
B = RNG.standard_normal((4, 1)).astype(np.float32)
I = RNG.integers(-5, 5, (3, 4, 1))

EXPRESSIONS = {
    "broadcast": lambda a, b, i: a + b * a - b / 3,
    "numbers on both sides": lambda a, b, i: 1 / (2 - a) + a**2 - 3 * a,
    "a float64 scalar array": lambda a, b, i: a * np.float32(2) + a.mean(),
    "comparisons": lambda a, b, i: (a > b) | (a <= 0) & ~(b >= 0.1) | (a == a) & (b != b),
    "where": lambda a, b, i: np.where(a > 0, a, 0) + np.where(b > 0, 1, b),
    "maximum": lambda a, b, i: np.maximum(a, b) - np.minimum(a, 0.5),
    "clip": lambda a, b, i: np.clip(a, -0.5, 0.7) + np.clip(b, None, 0),
    "smooth": lambda a, b, i: np.exp(np.tanh(a)) + np.log(np.abs(b) + 1) + np.sqrt(a * a) + np.log1p(a * a),
    "signs": lambda a, b, i: np.sign(a) * np.abs(-b),
    "powers": lambda a, b, i: (np.abs(a) + 0.1) ** 1.5 + 2.0 ** b,
    "not a number": lambda a, b, i: np.isnan(a / (a - a)) | np.isfinite(a),
    "integers": lambda a, b, i: i * 3 - i + (i == 2),
    "integers and floats": lambda a, b, i: a * i,
    "division of integers": lambda a, b, i: i / 4,
    "casts": lambda a, b, i: (a * 10).astype(np.int32) + (a > 0).astype(np.int32) - i.astype(np.int32),
    "double": lambda a, b, i: a.astype(np.float64) * b,
    "sums": lambda a, b, i: a.sum() + a.sum(axis=1, keepdims=True) + a.sum(axis=(0, 2), keepdims=True),
    "sum of no axis": lambda a, b, i: a.sum(axis=()),
    "sum of truth values": lambda a, b, i: (a > 0).sum(axis=0),
    "mean": lambda a, b, i: a.mean(axis=-1) + np.mean(a),
    "extremes": lambda a, b, i: a.max(axis=0) - a.min(axis=0) + i.max(),
    "positions": lambda a, b, i: np.argmax(a, axis=1) + a.argmin(axis=1) + i.argmax(),
    "any and all": lambda a, b, i: (a > 0).any(axis=0) & (a < 9).all(axis=0),
    "transposed": lambda a, b, i: a.T + a.transpose(2, 1, 0) - a.swapaxes(0, 2),
    "slices": lambda a, b, i: a[1:, ::2, -1] + a[0, ::-2, 1][::-1],
    "new axes": lambda a, b, i: a[..., None] + a[:, None, 0, :, None],
    "one element": lambda a, b, i: a[1, 2, 3] + a[-1, -1, -1],
    "reshaped views": lambda a, b, i: a.T.reshape(4, -1) + a[:, 1:3].reshape(-1)[0],
    "concatenated": lambda a, b, i: np.concatenate([a, a[:, :2] * 2, i.astype(np.float32) + a[:, :, :5]], axis=1),
    "like": lambda a, b, i: np.zeros_like(a) + np.ones_like(b) + np.zeros_like(a, shape=(5,)),
    "broadcast_to": lambda a, b, i: np.broadcast_to(b, (2, 4, 3)) * 2,
    "minus zero axes": lambda a, b, i: (a[:0] + b).sum(axis=0) + a[:0].sum(),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_is_numpys(name):
    check(EXPRESSIONS[name], A, B, I)


def in_place(a, b):
    a[1] = 7
    a[:, 1, ::2] = b[1]
    a[0, ...] += b
    a *= 2
    a[2, 1:] = a[2, :-1]  # what is read overlaps with what is written
    a -= a.max(axis=0)
    return a


def test_changes_in_place_are_numpys():
    check(in_place, A, B)


def onto_itself(a):
    a[:] = a.T  # from where it lies, in another order
    a[1:] = a[:-1]
    a += a.T
    return a


def test_what_is_written_may_be_what_is_read_in_another_order():
    check(onto_itself, RNG.standard_normal((40, 40)).astype(np.float32))


def test_six_axes_in_any_order():
    x = RNG.standard_normal((2, 3, 1, 2, 3, 2))
    check(lambda x: x.transpose(5, 1, 3, 0, 4, 2) + 1, x)
    check(lambda x: x.sum(axis=(0, 2, 4)), x)
    check(lambda x: x.transpose(4, 0, 3, 1, 5, 2).sum(axis=(1, 3)), x)


@pytest.mark.parametrize("keepdims", [False, True])
def test_axes_that_cannot_be_merged(keepdims):
    x = RNG.standard_normal((2, 3, 2, 3, 2, 3))
    check(lambda x: x.T.sum(axis=(0, 1, 2, 3), keepdims=keepdims), x)  # four in the order against memory's
    check(lambda x: x.T.max(axis=(5, 2), keepdims=keepdims), x)


@given(n=st.integers(1, 700), m=st.integers(1, 5), axis=st.sampled_from([0, 1, None]), double=st.booleans())
@settings(max_examples=25, deadline=None)
def test_reductions_of_any_length(n, m, axis, double):
    x = np.random.default_rng(n).standard_normal((n, m)).astype(np.float64 if double else np.float32)
    check(lambda x: x.sum(axis=axis), x, tolerance=1e-12 if double else 1e-4)
    check(lambda x: x.max(axis=axis), x, tolerance=0)
    check(lambda x: np.argmin(x, axis=axis), x, tolerance=0)


def test_the_first_of_equals_is_found():
    x = np.zeros((300, 2), np.float32)
    x[[77, 200, 250], 0] = 1
    assert to_device(x).argmax(axis=0).get().tolist() == [77, 0]


@pytest.mark.parametrize("order", [operator.add, operator.sub, operator.truediv])
def test_a_numpy_array_on_the_left_gives_way(order):
    check(lambda a: order(A[0], a), A[1])


def test_dlpack_shares_the_memory():
    x = to_device(A)
    view = np.from_dlpack(x[1:, ::2])  # the emulator's memory is this computer's
    assert np.array_equal(view, A[1:, ::2]) and np.shares_memory(view, np.from_dlpack(x))
    x[2, 2] = 7
    assert (view[1, 1] == 7).all()


def test_what_is_not_there_is_refused():
    x = to_device(A)
    for wrong in (lambda: np.sin(x), lambda: np.sort(x), lambda: np.add.reduce(x), lambda: x[np.array([0, 1])]):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(ValueError, match="cannot reshape"):
        x.reshape(7, 7)
    with pytest.raises(ValueError, match="of no elements"):
        x[:0].max()
