"""The three convolutions: against PyTorch over random geometries, against each other, and at the edges."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigen as mg
from minigen import ops

Pair = tuple[int, int]


class Geometry(NamedTuple):
    """Sizes of images x (n, i, *size), weights w (o, i, *kernel) and maps y (n, o, *out)."""

    n: int
    i: int
    o: int
    size: Pair
    kernel: Pair
    out: Pair
    stride: Pair
    padding: Pair
    dilation: Pair

    @property
    def at(self):
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    @property
    def output_padding(self):
        """What conv_transpose2d needs to give `size` back: the rows and columns that conv2d left over."""
        reach = zip(self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple((h + 2 * p - d * (k - 1) - 1) % s for h, k, s, p, d in reach)

    def arrays(self, dtype=np.float64):
        """x, w, y between 0.5 and 1.5: nothing cancels, so a sum of K products is right to K/2 epsilons."""
        rng = np.random.default_rng(0)
        shapes = (self.n, self.i, *self.size), (self.o, self.i, *self.kernel), (self.n, self.o, *self.out)
        return [(rng.random(s) + 0.5).astype(dtype) for s in shapes]


@st.composite
def geometries(draw):
    def pair(low, high):
        return draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    kernel, stride, padding, dilation, extra = pair(1, 4), pair(1, 3), pair(0, 3), pair(1, 3), pair(0, 5)
    axes = list(zip(kernel, stride, padding, dilation, extra, strict=True))
    size = tuple(max(1, d * (k - 1) + 1 - 2 * p) + e for k, _, p, d, e in axes)
    out = tuple((h + 2 * p - d * (k - 1) - 1) // s + 1 for h, (k, s, p, d, _) in zip(size, axes, strict=True))
    n, i, o = (draw(st.integers(1, 3)) for _ in range(3))
    return Geometry(n, i, o, size, kernel, out, stride, padding, dilation)


def differ(found, exact, terms):
    """Whether our array is further from PyTorch's than `terms` additions explain."""
    exact = exact.detach().numpy()
    return (
        found.shape != exact.shape or np.abs(found.data - exact).max() > terms * np.finfo(found.dtype).eps * np.abs(exact).max()
    )


