"""exp, sigmoid and tanh inside compiled loops: as exact as promised over all exponents, and right at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from minigen.kernels import gates
from numba import njit


@njit(fastmath={"contract"}, error_model="numpy")
def _sigmoid(x, y):
    for i in range(x.size):
        y[i] = gates.sigmoid(x[i])


@njit(fastmath={"contract"}, error_model="numpy")
def _tanh(x, y):
    for i in range(x.size):
        y[i] = gates.tanh(x[i])


@njit(fastmath={"reassoc", "contract"}, error_model="numpy")
def _exp(x, y):
    for i in range(x.size):
        y[i] = gates.exp(x[i])


def apply(f, x):
    y = np.empty_like(x)
    f(x, y)
    return y


@pytest.fixture(scope="module")
def everywhere():
    """float32 numbers of both signs whose exponents are spread evenly between 2^-30 and 80."""
    size = np.exp2(np.random.default_rng(0).uniform(-30, np.log2(80), 500_000))
    return np.concatenate([size, -size]).astype(np.float32)


@pytest.mark.parametrize(("f", "exact", "units"), [(_tanh, np.tanh, 1.3), (_sigmoid, lambda x: 1 / (1 + np.exp(-x)), 2.4)])
def test_float32_is_within_so_many_units_in_the_last_place(f, exact, units, everywhere):
    wanted = exact(everywhere.astype(np.float64))
    error = np.abs(apply(f, everywhere) - wanted) / np.spacing(np.abs(wanted).astype(np.float32))
    assert error.max() <= units, everywhere[error.argmax()]


@pytest.mark.parametrize(("f", "exact"), [(_tanh, np.tanh), (_sigmoid, lambda x: 1 / (1 + np.exp(-x)))])
def test_float64_is_the_c_librarys(f, exact):
    x = np.linspace(-30, 30, 10_001)
    np.testing.assert_allclose(apply(f, x), exact(x), rtol=4e-16, atol=0)


@pytest.mark.parametrize(("dtype", "most"), [(np.float32, 87), (np.float64, 708)])
def test_exp_is_within_a_unit_in_the_last_place(dtype, most):
    size = np.exp2(np.random.default_rng(0).uniform(-30, np.log2(most), 500_000))
    x = np.concatenate([size, -size]).astype(dtype)
    wanted = np.exp(x.astype(np.longdouble))
    error = np.abs(apply(_exp, x) - wanted) / np.spacing(wanted.astype(dtype))
    assert error.max() <= 1, x[error.argmax()]


@pytest.mark.parametrize(("dtype", "least", "most"), [(np.float32, -87.5, 88.4), (np.float64, -708.5, 709.5)])
def test_exp_where_there_is_no_normal_number(dtype, least, most):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, least, -1e30, most, 1e30], dtype)
    np.testing.assert_array_equal(apply(_exp, x), np.array([np.nan, np.inf, 0, 1, 1, 0, 0, np.inf, np.inf], dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_edges(dtype):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, 1e30, -1e30], dtype)
    np.testing.assert_array_equal(apply(_tanh, x), np.array([np.nan, 1, -1, 0, 1, -1], dtype))
    np.testing.assert_allclose(apply(_sigmoid, x), np.array([np.nan, 1, 0, 0.5, 1, 0], dtype), atol=1e-37)


def test_tanh_is_odd_and_keeps_tiny_numbers():
    x = np.float32([1e-30, 1e-10, 0.3, 0.6249, 0.6251, 5.0])
    np.testing.assert_array_equal(apply(_tanh, -x), -apply(_tanh, x))
    np.testing.assert_array_equal(apply(_tanh, x[:2]), x[:2])
