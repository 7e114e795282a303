"""The nearest code: exact, ties to the lowest index, the same from every implementation; and the gradients put in its place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigen as mg
from minigen import ops
from minigen.dispatch import mode
from minigen.ops.vq import vq_forward


def drawn(n, k, d, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)).astype(dtype), rng.standard_normal((k, d)).astype(dtype)


def both(z, codes):
    with mode("reference"):
        expected = vq_forward(z, codes)
    return vq_forward(z, codes), expected


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 300), st.integers(1, 70), st.integers(1, 40), st.sampled_from([np.float32, np.float64]), st.integers(0, 9)
)  # fmt: skip
def test_the_kernel_finds_the_references_codes(n, k, d, dtype, seed):
    z, codes = drawn(n, k, d, dtype, seed)
    (index, distance), (expected, squares) = both(z, codes)
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_allclose(distance, squares, rtol=1e-5)
    assert index.dtype == np.int64 and distance.dtype == dtype


@pytest.mark.parametrize("k", [1, 2, 15, 16, 17, 512, 1031])
def test_against_the_definition(k):
    z, codes = drawn(200, k, 8)
    squares = ((z[:, None].astype(np.float64) - codes) ** 2).sum(-1)
    index, distance = vq_forward(z, codes)
    np.testing.assert_array_equal(index, squares.argmin(1))
    np.testing.assert_allclose(distance, squares.min(1), rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ties_go_to_the_lowest_index(dtype):
    """Whole numbers, many codes alike and many at the same distance; a thousand away, where float32 products round."""
    rng = np.random.default_rng(0)
    for offset in (0, 1000):
        z, codes = ((rng.integers(-2, 3, (n, 3)) + offset).astype(dtype) for n in (500, 300))
        squares = ((z[:, None].astype(np.float64) - codes) ** 2).sum(-1)
        (index, distance), (expected, _) = both(z, codes)
        np.testing.assert_array_equal(index, squares.argmin(1))
        np.testing.assert_array_equal(expected, squares.argmin(1))
        assert (distance >= 0).all()


def test_codes_a_hair_apart():
    """The scores of the product differ by less than their rounding; the distances do not."""
    z, codes = drawn(400, 64, 64)
    codes = (codes[:1] + 1e-6 * codes).astype(np.float32)
    (index, _), (expected, _) = both(z, codes)
    np.testing.assert_array_equal(index, expected)
    assert len(np.unique(index)) > 10


def test_a_code_is_nearest_to_itself():
    _, codes = drawn(1, 100, 64)
    index, distance = vq_forward(codes, codes)
    assert index.tolist() == list(range(100)) and not distance.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e38])
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # squares of 1e38, and of infinity
@pytest.mark.filterwarnings("ignore:invalid:RuntimeWarning")
def test_what_is_not_finite_does_no_harm(bad):
    z, codes = drawn(70, 40, 5)
    z[3, 1] = bad
    (index, _), (expected, _) = both(z, codes)
    np.testing.assert_array_equal(index, expected)
    z, codes = drawn(70, 40, 5)
    codes[7, 2] = bad
    (index, _), (expected, _) = both(z, codes)
    np.testing.assert_array_equal(index, expected)


def test_parallel_is_serial():
    from minigen.kernels import threads

    z, codes = drawn(2000, 512, 64)
    expected = vq_forward(z, codes)
    before = threads.get_num_threads()
    try:
        threads.set_num_threads(1)
        alone = vq_forward(z, codes)
    finally:
        threads.set_num_threads(before)
    for a, b in zip(expected, alone, strict=True):
        np.testing.assert_array_equal(a, b)


def test_inputs_stay_and_may_have_strides():
    z, codes = drawn(30, 20, 6)
    wide, tall = np.repeat(z, 2, 1)[:, ::2], np.asfortranarray(codes)
    kept = wide.copy(), tall.copy()
    np.testing.assert_array_equal(vq_forward(wide, tall)[0], vq_forward(z, codes)[0])
    np.testing.assert_array_equal(wide, kept[0])
    np.testing.assert_array_equal(tall, kept[1])


def test_the_public_function_keeps_the_axes_and_has_no_gradient():
    z, codes = drawn(24, 5, 4)
    x = mg.tensor(z.reshape(2, 3, 4, 4), requires_grad=True)
    index = ops.nearest_code(x, mg.tensor(codes))
    np.testing.assert_array_equal(index.data, vq_forward(z, codes)[0].reshape(2, 3, 4))
    with pytest.raises(RuntimeError, match="NearestCode has no gradient"):
        mg.grad(index, x, mg.tensor(np.ones((2, 3, 4))))


@pytest.mark.parametrize(
    ("z", "codes", "message"),
    [((3, 4), (5, 3), "wants z"), ((3, 4), (0, 4), "wants z"), ((3, 4), (4,), "wants z"), ((), (5, 3), "wants z")],
)
def test_shapes_that_do_not_fit(z, codes, message):
    with pytest.raises(ValueError, match=message):
        ops.nearest_code(mg.randn(*z), mg.randn(*codes))
    with pytest.raises(TypeError, match="float32 and the codes are float64"):
        ops.nearest_code(mg.randn(3, 4), mg.randn(5, 4, dtype=np.float64))


# --- the gradients that are put in its place ------------------------------------------------------------------------------


def test_straight_through_has_one_value_and_another_gradient():
    z, q, dy = (mg.randn(3, 4) for _ in range(3))
    z.requires_grad = True
    y = ops.straight_through(z, q)
    np.testing.assert_array_equal(y.data, q.data)
    (dz,) = mg.grad(y, z, dy)
    np.testing.assert_array_equal(dz.data, dy.data)
    with pytest.raises(ValueError, match="detach"):
        ops.straight_through(q, z)
    with pytest.raises(ValueError, match="is float32"):
        ops.straight_through(z, mg.randn(4, 3))


def rotation(a, b):
    """The matrix that takes unit vector a to b and leaves what is orthogonal to both: from the plane's own two axes."""
    cos, side = a @ b, b - (a @ b) * a
    sin = np.linalg.norm(side)
    side = side / sin
    plane = np.stack([a, side])
    turn = np.array([[cos, -sin], [sin, cos]])
    return np.eye(len(a)) - plane.T @ plane + plane.T @ turn @ plane


