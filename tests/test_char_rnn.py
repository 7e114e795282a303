"""char-rnn: the likelihood and the carried state by hand, how a character is drawn, and resuming."""

from __future__ import annotations

import itertools
import math
import random as stdlib_random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import minigen as mg
from minigen import nn, random
from minigen.data import Text
from minigen.errors import UserError
from minigen.train import CharRNN, checkpoint, run, train
from minigen.train.text import draw

CELLS = pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
SMALL = {"hidden": 12, "embedding": 6, "batch_size": 4, "seq_length": 8}
FLAGS = ["--hidden", "12", "--embedding", "6", "--batch-size", "4", "--seq-length", "8", "--log-every", "1"]


def words(count: int, seed: int = 0) -> str:
    rng = np.random.default_rng(seed)
    return " ".join(rng.choice(["the", "cat", "sat", "on", "a", "mat", "and\n", "then", "it", "slept."], count))


def trainer(content: str | None = None, **options):
    data = Text("words", words(300) if content is None else content)
    config = CharRNN(**(SMALL | {"steps": 50} | options))
    info = run.data_info(data)
    config.resolve(info)
    mg.seed(0)
    return config.build(info, data), data


def log_p(model, x):
    """log p of each next character of x (n,), one step at a time."""
    state, found = None, []
    for a, b in itertools.pairwise(x):
        logits, state = model.step(np.array([a]), state)
        row = logits.data[0].astype(np.float64)
        found.append(row[b] - np.log(np.exp(row).sum()))
    return np.array(found)


# --- the likelihood and the step


@CELLS
def test_an_untrained_run_of_steps_is_one_pass_by_hand(cell):
    """Without learning and dropout, the losses of consecutive batches are the likelihood of one long text."""
    t, data = trainer(cell=cell, dropout=0.0, lr=0.0, batch_size=1, seq_length=7)
    losses = [t.step()["nll"] for _ in range(6)]
    by_hand = -log_p(t.model, data.train[: 6 * 7 + 1])
    np.testing.assert_allclose(losses, by_hand.reshape(6, 7).mean(1), rtol=1e-5)
    for chunk in (1, 5, 42, 1000):
        np.testing.assert_allclose(t.likelihood(data.train[: 6 * 7 + 1], chunk), by_hand.mean(), rtol=1e-5)


def test_evaluate_is_the_whole_held_out_part_in_nats_and_bits():
    t, data = trainer()
    for _ in range(3):
        t.step()
    nn.set_training(t.model, False)
    nll = -log_p(t.model, data.test).mean()
    nn.set_training(t.model, True)
    found = t.judge(data)
    assert (found["characters"], found["split"]) == (len(data.test), "held-out, the last 10 %")
    np.testing.assert_allclose([found["nll"], found["bits"]], [nll, nll / math.log(2)], rtol=1e-5)
    assert abs(found["nll"] - math.log(len(data.vocabulary))) < 0.5


@CELLS
def test_the_gradient_stops_at_the_seam(monkeypatch, cell):
    """The second step's gradient is that of its own batch, from the state as numbers."""
    t, _ = trainer(cell=cell, dropout=0.0, clip=1e9)
    t.step()
    carried = [mg.Tensor(a.copy()) for a in t.carried]
    x, y = t.streams.at(1)
    logits, _ = t.model(x, tuple(carried) if cell == "lstm" else carried[0])
    wanted = mg.grad(mg.ops.cross_entropy(logits.reshape(-1, logits.shape[2]), y.reshape(-1)), t.params)
    seen = []
    monkeypatch.setattr(t.opt, "step", seen.extend)
    t.step()
    for g, w in zip(seen, wanted, strict=True):
        np.testing.assert_array_equal(g.data, w.data)


def test_the_gradient_is_clipped_and_the_rate_falls(monkeypatch):
    t, _ = trainer(clip=0.01, lr=0.5, lr_schedule="linear", steps=4)
    norms, rates, step = [], [], t.opt.step

    def seen(grads):
        norms.append(math.sqrt(sum((g.data.astype(np.float64) ** 2).sum() for g in grads)))
        rates.append(t.opt.rate)
        step(grads)

    monkeypatch.setattr(t.opt, "step", seen)
    for _ in range(4):
        t.step()
    np.testing.assert_allclose(norms, 0.01, rtol=1e-4)
    np.testing.assert_allclose(rates, [0.5, 0.375, 0.25, 0.125])


@CELLS
def test_it_learns_what_can_be_learned(cell):
    t, data = trainer("abcabd" * 200, cell=cell, hidden=24, lr=2e-2, steps=80, dropout=0.1)
    losses = [t.step()["nll"] for _ in range(80)]
    assert losses[0] > 1.2 and t.evaluate(data)["nll"] < 0.02  # after "ab" it must remember which one comes next
    assert t.sample(1, length=12, prompt="abcab", temperature=0) == ["abcab" + "dabcabdabcab"]


# --- drawing


def test_drawing_follows_the_probabilities():
    rng, logits = np.random.default_rng(0), np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    many = np.repeat(logits[None], 40_000, 0)
    for temperature, top_p, wanted in (
        (1.0, 1.0, [0.5, 0.3, 0.15, 0.05]),
        (0.5, 1.0, np.array([0.25, 0.09, 0.0225, 0.0025]) / 0.365),
        (1.0, 0.9, np.array([0.5, 0.3, 0.15, 0]) / 0.95),  # 0.5 + 0.3 falls short of 0.9
        (1.0, 0.75, np.array([0.5, 0.3, 0, 0]) / 0.8),
        (1.0, 0.4, [1, 0, 0, 0]),
        (1.0, 1e-9, [1, 0, 0, 0]),
        (0, 1.0, [1, 0, 0, 0]),
    ):
        share = np.bincount(draw(many, temperature, top_p, rng), minlength=4) / len(many)
        np.testing.assert_allclose(share, wanted, atol=0.01)
        assert (share[np.array(wanted) == 0] == 0).all()


