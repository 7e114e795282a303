"""The model of a pixel RNN: that its likelihood is exact, that no step looks ahead, that it draws what it says."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import minigen as mg
from minigen import nn
from minigen.models.pixel import PixelRNN as Model
from minigen.models.pixel import reads

CELLS = ("rnn", "gru", "lstm")
EVERY = pytest.mark.parametrize("cell", CELLS)
SHAPES = [("pixel", 0), ("pixel", 1), ("pixel", 3), ("row", 0), ("row", 1), ("row", 2)]
WAYS = pytest.mark.parametrize(("by", "context"), SHAPES)


def model(shape, scale=4.0, **options):
    """Larger weights than at the start, so that no probability is near a half by accident."""
    mg.seed(0)
    m = Model(shape, **options)
    for p in nn.parameters(m):
        p.assign(p.data * scale)
    return m


def all_images(shape, levels):
    return np.array(list(itertools.product(range(levels), repeat=math.prod(shape)))).reshape(-1, *shape)


def some_images(shape, levels, n=5):
    return np.random.default_rng(1).integers(0, levels, (n, *shape))


# --- exactness


@WAYS
@EVERY
def test_the_probabilities_of_all_images_sum_to_one(cell, by, context):
    m = model((1, 2, 2), cell=cell, hidden=5, by=by, context=context)
    p = np.exp(m.log_prob(all_images((1, 2, 2), 2)))
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-6)
    assert p.max() > 1.5 * p.min() > 0


@pytest.mark.parametrize(("shape", "levels", "by"), [((1, 2, 2), 3, "pixel"), ((1, 2, 2), 3, "row"), ((3, 1, 2), 2, "pixel")])
def test_so_they_do_with_more_levels_and_in_colour(shape, levels, by):
    m = model(shape, hidden=5, by=by, context=1, levels=levels)
    np.testing.assert_allclose(np.exp(m.log_prob(all_images(shape, levels))).sum(), 1, rtol=1e-6)


def test_and_for_each_label():
    m = model((1, 2, 2), hidden=5, context=1, classes=2)
    every = all_images((1, 2, 2), 2)
    p = [np.exp(m.log_prob(every, np.full(16, label))) for label in (0, 1)]
    np.testing.assert_allclose(np.sum(p, axis=1), 1, rtol=1e-6)
    assert np.abs(p[0] - p[1]).max() > 0.01


def test_each_step_of_256_levels_is_a_softmax():
    """p(7, k) = p(7) p(k | 7), for every k."""
    m = model((1, 1, 2), hidden=5, context=1, levels=256)
    x = np.stack([np.full(256, 7), np.arange(256)], 1).reshape(256, 1, 1, 2)
    logits = m.logits(x[:1]).data[:, 0, 0].astype(np.float64)
    assert logits.shape == (2, 256)
    first, second = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(m.log_prob(x)), first[7] * second, rtol=1e-5)
    np.testing.assert_allclose(np.exp(m.log_prob(x)).sum(), first[7], rtol=1e-5)


@pytest.mark.parametrize(("shape", "levels"), [((1, 4, 3), 2), ((3, 2, 2), 2), ((1, 3, 2), 256), ((3, 2, 2), 5)])
@WAYS
def test_all_steps_at_once_are_the_steps_one_by_one(by, context, shape, levels):
    for cell in CELLS:
        m = model(shape, cell=cell, hidden=6, by=by, context=context, levels=levels)
        drawn, stepped = m.generate(np.random.default_rng(0), 4)
        np.testing.assert_allclose(m.log_prob(drawn), stepped, rtol=1e-5, atol=1e-5)
        x = some_images(shape, levels)
        given, forced = m.generate(np.random.default_rng(0), 5, given=x, rows=shape[1])
        np.testing.assert_array_equal(given, x)
        np.testing.assert_allclose(m.log_prob(x), forced, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("levels", [2, 7])
def test_the_loss_is_the_mean_of_minus_log_p_for_each_value(levels):
    m = model((3, 3, 2), hidden=5, context=1, levels=levels, classes=2)
    x, labels = some_images((3, 3, 2), levels), np.array([0, 1, 1, 0, 1])
    np.testing.assert_allclose(m.loss(x, labels).item(), -m.log_prob(x, labels).mean() / 18, rtol=1e-5)


def test_its_gradient_is_right():
    m = model((1, 2, 2), 2.0, hidden=3, context=1)
    for p in nn.parameters(m):
        p.data = p.data.astype(np.float64)
    x, named = some_images((1, 2, 2), 2, 3), nn.named_parameters(m)

    def at(*weights):
        for key, w in zip(named, weights, strict=True):
            owner, _, name = key.rpartition(".")
            setattr(getattr(m, owner), name, w)
        return m.loss(x)

    with mg.mode("reference"):
        mg.gradcheck(at, *named.values(), order=1)


def test_a_fair_coin_is_log_two():
    m = model((1, 28, 28), 0.0)
    x = some_images((1, 28, 28), 2, 2)
    np.testing.assert_allclose(-m.log_prob(x), 784 * math.log(2), rtol=1e-6)
    assert mg.metrics.bits_per_dim(784 * math.log(2), 784) == pytest.approx(1)


# --- what a step may read


@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 3, 4)])
@WAYS
def test_no_step_reads_what_it_has_yet_to_write(by, context, shape):
    table, size = reads(shape, by, context), math.prod(shape)
    first = np.arange(len(table))[:, None] * (size // len(table))  # that each step writes
    assert ((table < first) | (table == size)).all() and table.min() >= 0
    x = some_images(shape, 2, 1)
    m = model(shape, hidden=4, by=by, context=context)
    before = m.logits(x).data
    for t in range(m.steps):  # change all that step t writes: later steps notice, and no other
        y = x.transpose(0, 2, 3, 1).reshape(1, m.steps, -1).copy()
        y[:, t] = 1 - y[:, t]
        y = y.reshape(1, *shape[1:], shape[0]).transpose(0, 3, 1, 2)
        changed = (m.logits(y).data != before).any(axis=(1, 2))
        assert not changed[: t + 1].any() and changed[t + 1 :].any() == (t + 1 < m.steps)


def test_the_neighbourhood_is_the_one_drawn():
    """Of pixel (2, 2) in 4x5, numbered 0..19: two rows above, two columns each way, two to the left."""
    assert reads((1, 4, 5), "pixel", 2)[12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    outside = 20
    assert reads((1, 4, 5), "pixel", 1)[5].tolist() == [outside, 0, 1, outside]  # the first of the second row
    assert reads((1, 4, 5), "pixel", 1)[9].tolist() == [3, 4, outside, 8]
    assert reads((1, 4, 5), "pixel", 0)[[0, 1, 19], 0].tolist() == [outside, 0, 18]
    assert reads((1, 2, 3), "row", 2).tolist() == [[6] * 6, [6, 6, 6, 0, 1, 2]]
    assert reads((3, 1, 2), "pixel", 1)[4].tolist() == [6] * 7 + [1, 2, 3]  # its own red, and the pixel to the left


def test_zero_context_is_the_value_before_and_nothing_else():
    assert model((1, 28, 28)).rnn.input_size == 1
    assert model((1, 28, 28), by="row").rnn.input_size == 28
    assert model((1, 28, 28), context=4).rnn.input_size == 4 * 9 + 4 + 28 + 28
    assert model((1, 28, 28), context=2, by="row", classes=10).rnn.input_size == 2 * 28 + 28 + 10


# --- drawing


@pytest.mark.parametrize(("by", "levels"), [("pixel", 2), ("row", 2), ("pixel", 3)])
def test_images_are_drawn_as_often_as_their_probability_says(by, levels):
    shape, n = (1, 2, 2), 20_000
    m = model(shape, hidden=4, by=by, context=1, levels=levels)
    drawn, _ = m.generate(np.random.default_rng(0), n)
    index = np.ravel_multi_index(drawn.reshape(n, 4).T, (levels,) * 4)
    expected = n * np.exp(m.log_prob(all_images(shape, levels)))
    found = np.bincount(index, minlength=levels**4)
    likely = expected > 5
    chi2 = ((found - expected)[likely] ** 2 / expected[likely]).sum()
    assert chi2 < likely.sum() + 5 * math.sqrt(2 * likely.sum())


@EVERY
def test_each_step_is_taken_once_with_the_state_kept(monkeypatch, cell):
    m = model((1, 6, 5), cell=cell, hidden=4, context=1)
    inner, states = m.rnn.step, []
    monkeypatch.setattr(m.rnn, "step", lambda x, state: states.append(state) or inner(x, state))
    x = some_images((1, 6, 5), 2, 3)
    drawn, _ = m.generate(np.random.default_rng(0), 3, given=x, rows=3)
    assert len(states) == 30 and states[0] is None and all(s is not None for s in states[1:])
    np.testing.assert_array_equal(drawn[:, :, :3], x[:, :, :3])
    assert (drawn[:, :, 3:] != x[:, :, 3:]).any()
