"""The text networks: a state that joins what was cut, relaxed characters and their gradients, the critic and its penalty."""

from __future__ import annotations

import numpy as np
import pytest
from minigen.kernels import cuda, emulator
from minigen.kernels.device_array import to_device

import minigen as mg
from minigen import nn
from minigen.device import on
from minigen.models import gan
from minigen.models.text import CharRNN as Model
from minigen.models.text import TextCritic, TextGenerator, one_hot
from minigen.train.wgan_gp import gradient_penalty

CELLS = pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])


def gumbel(*shape):
    return -np.log(-np.log(np.random.default_rng(1).random(shape))).astype(np.float32)


def in_float64(model):
    for _, node in nn.walk(model):
        for name, value in list(vars(node).items()) if hasattr(node, "__dict__") and not isinstance(node, mg.Tensor) else ():
            if isinstance(value, mg.Tensor):
                setattr(node, name, mg.Tensor(value.data.astype(np.float64), True))
    return model


@CELLS
@pytest.mark.parametrize("layers", [1, 2])
def test_a_carried_state_joins_what_was_cut(cell, layers):
    model, x = Model(7, 5, 6, layers, cell), np.random.default_rng(0).integers(0, 7, (9, 3))
    whole, last = model(x)
    assert whole.shape == (9, 3, 7)
    first, state = model(x[:4])
    second, end = model(x[4:], state)
    np.testing.assert_allclose(np.concatenate([first.data, second.data]), whole.data, atol=1e-6)
    state = None
    for t in range(9):
        logits, state = model.step(x[t], state)
        np.testing.assert_allclose(logits.data, whole.data[t], atol=1e-6)
    for a, b, c in zip(*((s if isinstance(s, tuple) else (s,)) for s in (last, end, state)), strict=True):
        assert a.shape == (layers, 3, 6)
        np.testing.assert_allclose(b.data, a.data, atol=1e-6)
        np.testing.assert_allclose(c.data, a.data, atol=1e-6)


def test_dropout_acts_in_training_only_and_off_the_recurrent_path():
    model, x = Model(7, 5, 64, 2, dropout=0.5), np.zeros((3, 2), int)
    (a, _), (b, _) = model(x), model(x)
    assert (a.data != b.data).any()
    nn.set_training(model, False)
    (a, _), (b, _) = model(x), model(x)
    np.testing.assert_array_equal(a.data, b.data)
    nn.set_training(model, True)
    _, state = Model(7, 5, 64, 1, dropout=0.9)(x)
    assert (np.abs(state.data) > 0).all()  # a state that dropout had touched would hold zeros


# --- writing inside the graph


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_hard_characters_are_what_free_running_draws(cell):
    """argmax(l + g) at each step, read back: the same as going through step() by index."""
    model, noise = TextGenerator(5, 6, 7, 2, cell), gumbel(9, 3, 5)
    written = model.write(noise, 0.7, hard=True).data
    index, state = np.full(3, model.begin), None
    for t in range(9):
        logits, state = model.step(index, state)
        index = (logits.data + noise[t]).argmax(1)
        np.testing.assert_allclose(written[:, t], np.eye(5)[index], atol=1e-6)


def test_soft_characters_are_the_formula():
    model, noise = TextGenerator(5, 6, 7), gumbel(4, 3, 5)
    written = model.write(noise, 0.7, hard=False).data
    assert written.shape == (3, 4, 5)
    np.testing.assert_allclose(written.sum(2), 1, rtol=1e-5)
    x, state = model.embedding(np.full(3, model.begin)), None
    for t in range(4):
        logits, state = model.read(x, state)
        e = np.exp((logits.data + noise[t]) / 0.7)
        np.testing.assert_allclose(written[:, t], e / e.sum(1, keepdims=True), rtol=1e-4)
        x = mg.Tensor(written[:, t]) @ model.embedding.weight[:5]
    sharp = model.write(noise[:1], 1e-3, hard=False).data
    np.testing.assert_allclose(sharp, model.write(noise[:1], 1e-3, hard=True).data, atol=1e-3)