def test_each_row_has_its_own_nucleus():
    logits = np.log(np.array([[0.1, 0.8, 0.1], [0.45, 0.1, 0.45]], np.float32))
    drawn = np.stack([draw(logits, 1.0, 0.6, np.random.default_rng(i)) for i in range(50)])
    assert set(drawn[:, 0]) == {1} and set(drawn[:, 1]) == {0, 2}


def test_logits_of_a_thousand_are_drawn_from():
    logits = np.array([[1000.0, -1000.0, 999.0]], np.float32)
    assert {int(draw(logits, 1.0, 1.0, np.random.default_rng(i))[0]) for i in range(50)} == {0, 2}


def test_samples_are_a_function_of_the_seed_and_looking_changes_nothing():
    (one, data), (two, _) = trainer(), trainer()
    mg.seed(5)
    losses = [one.step()["nll"] for _ in range(3)]
    mg.seed(5)
    found = [two.step()["nll"]]
    state = random.get_state()
    a, b = two.sample(2, seed=1, length=30, prompt="the "), two.sample(2, seed=2, length=30, prompt="the ")
    assert random.get_state() == state
    assert a == two.sample(2, seed=1, length=30, prompt="the ") and len({*a, *b}) == 4
    for text in a + b:
        assert text.startswith("the ") and len(text) == 34 and set(text) <= set(data.content)
    two.evaluate(data)
    assert found + [two.step()["nll"], two.step()["nll"]] == losses


def test_options_that_cannot_be():
    t, _ = trainer()
    for options, message in (
        ({"length": 0}, "--length must be at least 1, not 0"),
        ({"temperature": -1}, "--temperature must not be negative"),
        ({"temperature": float("nan")}, "--temperature must not be negative"),
        ({"top_p": 0}, "--top-p must be above 0 and at most 1"),
        ({"top_p": 1.1}, "--top-p must be above 0 and at most 1"),
        ({"prompt": "the Zebra"}, "--prompt: not in the vocabulary: 'Z' 'b' 'r'$"),
    ):
        with pytest.raises(UserError, match=message):
            t.sample(1, **options)
    for options, message in (
        ({"hidden": 0}, "--hidden must be at least 1"),
        ({"seq_length": 0}, "--seq-length must be at least 1"),
        ({"dropout": 1.0}, r"--dropout must be in \[0, 1\)"),
        ({"clip": 0.0}, "--clip must be above 0"),
        ({"batch_size": 1000}, "fewer than one batch of 1000 x 8"),
    ):
        with pytest.raises(UserError, match=message):
            trainer(**options)


def test_the_steps_grow_with_the_text():
    def steps(count, **options):
        config = CharRNN(**options)
        config.resolve(mg.train.DataInfo("t", (), (), count, 0, "ab"))
        assert config.batch_size == options.get("batch_size", 64)
        return config.steps

    assert steps(1_115_394) == 1600  # ten passes in batches of 6,400
    assert (steps(20_000), steps(10**9), steps(10**9, steps=7)) == (300, 10_000, 7)
    assert steps(1_115_394, batch_size=32) == 3100


# --- resuming


def outcome(folder: Path):
    saved = checkpoint.load(folder, "char-rnn")
    return (folder / "metrics.jsonl").read_bytes(), {k: v.tobytes() for k, v in saved.arrays.items()}, saved.rng


@pytest.fixture(scope="module")
def novel(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "novel.txt"
    path.write_text(words(300))
    return path


@pytest.mark.parametrize("options", [{}, {"cell": "lstm", "layers": 2}])
def test_a_resumed_run_ends_with_the_same_bytes(novel, tmp_path, options):
    options = SMALL | {"lr_schedule": "constant", "text": str(novel), "checkpoint_every": 3, "log_every": 1} | options
    train(CharRNN(**options, steps=8, out=str(tmp_path / "a")))
    train(CharRNN(**options, steps=4, out=str(tmp_path / "b")))
    train(CharRNN(**options, steps=8, out=str(tmp_path / "b"), resume=True))
    whole = outcome(tmp_path / "a")
    assert whole == outcome(tmp_path / "b")
    carried = [np.frombuffer(v, np.float32) for k, v in whole[1].items() if k.startswith("carried.")]
    assert len(carried) == (2 if "cell" in options else 1) and all(a.any() for a in carried)
    assert (tmp_path / "b" / "samples" / "000008.txt").read_text() == (tmp_path / "a" / "samples" / "000008.txt").read_text()


def test_kill_9_at_random_moments(novel, tmp_path):
    flags = [*FLAGS, "--text", str(novel), "--steps", "400", "--checkpoint-every", "7", "--dropout", "0.3"]

    def start(folder, *extra):
        command = [sys.executable, "-m", "minigen", "train", "char-rnn", *flags, "--out", str(folder), *extra]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def finish(folder, *extra):
        process = start(folder, *extra)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err.decode()

    finish(tmp_path / "whole")
    rng, killed = stdlib_random.Random(1), 0
    for i in range(2):
        folder = tmp_path / f"run{i}"
        process = start(folder)
        until = rng.randrange(20, 300)  # lines of metrics
        metrics = folder / "metrics.jsonl"
        while process.poll() is None and (not metrics.exists() or metrics.read_bytes().count(b"\n") < until):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        finish(folder, "--resume")
        assert outcome(folder) == outcome(tmp_path / "whole")
    assert killed
