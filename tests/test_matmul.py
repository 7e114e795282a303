"""Matrix products and the linear layer: against PyTorch, for every combination of axes, on both back ends."""

from __future__ import annotations

import numpy as np
import pytest
from minigen.kernels import cuda, emulator, matmul
from minigen.kernels.device_array import to_device

import minigen as mg
from minigen import ops
from minigen.ops.matmul import linear_forward

SHAPES = [
    ((3, 4), (4, 2)),
    ((1, 1), (1, 1)),
    ((4,), (4,)),
    ((4,), (4, 2)),
    ((3, 4), (4,)),
    ((2, 3, 4), (4, 2)),
    ((3, 4), (5, 4, 2)),
    ((2, 1, 3, 4), (5, 4, 2)),
    ((4,), (2, 4, 3)),
    ((2, 3, 4), (4,)),
    ((0, 4), (4, 2)),
    ((3, 0), (0, 2)),
    ((130, 70), (70, 90)),  # large enough for the threaded kernel
]


def ulps(ours, theirs, *arrays, dtype):
    """Worst distance of our output and gradients from PyTorch's float64 answer: over its largest entry, in epsilons."""
    torch = pytest.importorskip("torch")
    arrays = [np.asarray(a, dtype) for a in arrays]
    xs = [mg.tensor(a, requires_grad=True) for a in arrays]
    ts = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]
    y, t = ours(*xs), theirs(torch, *ts)
    assert y.shape == t.shape
    v = np.random.default_rng(9).standard_normal(t.shape).astype(dtype)
    found = [y, *mg.grad(y, xs, v)]
    exact = [e.detach().numpy() for e in (t, *torch.autograd.grad(t, ts, torch.tensor(v, dtype=torch.float64)))]
    assert [f.dtype for f in found] == [dtype] * len(found)
    worst = [np.abs(f.data - e).max(initial=0) / (np.abs(e).max(initial=0) or 1) for f, e in zip(found, exact, strict=True)]
    return np.max(worst) / np.finfo(dtype).eps


def normal(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape)