def test_straight_through_takes_the_gradient_of_the_soft_one():
    model, noise, w = TextGenerator(5, 6, 7), gumbel(1, 3, 5), mg.randn(3, 1, 5)
    params = nn.parameters(model)
    hard, soft = (mg.grad((model.write(noise, 0.5, h) * w).sum(), params, allow_unused=True) for h in (True, False))
    assert sum(g is not None for g in soft) >= 5
    for a, b in zip(hard, soft, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            np.testing.assert_array_equal(a.data, b.data)


def test_the_gradient_of_one_written_character_by_differences():
    model, noise = in_float64(TextGenerator(5, 6, 7)), gumbel(1, 3, 5).astype(np.float64)
    w = mg.Tensor(np.random.default_rng(2).standard_normal((3, 1, 5)))

    def f():
        return (model.write(noise, 0.5, hard=False) * w).sum()

    for p in (model.head.weight, model.rnn.weight_ih_l0, model.embedding.weight):
        (g,) = mg.grad(f(), p)
        v, kept, ends = np.random.default_rng(3).standard_normal(p.shape), p.data.copy(), []
        for h in (1e-6, -1e-6):
            p.assign(kept + h * v)
            ends.append(f().item())
        p.assign(kept)
        np.testing.assert_allclose((g.data * v).sum(), (ends[0] - ends[1]) / 2e-6, rtol=1e-6)


def test_gradients_stay_of_one_size_over_many_characters():
    model, w = TextGenerator(20, 32, 64), mg.randn(4, 40, 20)
    (g,) = mg.grad((model.write(gumbel(40, 4, 20), 1.0, False) * w).mean(), model.head.weight)
    assert 0 < np.abs(g.data).max() < 1


@pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))
@pytest.mark.parametrize("hard", [True, False])
def test_writing_on_the_device_reads_nothing_back(monkeypatch, hard):
    noise, written = gumbel(4, 3, 5), []
    with cuda.using(cuda.Emulated()) as backend:
        for where in ("cpu", "cuda"):
            mg.seed(0)
            with on(where):
                model, g = TextGenerator(5, 6, 7), noise if where == "cpu" else to_device(noise)
                with monkeypatch.context() as patch:
                    patch.setattr(backend, "download", lambda *args: pytest.fail("a copy to the host"))
                    y = model.write(g, 0.7, hard)
                written.append(y.detach().numpy())
    np.testing.assert_allclose(written[1], written[0], atol=1e-6)


@pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))
def test_one_hots_of_labels_and_characters_on_the_device(monkeypatch):
    labels = np.array([2, 0, 1, 2])
    with cuda.using(cuda.Emulated()) as backend, on("cuda"):
        there = to_device(labels)
        with monkeypatch.context() as patch:
            patch.setattr(backend, "download", lambda *args: pytest.fail("a copy to the host"))
            found = [one_hot(there, 3), gan.one_hot(there, 3).data, gan.one_hot(labels, 3).data]
        for x in found:
            np.testing.assert_array_equal(x.get(), np.eye(3)[labels])
            assert x.dtype == np.float32
    np.testing.assert_array_equal(gan.one_hot(labels, 3).data, np.eye(3, dtype=np.float32)[labels], strict=True)


# --- the critic


def test_the_critic_scores_texts_one_by_one():
    critic, x = TextCritic(5, 6, 7), one_hot(np.random.default_rng(0).integers(0, 5, (4, 9)), 5)
    scores = critic(mg.Tensor(x)).data
    assert scores.shape == (4,)
    for i in range(4):
        np.testing.assert_allclose(critic(mg.Tensor(x[i : i + 1])).data, scores[i : i + 1], atol=1e-6)
    assert critic(mg.Tensor(x[:, ::-1].copy())).data[0] != scores[0]  # order matters


def test_the_penalty_through_the_critics_scan_by_differences():
    critic, rng = in_float64(TextCritic(4, 5, 6)), np.random.default_rng(0)
    x, y = (mg.Tensor(rng.random((3, 7, 4))) for _ in range(2))

    def penalty():
        mg.seed(1)
        return gradient_penalty("two-sided", critic, x, y)

    params = nn.parameters(critic)
    grads = mg.grad(penalty(), params, allow_unused=True)
    for p, g in zip(params, grads, strict=True):
        v, kept, ends = rng.standard_normal(p.shape), p.data.copy(), []
        for h in (1e-6, -1e-6):
            p.assign(kept + h * v)
            ends.append(penalty().item())
        p.assign(kept)
        wanted = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(0 if g is None else (g.data * v).sum(), wanted, rtol=1e-5, atol=1e-8)
