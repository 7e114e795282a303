"""Convolution by fewer multiplications: exact in its algebra, right at every edge of its tiling, and used where it pays."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minigen.kernels import threads, transpose, unfold, winograd

import minigen as mg
from minigen import ops


@pytest.mark.parametrize("taps", winograd.MATRICES)
def test_the_matrices_make_the_form(taps):
    """sum over q of B[q, j] G[q, k] A[q, i] is 1 where j = i + k and 0 elsewhere, exactly."""
    b, a, g = (np.array(m) for m in winograd.MATRICES[taps])
    form = np.einsum("qj,qk,qi->jki", b, g, a)
    j, k, i = np.indices(form.shape)
    assert np.array_equal(form, j == i + k)
    assert b.shape == (taps + 1, taps + 1) and (b != 0).sum(1).max() <= 3 and (b != 0).sum(0).max() <= 3


@contextmanager
def everywhere(tiles):
    """Use it wherever it can be used, and with so many tiles in a product."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"MAP": -(10**9), "LEAST": 0, "TILES": tiles}.items():
            patch.setattr(winograd, name, value)
        winograd.tiling.cache_clear()
        yield
    winograd.tiling.cache_clear()


def three(x, w, y, stride, padding):
    """conv2d, its two gradients."""
    x, w, y = mg.tensor(x), mg.tensor(w), mg.tensor(y)
    extra = tuple((h + 2 * p - k) % stride for h, p, k in zip(x.shape[2:], padding, w.shape[2:], strict=True))
    return [
        ops.conv2d(x, w, stride, padding).data,
        ops.conv_transpose2d(y, w, stride, padding, extra).data,
        ops.conv2d_weight_grad(x, y, w.shape[2:], stride, padding).data,
    ]


def arrays(n, i, o, size, kernel, stride, padding, dtype=np.float64):
    rng = np.random.default_rng(0)
    out = tuple((h + 2 * p - kernel) // stride + 1 for h, p in zip(size, padding, strict=True))
    shapes = (n, i, *size), (o, i, kernel, kernel), (n, o, *out)
    return [rng.standard_normal(s).astype(dtype) for s in shapes]


def plan(x, w, stride, padding):
    return unfold.make_plan(x.shape, w.shape, (stride, stride), padding, (1, 1))


@given(
    taps=st.sampled_from([2, 3]), stride=st.integers(1, 3), size=st.tuples(st.integers(1, 19), st.integers(1, 19)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)), n=st.integers(1, 7), i=st.integers(1, 19), o=st.integers(1, 35),
    tiles=st.sampled_from([1, 6, 128]),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_all_three_are_the_reference(taps, stride, size, padding, n, i, o, tiles):
    """Tiles that reach over the edge, several images in a product, several strips of one, and all remainders of eight."""
    kernel = taps * stride
    padding = tuple(min(p, kernel - 1) for p in padding)
    size = tuple(max(h, kernel - 2 * p) for h, p in zip(size, padding, strict=True))
    x, w, y = arrays(n, i, o, size, kernel, stride, padding)
    with everywhere(tiles):
        assert winograd.tiling(plan(x, w, stride, padding)) is not None
        found = three(x, w, y, stride, padding)
    with mg.mode("reference"):
        wanted = three(x, w, y, stride, padding)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * max(1.0, np.abs(b).max()))


LAYERS = [((64, 128, 16, 16), 128, 4, 2), ((64, 128, 8, 8), 128, 3, 1), ((5, 64, 13, 7), 96, 3, 1)]


@pytest.mark.parametrize("shape, c_out, kernel, stride", LAYERS)
def test_single_precision_loses_no_more_than_it_says(shape, c_out, kernel, stride):
    """Sums of 1,000 products of either sign, in float32: a plain sum is right to some 5e-7 of the largest."""
    x, w, y = arrays(shape[0], shape[1], c_out, shape[2:], kernel, stride, (1, 1), np.float32)
    assert winograd.tiling(plan(x, w, stride, (1, 1))) is not None
    found = three(x, w, y, stride, (1, 1))
    with mg.mode("reference"):
        wanted = three(*(a.astype(np.float64) for a in (x, w, y)), stride, (1, 1))
    assert [np.abs(a - b).max() < 2e-6 * np.abs(b).max() for a, b in zip(found, wanted, strict=True)] == [True] * 3


def test_the_number_of_threads_changes_no_bit():
    x, w, y = arrays(9, 64, 72, (16, 16), 4, 2, (1, 1), np.float32)
    before, found = threads.get_num_threads(), []
    for count in (1, before):
        threads.set_num_threads(count)
        found.append(three(x, w, y, 2, (1, 1)))
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


def test_an_undefined_pixel_stays_in_its_tiles():
    x, w, _ = arrays(2, 64, 64, (8, 8), 3, 1, (1, 1), np.float32)
    x[1, 5, 0, 0] = np.nan
    y = np.isnan(ops.conv2d(mg.tensor(x), mg.tensor(w), 1, 1).data)
    assert y[1, :, :2, :2].all() and y.sum() == 64 * 4


@pytest.mark.parametrize(
    "shape, c_out, kernel, stride, padding, dilation, used",
    [
        ((64, 128, 8, 8), 128, 3, 1, 1, 1, True),
        ((64, 64, 16, 16), 128, 4, 2, 1, 1, True),
        ((64, 3, 32, 32), 64, 4, 2, 1, 1, False),  # few channels: maps cost more than they save
        ((1, 512, 2, 2), 512, 3, 1, 1, 1, False),  # one tile: the weights' maps do
        ((64, 128, 8, 8), 128, 3, 1, 1, 2, False),
        ((64, 128, 8, 8), 128, 5, 1, 2, 1, False),
        ((64, 128, 8, 8), 128, 3, 2, 1, 1, False),
        ((64, 128, 8, 8), 128, 3, 1, 3, 1, False),  # windows of nothing but border
    ],
)
def test_where_it_is_used(shape, c_out, kernel, stride, padding, dilation, used):
    weight = (c_out, shape[1], kernel, kernel)
    found = winograd.tiling(unfold.make_plan(shape, weight, *((v, v) for v in (stride, padding, dilation))))
    assert (found is not None) == used


@given(rows=st.integers(0, 20), columns=st.integers(0, 20), double=st.booleans())
@settings(max_examples=60, deadline=None)
def test_transposing_by_blocks(rows, columns, double):
    dtype = np.float64 if double else np.float32
    source = np.random.default_rng(0).standard_normal((rows + 1, columns + 3)).astype(dtype)
    found = np.full((columns + 1, rows + 2), 7, dtype)
    transpose.transpose(source.reshape(-1), 1, columns + 3, rows, columns, found.reshape(-1), 2, rows + 2)
    wanted = np.full_like(found, 7)
    wanted[:columns, 2:] = source[:rows, 1 : columns + 1].T
    assert np.array_equal(found, wanted)


def test_a_block_in_plain_python_is_the_compiled_one():
    source, found, wanted = np.arange(200, dtype=np.float32), np.zeros(100, np.float32), np.zeros(100, np.float32)
    transpose.block(source, 3, 11, found, 2, 12)
    transpose.transpose(source, 3, 11, 8, 8, wanted, 2, 12)
    assert np.array_equal(found, wanted)
