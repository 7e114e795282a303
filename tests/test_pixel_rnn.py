"""The pixel-rnn recipe: its data and protocols, training, judging, completing, resuming, and what it refuses."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import minigen as mg
from minigen import cli
from minigen.data import to_float
from minigen.errors import UserError
from minigen.train import DataInfo, PixelRNN, checkpoint, train
from minigen.train.pixel_rnn import HELD_OUT, TRAINING, quantize

EVERY = pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])


# --- the data


def test_levels():
    grey = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    assert quantize(grey, 2, "threshold").reshape(-1).tolist() == [0] * 128 + [1] * 128
    np.testing.assert_array_equal(quantize(grey, 256), grey)
    assert np.bincount(quantize(grey, 16).reshape(-1)).tolist() == [16] * 16


def test_the_draw_is_fixed_and_follows_the_grey_level():
    grey = np.repeat(np.array([0, 51, 204, 255], np.uint8)[:, None, None, None], 10_000, 2)
    x = quantize(grey, 2, "draw")
    np.testing.assert_array_equal(quantize(grey, 2, "draw"), x)
    np.testing.assert_array_equal(quantize(grey[:2], 2, "draw"), x[:2])
    assert x.dtype == np.uint8 and x[0].max() == 0 and x[3].min() == 1
    np.testing.assert_allclose(x.mean(axis=(1, 2, 3)), [0, 0.2, 0.8, 1], atol=0.02)
    assert (quantize(grey, 2, "draw", HELD_OUT) != quantize(grey, 2, "draw", TRAINING)).any()


# --- the trainer


def trainer(images=None, classes=("even", "odd"), **options):
    if images is None:
        images = np.random.default_rng(0).integers(0, 256, (40, 1, 4, 4), np.uint8)
    data = SimpleNamespace(images=images, labels=np.arange(len(images)) % 2)
    config = PixelRNN(**({"batch_size": 8, "hidden": 16} | options))
    config.resolve(DataInfo("noise", images.shape[1:], classes, len(images), 0))
    mg.seed(0)
    return config.build(DataInfo("noise", images.shape[1:], classes, len(images), 0), data)


@pytest.mark.parametrize("by", ["pixel", "row"])
@EVERY
def test_it_learns_the_distribution_and_not_more(cell, by):
    """Four striped images of equal frequency: the first row is one coin, the second another, the rest follows from them.

    So -log p falls to 2 log 2, which nothing can beat. A model by row thinks the four values of a row independent: for it each
    of the two rows is four coins. Labels that say which pair it is save one row.
    """
    kinds = np.zeros((4, 1, 4, 4), np.uint8)
    kinds[1, :, ::2], kinds[2, :, 1::2], kinds[3] = 255, 255, 255
    images = np.repeat(kinds, 8, 0)
    for labels, rows in ((False, 2), (True, 1)):
        t = trainer(images, cell=cell, by=by, labels=labels, batch_size=32, lr=2e-2, steps=150)
        t.loader.labels = np.arange(32) // 16
        assert t.step()["nll"] > 8
        for _ in range(149):
            t.step()
        nll = t.evaluate(to_float(images), t.loader.labels)["nll"]
        limit = rows * math.log(2) * (1 if by == "pixel" else 4)
        assert limit - 1e-3 < nll < limit + 0.15


def test_the_step_reports_nats_per_image_of_its_batch_and_clips():
    t = trainer(clip=1e-3, lr=0.5, lr_schedule="constant")
    x = quantize(t.loader.images, 2, "threshold")  # already 0 and 1: all below it
    assert x.max() == 0 and set(np.unique(t.loader.images)) == {0, 1}
    order = t.loader._order[:8]
    expected = -t.model.log_prob(t.loader.images[order]).mean()
    seen = []
    t.opt.step = seen.append
    losses = t.step()
    np.testing.assert_allclose(losses["nll"], expected, rtol=1e-5)
    norm = math.sqrt(sum(float((g.data**2).sum()) for g in seen[0]))
    assert losses["grad_norm"] > 1e-3 and norm == pytest.approx(1e-3, rel=1e-4)


@pytest.mark.parametrize(("schedule", "rates"), [("constant", [1, 1]), ("linear", [1, 0.5]), ("cosine", [1, 0.5])])
def test_schedules(schedule, rates):
    t = trainer(lr=0.4, lr_schedule=schedule, steps=2)
    found = []
    for _ in range(2):
        found.append(t.opt.rate / 0.4)
        t.step()
    np.testing.assert_allclose(found, rates)


def test_evaluation_is_over_every_image_and_uses_the_average(monkeypatch):
    monkeypatch.setattr("minigen.train.pixel_rnn.AT_ONCE", 40)  # two images at a time, and one
    t = trainer(average=0.5, lr=0.1, binarize="threshold")
    t.step(), t.step()
    x = np.random.default_rng(1).integers(0, 256, (5, 1, 4, 4), np.uint8)
    weights = [p.data.copy() for p in t.params]
    found = t.evaluate(to_float(x), None)
    for p, w in zip(t.params, weights, strict=True):
        np.testing.assert_array_equal(p.data, w)
        p.assign(0.0)
    t.average.swap()
    expected = -t.model.log_prob(quantize(x, 2, "threshold")).mean()
    np.testing.assert_allclose(found["nll"], expected, rtol=1e-6)
    np.testing.assert_allclose(found["bits_per_dim"], expected / 16 / math.log(2), rtol=1e-6)
    assert found["protocol"] == "binarised at 0.5; exact, by pixel, each image once"


def test_looking_changes_nothing():
    (one, two) = trainer(labels=True, average=0.5), trainer(labels=True, average=0.5)
    expected = [one.step(), one.step()]
    found = [two.step()]
    x = two.sample(5)
    np.testing.assert_array_equal(two.sample(5), x)
    assert x.shape == (5, 1, 4, 4) and set(np.unique(x)) <= {-1, 1} and (two.sample(5, seed=1) != x).any()
    assert two.sample(3, label=1).shape == (3, 1, 4, 4)
    two.evaluate(x, np.zeros(5, np.int64)), two.complete(x, np.zeros(5, np.int64), 2)
    assert [*found, two.step()] == expected
    with pytest.raises(UserError, match=r"label 2 is not in 0\.\.1"):
        two.sample(2, label=2)
    with pytest.raises(UserError, match="trained without --labels"):
        trainer().sample(2, label=0)


@pytest.mark.parametrize("levels", [2, 256])
def test_completions_keep_the_upper_half(levels):
    t = trainer(levels=levels, binarize="threshold" if levels == 2 else None)
    x = to_float(np.random.default_rng(1).integers(0, 256, (3, 1, 4, 4), np.uint8))
    found = t.complete(x, None, 5)
    assert found.shape == (3, 7, 1, 4, 4)
    kept = np.where(x >= 0, 1, -1) if levels == 2 else x
    np.testing.assert_allclose(found[:, 0], kept, atol=1e-6)
    np.testing.assert_allclose(found[:, :, :, :2], np.repeat(kept[:, None, :, :2], 7, 1), atol=1e-6)
    assert not found[:, 1, :, 2:].any()
    assert len({end.tobytes() for end in found[:, 2:, :, 2:].reshape(15, -1)}) > 5
    assert (t.complete(x, None, 5, seed=1) != found).any()


@pytest.mark.parametrize("options", [{"average": 0.9, "labels": True}, {"by": "row", "cell": "gru", "lr_schedule": "constant"}])
def test_a_run_resumes_bit_for_bit(tmp_path, options):
    """Killed in its fifth step, after a checkpoint at the third."""

    def outcome(folder):
        saved = checkpoint.load(folder, "pixel-rnn")
        return (folder / "metrics.jsonl").read_bytes(), {k: v.tobytes() for k, v in saved.arrays.items()}, saved.rng

    config = PixelRNN(hidden=8, steps=6, batch_size=100, log_every=1, checkpoint_every=3, sample_every=2, **options)
    train(replace(config, out=str(tmp_path / "whole")))
    folder = tmp_path / "parts"
    with pytest.MonkeyPatch.context() as m:
        from minigen.train.pixel_rnn import PixelRNNTrainer

        step, count = PixelRNNTrainer.step, itertools.count(1)

        def dying(self):
            if next(count) == 5:
                raise RuntimeError("killed")
            return step(self)

        m.setattr(PixelRNNTrainer, "step", dying)
        with pytest.raises(RuntimeError, match="killed"):
            train(replace(config, out=str(folder)))
    assert checkpoint.load(folder, "pixel-rnn").step == 3
    train(replace(config, out=str(folder), resume=True))
    assert outcome(folder) == outcome(tmp_path / "whole")
    assert sorted(p.name for p in (folder / "samples").iterdir()) == ["000002.png", "000004.png", "000006.png"]


# --- options and the command line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 0}, "--hidden must be at least 1, not 0"),
        ({"context": -1}, "--context must be at least 0, not -1"),
        ({"levels": 1}, r"--levels must be in 2\.\.256, not 1"),
        ({"levels": 16, "binarize": "draw"}, "--binarize makes 2 levels, not 16"),
        ({"clip": 0.0}, "--clip must be above 0"),
        ({"average": 1.0}, r"--average must be in \[0, 1\)"),
        ({"labels": True}, "--labels: the data noise have no labels"),
        ({"steps": 0}, "--steps must be at least 1, not 0"),
    ],
)
def test_what_the_recipe_refuses(options, message):
    with pytest.raises(UserError, match=message):
        PixelRNN(**options).resolve(DataInfo("noise", (1, 8, 8), (), 40, 0))


def test_defaults():
    grey, colour, rows = PixelRNN(), PixelRNN(), PixelRNN(by="row")
    grey.resolve(DataInfo("mnist", (1, 28, 28), (), 40, 0))
    colour.resolve(DataInfo("cifar10", (3, 32, 32), (), 40, 0))
    rows.resolve(DataInfo("mnist", (1, 28, 28), (), 40, 0))
    assert (grey.cell, grey.hidden, grey.levels, grey.context, grey.clip, grey.batch_size) == ("lstm", 128, 2, 4, 1, 64)
    assert (colour.levels, colour.batch_size, rows.context, rows.batch_size) == (256, 16, 2, 64)
    with pytest.raises(UserError, match="pixel-rnn learns images; the data ring are points"):
        PixelRNN().resolve(DataInfo("ring", (2,), (), 40, 0))
    assert "steps" not in grey.free() and "steps" in PixelRNN(lr_schedule="constant").free()


def test_from_the_command_line(tmp_path, capsys):
    folder, picture = str(tmp_path / "run"), tmp_path / "g.png"
    quick = ["--cell", "gru", "--by", "row", "--hidden", "16", "--steps", "3", "--labels"]
    assert cli.main(["train", "pixel-rnn", *quick, "--out", folder]) == 0
    capsys.readouterr()
    assert cli.main(["eval", folder, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["split"], found["samples"]) == ("held-out", 297)
    assert found["protocol"] == (
        "binarised by one draw for each pixel, fixed seed, conditional on the label; exact, by row, each image once"
    )
    assert found["bits_per_dim"] == pytest.approx(found["nll"] / 64 / math.log(2)) and 0.1 < found["bits_per_dim"] < 1.1
    assert cli.main(["sample", folder, "--count", "4", "--label", "3", "--out", str(picture)]) == 0
    assert Image.open(picture).size == (102, 102)
    assert cli.main(["sample", folder, "--complete", "--count", "24", "--out", str(picture)]) == 0
    assert Image.open(picture).size == (8 * 50 + 2, 3 * 50 + 2)
    assert "completions of 3 held-out images of digits" in capsys.readouterr().out
    for args in (["--complete", "--label", "1"], ["--label", "10"]):
        assert cli.main(["sample", folder, *args, "--out", str(picture)]) == 2
    assert cli.main(["train", "gan", "--net", "mlp", "--steps", "1", "--out", str(tmp_path / "gan")]) == 0
    capsys.readouterr()
    assert cli.main(["sample", str(tmp_path / "gan"), "--complete"]) == 2
    assert "--complete is for runs of pixel-rnn" in capsys.readouterr().err