@pytest.mark.parametrize("back_end", ["reference", "auto"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_matmul_is_torchs(a, b, dtype, back_end):
    # A sum of K products carries at most K/2 epsilons of the sum of their sizes; 130 is the longest here.
    with mg.mode(back_end):
        assert ulps(ops.matmul, lambda t, x, y: x @ y, normal(*a), normal(*b), dtype=dtype) < 65


WAYS = {  # m, k, n of products that the CPU kernel computes in different ways
    "one thread": (20, 30, 40),
    "tiles": (300, 70, 200),
    "outer": (1000, 1, 700),
    "a vector": (9000, 90, 1),
    "a vector, from the left": (1, 90, 9000),
    "deep, a vector": (90, 9000, 1),
    "deep, a vector from the left": (1, 9000, 90),
    "deep, narrow": (200, 1100, 150),
    "deep, wide": (260, 1100, 270),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("m", "k", "n"), WAYS.values(), ids=WAYS.keys())
def test_each_way_to_compute_a_product(m, k, n, dtype):
    """Whatever lies adjacent in memory: within what K roundings may do to the sum of sizes (Higham 2002, (3.5))."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    exact, bound = a.astype(np.longdouble) @ b, k * np.finfo(dtype).eps / 2 * (np.abs(a.astype(np.float64)) @ np.abs(b))
    for a_mk in (a, np.asfortranarray(a), np.repeat(a, 2, axis=1)[:, ::2]):
        for b_kn in (b, np.asfortranarray(b)):
            c = matmul.matmul_forward_cpu(a_mk, b_kn)
            assert c.dtype == dtype and c.shape == (m, n)
            assert (np.abs(c - exact) <= bound).all()


@pytest.mark.parametrize(("m", "k", "n"), WAYS.values(), ids=WAYS.keys())
def test_what_is_multiplied_may_be_read_only_or_lie_at_odd_addresses(m, k, n):
    a, b = np.ones((m, k), np.float32), np.broadcast_to(np.float32(2), (k, n))
    odd = np.frombuffer(b"-" + a.tobytes(), np.uint8)[1:].view(np.float32).reshape(m, k)
    assert not odd.flags.aligned
    for a_mk in (a, odd):
        np.testing.assert_array_equal(matmul.matmul_forward_cpu(a_mk, b), np.full((m, n), 2 * k, np.float32))


@pytest.mark.parametrize("back_end", ["reference", "auto"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("leading", [(3,), (2, 5), (), (1,), (70,)])
@pytest.mark.parametrize("slope", [1.0, 0.2, 0.0])
def test_linear_is_torchs(leading, slope, dtype, back_end):
    def theirs(t, x, w, b):
        return t.nn.functional.leaky_relu(t.nn.functional.linear(x, w, b), slope)

    with mg.mode(back_end):
        n = ulps(lambda x, w, b: ops.linear(x, w, b, slope), theirs, normal(*leading, 4), normal(3, 4), normal(3), dtype=dtype)
    assert n < 65


@pytest.mark.parametrize("back_end", ["reference", "auto"])
def test_linear_of_an_empty_batch(back_end):
    with mg.mode(back_end):
        x, w, b = (mg.tensor(np.ones(s, np.float32), requires_grad=True) for s in ((0, 4), (3, 4), 3))
        y = ops.linear(x, w, b)
        found = mg.grad(y, [x, w, b], np.ones((0, 3)))
    assert y.shape == (0, 3)
    assert [g.shape for g in found] == [(0, 4), (3, 4), (3,)] and not any(g.data.any() for g in found)


@pytest.mark.parametrize("back_end", ["reference", "auto"])
def test_the_second_order_of_linear_is_that_of_its_parts(back_end):
    rng = np.random.default_rng(0)
    x, w, b, v = (mg.tensor(rng.standard_normal(s), requires_grad=True) for s in ((5, 4), (3, 4), (3,), (5, 3)))
    u = [rng.standard_normal(s) for s in ((5, 4), (3, 4), (3,))]

    def second(y):
        return [g.data for g in mg.grad(mg.grad(y, [x, w, b], v, create_graph=True), [x, w, v], u)]

    with mg.mode(back_end):
        fused, plain = second(ops.linear(x, w, b, 0.2)), second(ops.leaky_relu(x @ w.T + b, 0.2))
    for f, p in zip(fused, plain, strict=True):
        np.testing.assert_allclose(f, p, rtol=1e-12)


@pytest.mark.parametrize("back_end", ["reference", "auto"])
@pytest.mark.parametrize("rows", [3, 20_000])  # the end of a product on one thread, and on all
def test_linear_at_the_edges(rows, back_end):
    """ReLU of -inf is zero, NaN stays, nothing that went in is changed, and the bias may have gaps."""
    x, w = np.ones((rows, 1), np.float32), np.float32([[1], [-np.inf], [np.nan], [-1]])
    b = np.float32([1, 0, 2, 0, 3, 0, 4, 0])[::2]
    before = [a.copy() for a in (x, w, b)]
    with mg.mode(back_end):
        y = ops.linear(mg.tensor(x), mg.Tensor(w), mg.Tensor(b), 0.0).data
        z = ops.linear(mg.tensor(x), mg.Tensor(w), mg.Tensor(b), 0.5).data
    np.testing.assert_array_equal(y, np.tile(np.float32([2, 0, np.nan, 3]), (rows, 1)))
    np.testing.assert_array_equal(z, np.tile(np.float32([2, -np.inf, np.nan, 3]), (rows, 1)))
    for a, c in zip((x, w, b), before, strict=True):
        np.testing.assert_array_equal(a, c)


@pytest.mark.parametrize("back_end", ["reference", "auto"])
def test_the_bias_may_be_of_another_dtype(back_end):
    x, w, b = mg.tensor(np.ones((2, 3), np.float32)), mg.tensor(np.ones((4, 3), np.float32)), mg.tensor(np.full(4, 1e-9))
    with mg.mode(back_end):
        np.testing.assert_array_equal(ops.linear(x, w, b).data, np.full((2, 4), 3 + 1e-9), strict=True)


@pytest.mark.parametrize("place", [np.asarray, pytest.param(to_device, marks=pytest.mark.skipif(
    emulator.missing() is not None, reason=str(emulator.missing())))])  # fmt: skip
def test_the_kernel_refuses_a_bias_of_another_length(place):
    """It would read, or write, beyond the end."""
    with cuda.using(cuda.Emulated() if place is to_device else None):
        x, w, b = (place(np.ones(s, np.float32)) for s in ((2, 3), (4, 3), (5,)))
        with pytest.raises(ValueError, match=r"a bias of shape \(5,\) for 4 outputs"):
            linear_forward(x, w, b, 1.0)


def test_linear_without_bias():
    def theirs(t, x, w):
        return t.nn.functional.linear(x, w)

    assert ulps(ops.linear, theirs, normal(5, 4), normal(3, 4), dtype=np.float32) < 16
    assert ulps(
        lambda x, w: ops.linear(x, w, negative_slope=0.2),
        lambda t, x, w: t.nn.functional.leaky_relu(theirs(t, x, w), 0.2),
        normal(5, 4), normal(3, 4), dtype=np.float32,
    ) < 16  # fmt: skip


def test_second_order_of_a_chain_of_products():
    """<u, d/dA <v, A B A>>, against PyTorch's double backward."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    a, b, v, u = (rng.standard_normal((3, 3)) for _ in range(4))

    def second(matrix, gradient, wrap):
        x, y = matrix(a), matrix(b)
        (g,) = gradient((x @ y @ x * wrap(v)).sum(), x, create_graph=True)
        return gradient((g * wrap(u)).sum(), [x, y])

    ours = second(lambda m: mg.tensor(m, requires_grad=True), mg.grad, mg.tensor)
    theirs = second(lambda m: torch.tensor(m, requires_grad=True), torch.autograd.grad, torch.tensor)
    for g, h in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(g.data, h.numpy(), rtol=1e-12)


@pytest.mark.parametrize("back_end", ["reference", "auto"])
def test_nan_stays_in_its_row(back_end):
    a = np.ones((80, 70), np.float32)
    a[7, 3] = np.nan
    with mg.mode(back_end):
        c = ops.matmul(mg.tensor(a), mg.tensor(np.ones((70, 60), np.float32))).data
    assert np.isnan(c[7]).all() and np.isnan(c).sum() == 60


@pytest.mark.parametrize("back_end", ["reference", "auto"])
def test_dtypes_meet_in_the_wider_one(back_end):
    """As for every other operator; and the same on both back ends."""
    a, b = mg.tensor(np.ones((2, 3), np.float32), requires_grad=True), mg.tensor(np.ones((3, 2)), requires_grad=True)
    with mg.mode(back_end):
        c = a @ b
        assert c.dtype == np.float64
        assert [g.dtype for g in mg.grad(c.sum(), [a, b])] == [np.float32, np.float64]


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda: ops.matmul(mg.tensor(np.ones((2, 3))), mg.tensor(np.ones((2, 3)))), "inner sizes differ"),
        (lambda: mg.tensor(1.0) @ mg.tensor([1.0]), "at least one axis"),
        (lambda: ops.linear(mg.tensor(np.ones((2, 3))), mg.tensor(np.ones((4, 5)))), "x has 3 features, the weight"),
        (lambda: ops.linear(*(mg.tensor(np.ones(s)) for s in ((2, 3), (4, 3), (5,)))), r"a bias of shape \(5,\) for 4 outputs"),
        (lambda: ops.linear(*(mg.tensor(np.ones(s)) for s in ((2, 3), (4, 3), (4,))), -0.5), "negative_slope >= 0, not -0.5"),
    ],
)
def test_bad_shapes(f, message):
    with pytest.raises(ValueError, match=message):
        f()