def test_the_rotation_is_the_one_of_the_plane_of_z_and_q():
    rng = np.random.default_rng(0)
    for _ in range(20):
        z, q, dy = rng.standard_normal((3, 6))
        x = mg.tensor(z[None], requires_grad=True)
        y = ops.rotation_trick(x, mg.tensor(q[None]))
        np.testing.assert_array_equal(y.data[0], q)
        (dz,) = mg.grad(y, x, mg.tensor(dy[None]))
        sizes = np.linalg.norm(z), np.linalg.norm(q)
        jacobian = sizes[1] / sizes[0] * rotation(z / sizes[0], q / sizes[1])
        np.testing.assert_allclose(jacobian @ z, q, atol=1e-12)
        np.testing.assert_allclose(dz.data[0], jacobian.T @ dy, atol=1e-12)
        # What makes it a better stand-in: the angle between the gradient and the vector is kept.
        np.testing.assert_allclose(dz.data[0] @ z, dy @ q, atol=1e-12)


def test_rotations_that_are_not_singled_out_stay_finite():
    z = mg.tensor(np.array([[1.0, 0], [0, 0], [1, 2], [3, 4]]), requires_grad=True)
    q = mg.tensor(np.array([[-2.0, 0], [1, 1], [0, 0], [3, 4]]))
    y = ops.rotation_trick(z, q)
    np.testing.assert_array_equal(y.data, q.data)
    (dz,) = mg.grad(y, z, mg.tensor(np.ones((4, 2))))
    np.testing.assert_allclose(dz.data, [[2, 2], [1, 1], [0, 0], [1, 1]], atol=1e-12)