@pytest.mark.parametrize("back_end", ["reference", "auto"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@given(g=geometries())
@settings(max_examples=40, deadline=None)
def test_all_three_are_torchs(dtype, back_end, g):
    """Values, and the two gradients of each: which are the other two functions."""
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    terms = g.n * g.i * g.o * np.prod(g.kernel) * np.prod(g.out) + 1  # of the longest sum, and more
    x, w, y = g.arrays(dtype)
    extra = g.output_padding
    cases = [
        (ops.conv2d, f.conv2d, x, w, y, {}),
        (ops.conv_transpose2d, f.conv_transpose2d, y, w, x, {"output_padding": extra}),
    ]
    for ours, theirs, first, second, v, more in cases:
        a, b = (mg.tensor(m, requires_grad=True) for m in (first, second))
        c, d = (torch.tensor(m, dtype=torch.float64, requires_grad=True) for m in (first, second))
        with mg.mode(back_end):
            z = ours(a, b, **g.at, **more)
            found = [z, *mg.grad(z, [a, b], v)]
        t = theirs(c, d, **g.at, **more)
        exact = [t, *torch.autograd.grad(t, [c, d], torch.tensor(v, dtype=torch.float64))]
        assert [differ(m, e, terms) for m, e in zip(found, exact, strict=True)] == [False] * 3
        assert [m.dtype for m in found] == [dtype] * 3
    with mg.mode(back_end):
        dw = ops.conv2d_weight_grad(mg.tensor(x), mg.tensor(y), g.kernel, **g.at)
    exact = torch.nn.grad.conv2d_weight(torch.tensor(x).double(), w.shape, torch.tensor(y).double(), **g.at)
    assert not differ(dw, exact, terms)


@pytest.mark.parametrize("back_end", ["reference", "auto"])
@given(g=geometries())
@settings(max_examples=40, deadline=None)
def test_the_three_are_derivatives_of_one_trilinear_form(back_end, g):
    """<conv2d(x, w), y> = <x, conv_transpose2d(y, w)> = <w, conv2d_weight_grad(x, y)>."""
    x, w, y = (mg.tensor(a) for a in g.arrays())
    with mg.mode(back_end):
        forms = [
            (ops.conv2d(x, w, **g.at) * y).sum().item(),
            (x * ops.conv_transpose2d(y, w, output_padding=g.output_padding, **g.at)).sum().item(),
            (w * ops.conv2d_weight_grad(x, y, g.kernel, **g.at)).sum().item(),
        ]
    np.testing.assert_allclose(forms, forms[0], rtol=1e-11)


@pytest.mark.parametrize("back_end", ["reference", "auto"])
@pytest.mark.parametrize("n", [1, 5])
def test_the_layers_of_dcgan_are_torchs(n, back_end):
    """Signed values and the channel counts that the recipes use: 4x4, stride 2, padding 1."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((n, 24, 14, 14), (40, 24, 4, 4)))
    v = rng.standard_normal((n, 40, 7, 7)).astype(np.float32)
    a, b = mg.tensor(x, requires_grad=True), mg.tensor(w, requires_grad=True)
    c, d = (torch.tensor(m, dtype=torch.float64, requires_grad=True) for m in (x, w))
    with mg.mode(back_end):
        y = ops.conv2d(a, b, 2, 1)
        found = [y, *mg.grad(y, [a, b], v)]
    t = torch.nn.functional.conv2d(c, d, stride=2, padding=1)
    exact = [t, *torch.autograd.grad(t, [c, d], torch.tensor(v, dtype=torch.float64))]
    # 384 products of either sign: errors add like a random walk, some 20 epsilons of the largest entry.
    assert [differ(m, e, 60) for m, e in zip(found, exact, strict=True)] == [False] * 3


@pytest.mark.parametrize("back_end", ["reference", "auto"])
def test_an_empty_batch(back_end):
    x, w = mg.tensor(np.ones((0, 2, 5, 5), np.float32), requires_grad=True), mg.tensor(np.ones((3, 2, 3, 3), np.float32), True)
    with mg.mode(back_end):
        y = ops.conv2d(x, w)
        dx, dw = mg.grad(y, [x, w], np.ones(y.shape))
        z = ops.conv_transpose2d(y, w)
    assert y.shape == (0, 3, 3, 3) and z.shape == dx.shape == (0, 2, 5, 5)
    assert dw.shape == (3, 2, 3, 3) and not dw.data.any()


@pytest.mark.parametrize("back_end", ["reference", "auto"])
def test_nan_reaches_what_it_should_and_no_more(back_end):
    x = np.ones((2, 1, 6, 6), np.float32)
    x[1, 0, 0, 0] = np.nan
    w = mg.tensor(np.ones((1, 1, 3, 3), np.float32))
    with mg.mode(back_end):
        y = ops.conv2d(mg.tensor(x), w, 1, 1).data
        z = ops.conv_transpose2d(mg.tensor(x), w, 1, 1).data
        dw = ops.conv2d_weight_grad(mg.tensor(x), mg.tensor(np.ones((2, 1, 4, 4), np.float32)), 3).data
    for found in (y, z):
        assert np.isnan(found[1, 0, :2, :2]).all() and np.isnan(found).sum() == 4
    assert np.isnan(dw).sum() == 1 and np.isnan(dw[0, 0, 0, 0])


def ones(*shape):
    return mg.tensor(np.ones(shape, np.float32))


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda: ops.conv2d(ones(1, 2, 4), ones(1, 2, 3, 3)), "wants two 4-D tensors"),
        (lambda: ops.conv2d(ones(1, 2, 4, 4), ones(1, 3, 3, 3)), "the input has 2 channels, the weight"),
        (lambda: ops.conv2d(ones(1, 1, 4, 4), ones(1, 1, 5, 3)), "does not fit"),
        (lambda: ops.conv2d(ones(1, 1, 4, 4), ones(1, 1, 3, 3), dilation=2), "does not fit"),
        (lambda: ops.conv2d(ones(1, 1, 4, 4), ones(1, 1, 3, 3), stride=0), "stride is one or two integers of at least 1"),
        (lambda: ops.conv2d(ones(1, 1, 4, 4), ones(1, 1, 3, 3), padding=-1), "padding is one or two integers of at least 0"),
        (lambda: ops.conv2d(ones(1, 1, 4, 4), ones(1, 1, 3, 3), padding=(1, 1, 1)), "padding is one or two integers"),
        (lambda: ops.conv2d(ones(1, 1, 4, 4), ones(1, 1, 3, 3), dilation=1.0), "dilation is one or two integers"),
        (lambda: ops.conv_transpose2d(ones(1, 2, 4, 4), ones(3, 2, 3, 3)), "the input has 2 channels, the weight"),
        (lambda: ops.conv_transpose2d(ones(1, 1, 4, 4), ones(1, 1, 3, 3), 2, 0, 2), "smaller than the stride"),
        (lambda: ops.conv_transpose2d(ones(1, 1, 1, 1), ones(1, 1, 2, 2), 1, 1), r"the output would be \(0, 0\)"),
        (lambda: ops.conv2d_weight_grad(ones(1, 1, 4, 4), ones(1, 1, 4, 4), 3), None),
        (lambda: ops.conv2d_weight_grad(ones(2, 1, 4, 4), ones(1, 1, 2, 2), 3), None),
    ],
)
def test_bad_arguments(f, message):
    with pytest.raises((ValueError, TypeError), match=message):
        f()
