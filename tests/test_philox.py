"""Random numbers by counting: the published answers, the distribution, streams, and the kernels on the emulator."""

from __future__ import annotations

import inspect
import json
import math

import numpy as np
import pytest
from minigen.kernels import cuda, emulator, graph, philox
from minigen.kernels.device_array import DeviceArray, to_device

import minigen as mg
from minigen import device, ops, random
from minigen.ops.philox import philox_4x32, philox_normal, philox_uniform

needs_emulator = pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))
DRAWS = pytest.mark.parametrize("draw", [philox_uniform, philox_normal])
DTYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32])
PER_BLOCK = {np.float64: 2, np.float32: 4}
N = 40_000


def state(seed=5, counter=0):
    return np.array([seed, counter], np.int64)


# --- the reference


@pytest.mark.parametrize(
    "counter, key, words",
    [  # kat_vectors of Random123, the authors' library
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_the_published_answers(counter, key, words):
    c, k, wanted = ([int(word, 16) for word in text.split()] for text in (counter, key, words))
    found = philox_4x32([np.array([word, 0], np.uint64) for word in c], k)
    assert found[:, 0].tolist() == wanted


def test_numbers_are_the_words_upper_bits():
    """Block 2^32 + 1 of the seed 2^32 + 3: counter words 1, 1, 0, 0 and key words 3, 1."""
    words = philox_4x32([np.array([c], np.uint64) for c in (1, 1, 0, 0)], [3, 1])[:, 0].tolist()
    there = 2**32 + 3, 2**32 + 1
    found = philox_uniform(state(*there), (4,), np.float32)
    assert found.tolist() == [(w >> 8) / 2**24 for w in words]
    pairs = [((words[i] + (words[i + 1] << 32)) >> 11) / 2**53 for i in (0, 2)]
    assert philox_uniform(state(*there), (2,), np.float64).tolist() == pairs
    z = [math.sqrt(-2 * math.log(1 - pairs[0])) * f(2 * math.pi * pairs[1]) for f in (math.cos, math.sin)]
    np.testing.assert_allclose(philox_normal(state(*there), (2,), np.float64), z, rtol=1e-15, atol=1e-15)


def uniform_below(x):
    return np.clip(x, 0, 1)


def normal_below(x):
    return 0.5 + 0.5 * np.vectorize(math.erf)(x / math.sqrt(2))


@DTYPES
@pytest.mark.parametrize("seed", [0, 1, -1])
@pytest.mark.parametrize(
    "draw, mean, variance, fourth, below",  # fourth: the central moment, from which the variance of the variance follows
    [(philox_uniform, 0.5, 1 / 12, 1 / 80, uniform_below), (philox_normal, 0.0, 1.0, 3.0, normal_below)],
)
def test_the_distribution(draw, mean, variance, fourth, below, seed, dtype):
    x = draw(state(seed), (N,), dtype)
    assert x.dtype == dtype and x.shape == (N,)
    x = np.sort(x.astype(np.float64))
    assert abs(x.mean() - mean) < 4 * np.sqrt(variance / N)
    assert abs(x.var() - variance) < 4 * np.sqrt((fourth - variance**2) / N)
    # Kolmogorov and Smirnov: the distance exceeds 1.95 / sqrt(n) in one of a thousand samples.
    steps = np.arange(N + 1) / N
    assert max(np.abs(below(x) - steps[1:]).max(), np.abs(below(x) - steps[:-1]).max()) < 1.95 / np.sqrt(N)
    if draw is philox_uniform:
        assert x[0] >= 0 and x[-1] < 1


@DRAWS
@DTYPES
def test_neighbours_are_not_correlated(draw, dtype):
    """Nor are the numbers of one block, nor those of two seeds, nor of counters that differ in the upper word."""
    x = draw(state(1), (N // 4, 4), dtype)
    others = [draw(state(2), (N // 4, 4), dtype), draw(state(1, 2**32), (N // 4, 4), dtype)]
    columns = np.concatenate([x[:-1], x[1:], *(y[:-1] for y in others)], axis=1).T
    assert np.abs(np.corrcoef(columns) - np.eye(16)).max() < 4.5 / np.sqrt(N // 4)  # 120 pairs


@DRAWS
@DTYPES
def test_draws_follow_each_other(draw, dtype):
    """Those of whole blocks make up one long draw; what is left of a block is not used."""
    per = PER_BLOCK[dtype]
    one, parts = state(counter=2**32 - 4), state(counter=2**32 - 4)
    long = draw(one, (9 * per,), dtype)
    drawn = [draw(parts, shape, dtype) for shape in [(per,), (2, 3 * per), (0, 5), (2 * per - 1,)]]
    np.testing.assert_array_equal(np.concatenate([d.reshape(-1) for d in drawn]), long[: 9 * per - 1])
    assert one.tolist() == parts.tolist() == [5, 2**32 + 5]
    assert draw(parts, (), dtype).shape == () and parts[1] == 2**32 + 6


def test_other_dtypes_are_refused():
    for draw in (philox_uniform, philox_normal, philox.philox_uniform_cuda, philox.philox_normal_cuda):
        with pytest.raises(TypeError, match="random numbers are float32 or float64, not int64"):
            draw(state(), (3,), np.int64)


# --- the kernels


@pytest.fixture
def emulated():
    with cuda.using(cuda.Emulated()) as backend:
        yield backend


def compare(draw, dtype, backend):
    with cuda.using(backend):
        for start in [(5, 0), (-1, 2**32 - 2), (2**40 + 1, 2**62)]:
            host = state(*start)
            there = to_device(host)
            for shape in [(), (0,), (1,), (2,), (3,), (5,), (3, 7), (4, 0, 2), (1030,)]:
                wanted, found = draw(host, shape, dtype), draw(there, shape, dtype)
                assert isinstance(found, DeviceArray) and found.dtype == dtype and found.shape == shape
                assert there.get().tolist() == host.tolist()
                if draw is philox_uniform:
                    np.testing.assert_array_equal(found.get(), wanted, strict=True)
                else:  # near its zeros a cosine has the rounding of its angle
                    eps = np.finfo(dtype).eps
                    np.testing.assert_allclose(found.get(), wanted, rtol=4 * eps, atol=eps if dtype == np.float32 else 16 * eps)


@needs_emulator
@DRAWS
@DTYPES
@pytest.mark.parametrize("seed", range(3))
def test_the_kernels_draw_what_the_reference_draws(draw, dtype, seed):
    compare(draw, dtype, cuda.Emulated(seed=seed))


@needs_emulator
@DRAWS
@DTYPES
def test_no_race_and_nothing_outside(draw, dtype):
    compare(draw, dtype, cuda.Emulated(checked=True))


def test_signatures():
    for name in ("philox_uniform", "philox_normal"):
        reference, kernel = getattr(ops.philox, name), getattr(philox, f"{name}_cuda")
        assert list(inspect.signature(reference).parameters) == list(inspect.signature(kernel).parameters)


# --- minigen.random


def test_on_the_cpu_numpys_generator_draws():
    mg.seed(7)
    theirs = np.random.Generator(np.random.PCG64(7))
    for dtype in (np.float32, np.float64):
        np.testing.assert_array_equal(mg.randn(3, 5, dtype=dtype).data, theirs.standard_normal((3, 5), dtype), strict=True)
        np.testing.assert_array_equal(mg.rand(4, dtype=dtype).data, theirs.random(4, dtype), strict=True)
    y = ops.dropout(mg.tensor(np.ones(50, np.float32)), 0.3).data
    kept = theirs.random(50, dtype=np.float32) >= 0.3
    np.testing.assert_array_equal(y, kept.astype(np.float32) / np.float32(0.7))
    assert random._stream is None or random._reached()[1] == 0


def on_device(*shape, draw=mg.randn, **options):
    with device.on("cuda"):
        x = draw(*shape, **options)
    assert x.device == "cuda"
    return x.data.get()


@needs_emulator
def test_on_a_device_philox_draws(emulated):
    mg.seed(3)
    before, expected = random.generator().bit_generator.state, state(3)
    for draw, reference in ((mg.randn, philox_normal), (mg.rand, philox_uniform)):
        for dtype in (np.float32, np.float64):
            found = on_device(5, 3, draw=draw, dtype=dtype)
            np.testing.assert_allclose(found, reference(expected, (5, 3), dtype), rtol=1e-6)
    assert random.device_state().get().tolist() == expected.tolist()
    assert random.generator().bit_generator.state == before


@needs_emulator
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dropout_draws_where_its_input_is(emulated, monkeypatch, dtype):
    x = mg.Tensor(to_device(np.arange(1, 1001, dtype=dtype)), requires_grad=True)
    mg.seed(3)
    random.device_state()
    for copying in ("upload", "download"):
        monkeypatch.setattr(emulated, copying, lambda *_: pytest.fail("a copy between host and device"))
    y = ops.dropout(x, 0.4)
    (g,) = mg.grad(y.sum(), x)
    monkeypatch.undo()
    kept = philox_uniform(state(3), (1000,), np.float32) >= np.float32(0.4)
    np.testing.assert_allclose(y.data.get(), kept * np.arange(1, 1001) / 0.6, rtol=1e-6)
    np.testing.assert_allclose(g.data.get(), kept / 0.6, rtol=1e-6)
    assert y.data.dtype == dtype


@needs_emulator
def test_the_state_stays_where_it_is(emulated):
    """A graph that was captured reads and writes that memory, whatever happens to the state."""
    there = random.device_state()
    assert random.device_state() is there
    saved, first = random.get_state(), on_device(6)
    mg.seed(11)
    assert there.get().tolist() == [11, 0]
    other = on_device(6)
    random.set_state(saved)
    assert random.device_state() is there
    np.testing.assert_array_equal(on_device(6), first)
    assert (other != first).any() and there.get().tolist() == [0, 2]


@needs_emulator
def test_a_saved_state_continues_both_streams(emulated):
    mg.seed(2**64 - 1)
    on_device(5)
    mg.randn(3)
    saved = random.get_state()
    wanted = [on_device(5), mg.rand(4).data, on_device(7, draw=mg.rand)]
    for begun in (True, False):  # into the array that is there; as in a new process, into one that is not made yet
        if not begun:
            random._stream = None
        random.set_state(saved)
        assert random.get_state() == saved
        for a, b in zip([on_device(5), mg.rand(4).data, on_device(7, draw=mg.rand)], wanted, strict=True):
            np.testing.assert_array_equal(a, b)


@needs_emulator
def test_a_state_from_before_there_was_a_devices_stream(emulated):
    mg.seed(4)
    saved = json.loads(random.get_state())
    assert saved.pop("device") == {"seed": 4, "counter": 0}
    wanted = [on_device(5), mg.rand(4).data]
    random.set_state(json.dumps(saved))
    for a, b in zip([on_device(5), mg.rand(4).data], wanted, strict=True):
        np.testing.assert_array_equal(a, b)


@needs_emulator
def test_another_back_end_begins_anew():
    mg.seed(6)
    found = []
    for _ in range(2):
        with cuda.using(cuda.Emulated()):
            found.append([on_device(5), on_device(5)])
    np.testing.assert_array_equal(*found)
    assert (found[0][0] != found[0][1]).any()
    mg.seed(6)  # written to where the second was: that back end is not in use
    assert random._reached() == (6, 0)


@needs_emulator
def test_a_graph_draws_other_numbers_in_each_replay(emulated):
    def step():
        with device.on("cuda"):
            kept[...] = mg.randn(6).data
            dropped[...] = ops.dropout(mg.Tensor(ones), 0.5).data

    ones, kept, dropped = (to_device(np.ones(n, np.float32)) for n in (9, 6, 9))
    mg.seed(8)
    captured = graph.Graph()
    with captured.noting():
        step()
    with captured.capturing():
        step()
    found = [[kept.get(), dropped.get()]]
    for _ in range(3):
        captured.replay()
        found.append([kept.get(), dropped.get()])
    host = state(8)
    for noise, mask in found:
        np.testing.assert_allclose(noise, philox_normal(host, (6,), np.float32), rtol=1e-6)
        np.testing.assert_array_equal(mask, 2.0 * (philox_uniform(host, (9,), np.float32) >= 0.5))
    mg.seed(8)  # and a restart is one for the graph, too
    captured.replay()
    np.testing.assert_array_equal(kept.get(), found[0][0])
