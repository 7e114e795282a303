"""`vjp`: gradients of an expression inside the backward of a fused Op, to the next order as well."""

from __future__ import annotations

import numpy as np
import pytest

import minigen as mg
from minigen import ops
from minigen.ops.vjp import vjp


def leaf(*shape):
    return mg.tensor(np.random.default_rng(sum(shape)).standard_normal(shape), requires_grad=True)


def both(a, b):
    return a * a * b, ops.exp(a)


def test_it_is_the_gradient_of_the_weighted_sum():
    a, b, u, v = leaf(3), leaf(3), leaf(3), leaf(3)
    got = vjp(both, (a, b), (u, v), (True, True))
    np.testing.assert_allclose(got[0].data, 2 * a.data * b.data * u.data + np.exp(a.data) * v.data)
    np.testing.assert_allclose(got[1].data, a.data**2 * u.data)


def test_only_what_is_needed():
    a, b, u = leaf(3), leaf(3), leaf(3)
    da, db = vjp(both, (a, b), (u, None), (False, True))
    assert da is None
    np.testing.assert_allclose(db.data, a.data**2 * u.data)


def test_an_input_without_influence_has_a_gradient_of_zeros():
    a, b, v = leaf(3), leaf(2), leaf(3)
    da, db = vjp(lambda a, b: (a * 1, b * 1), (a, b), (v, None), (True, True))
    np.testing.assert_array_equal(da.data, v.data)
    np.testing.assert_array_equal(db.data, np.zeros(2))


def test_inputs_are_held_apart():
    """b is computed from a. The gradient for a counts the direct path alone: the outer walk adds the one through b."""
    a, u = leaf(3), leaf(3)
    b = a * 3
    da, db = vjp(lambda a, b: (a * b,), (a, b), (u,), (True, True))
    np.testing.assert_allclose(da.data, b.data * u.data)
    np.testing.assert_allclose(db.data, a.data * u.data)


@pytest.mark.parametrize("recording", [True, False])
def test_its_result_is_an_expression_only_where_one_is_recorded(recording):
    a, b, u = leaf(3), leaf(3), leaf(3)
    with mg.enable_grad() if recording else mg.no_grad():
        da, _ = vjp(both, (a, b), (u, None), (True, True))
    assert da.requires_grad is recording
    if recording:
        (dda,) = mg.grad(da, a, np.ones(3))
        np.testing.assert_allclose(dda.data, 2 * b.data * u.data)
