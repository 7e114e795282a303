"""The prior over codes: a distribution that sums to one, learns what there is and not more, and keeps its VQ-VAE."""

from __future__ import annotations

import itertools
import json
import math
import shutil

import numpy as np
import pytest

import minigen as mg
from minigen import cli
from minigen.data import Loader
from minigen.models.code_prior import CodePrior
from minigen.train import checkpoint
from minigen.train.codes import entropy
from minigen.train.config import DataInfo
from minigen.train.vq_prior import VQPrior

CELLS = pytest.mark.parametrize("cell", ["gru", "lstm"])


def enlarged(cell="gru", grid=(2, 2), num_codes=3, classes=2, context=2):
    mg.seed(0)
    model = CodePrior(grid, num_codes, cell, 8, 4, context, classes)
    model.out.weight.assign(model.out.weight.data * 10)
    return model


@CELLS
@pytest.mark.parametrize("context", [0, 1, 2])
def test_probabilities_sum_to_one(cell, context):
    model = enlarged(cell, context=context)
    every = np.array(list(itertools.product(range(3), repeat=4))).reshape(-1, 1, 2, 2)
    p = [np.exp(model.log_prob(every, np.full(81, label))) for label in (0, 1, -1)]
    np.testing.assert_allclose([q.sum() for q in p], 1, rtol=1e-5)
    assert all(np.abs(a - b).max() > 1e-3 for a, b in itertools.combinations(p, 2))
    np.testing.assert_allclose(np.exp(model.log_prob(every)), p[2], rtol=1e-6)  # no labels: none is told


@CELLS
def test_a_code_depends_on_those_before_it_alone(cell):
    model = enlarged(cell, (3, 3), 5)
    codes = np.random.default_rng(0).integers(0, 5, (4, 1, 3, 3))
    before = model.logits(codes).data
    for t in range(9):
        changed = codes.reshape(4, 9).copy()
        changed[:, t:] = (changed[:, t:] + 1) % 5
        np.testing.assert_array_equal(model.logits(changed.reshape(4, 1, 3, 3)).data[: t + 1], before[: t + 1])


@CELLS
def test_what_is_drawn_has_the_probability_it_was_drawn_with(cell):
    model = enlarged(cell)
    codes, log_p = model.generate(np.random.default_rng(0), 200, np.arange(200) % 2)
    np.testing.assert_allclose(log_p, model.log_prob(codes, np.arange(200) % 2), rtol=1e-4, atol=1e-5)
    every = np.array(list(itertools.product(range(3), repeat=4))).reshape(-1, 1, 2, 2)
    p = np.exp(model.log_prob(every, np.zeros(81, int)))
    many, _ = model.generate(np.random.default_rng(1), 20_000, np.zeros(20_000, int))
    counts = np.bincount(many.reshape(-1, 4) @ [27, 9, 3, 1], minlength=81)
    np.testing.assert_allclose(counts / 20_000, p, atol=0.012)


@pytest.mark.parametrize("num_codes", [1, 2])
def test_the_smallest_codebooks(num_codes):
    model = enlarged(num_codes=num_codes)
    every = np.array(list(itertools.product(range(num_codes), repeat=4))).reshape(-1, 1, 2, 2)
    np.testing.assert_allclose(np.exp(model.log_prob(every)).sum(), 1, rtol=1e-5)
    codes, log_p = model.generate(np.random.default_rng(0), 200)
    assert set(np.unique(codes)) == set(range(num_codes))
    np.testing.assert_allclose(log_p, model.log_prob(codes), rtol=1e-4, atol=1e-6)


def trainer(codes, labels, **options):
    config = VQPrior(num_codes=4, dim=4, quantizer="ema", hidden=16, embedding=4, batch_size=16, lr=2e-2, **options)
    mg.seed(0)
    made = config.build(DataInfo("codes", (1, 8, 8), ("a", "b"), len(codes), 0), None)
    made.loader = Loader(codes, labels, 16)
    return made


@CELLS
def test_it_learns_the_distribution_and_not_more(cell):
    """Two labels, each with two grids that a coin decides: one bit given the label, two without. Four codes each."""
    kinds = np.array([[[0, 1], [2, 3]], [[1, 1], [2, 3]], [[3, 0], [0, 0]], [[2, 0], [0, 0]]])
    codes, labels = np.tile(kinds, (8, 1, 1)), np.tile([0, 0, 1, 1], 8)
    t = trainer(codes, labels, cell=cell, steps=200)
    assert t.step()["nll"] > 1
    for _ in range(199):
        t.step()
    assert 0.25 - 1e-3 < t.bits(codes, labels) < 0.30
    assert 0.5 - 1e-3 < t.bits(codes) < 0.60
    drawn = t.model.generate(np.random.default_rng(0), 100, np.ones(100, int))[0][:, 0]
    assert np.mean([any((d == k).all() for k in kinds[2:]) for d in drawn]) > 0.9


def test_zeroth_order_entropy():
    assert entropy(np.array([[0, 0], [1, 3]])) == pytest.approx(1.5)


# --- from the command line --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vqvae(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vq") / "run"
    assert cli.main(["train", "vqvae", "--steps", "3", "--num-codes", "16", "--dim", "4", "--out", str(folder)]) == 0
    return folder


SMALL = ["--hidden", "8", "--batch-size", "256", "--log-every", "1", "--checkpoint-every", "3"]


def test_a_resumed_run_is_the_same_run(vqvae, tmp_path):
    def run(folder, *stops):
        for i, stop in enumerate(stops):
            more = ["--resume"] if i else []
            args = ["train", "vq-prior", "--vqvae", str(vqvae), *SMALL, "--steps", "8", "--out", str(folder), *more]
            with pytest.MonkeyPatch.context() as patch:
                if stop < 8:
                    patch.setattr("minigen.train.loop._check", stop_at(stop))
                assert cli.main(args) == (130 if stop < 8 else 0)
        saved = checkpoint.load(folder, "vq-prior")
        return (folder / "metrics.jsonl").read_bytes(), {k: v.tobytes() for k, v in saved.arrays.items()}, saved.rng

    assert run(tmp_path / "a", 8) == run(tmp_path / "b", 6, 8)


def stop_at(wanted):
    def check(losses, step, folder):
        if step == wanted + 1:
            raise KeyboardInterrupt

    return check


def test_the_run_is_self_contained(vqvae, tmp_path, capsys):
    theirs, own = tmp_path / "theirs", str(tmp_path / "own")
    shutil.copytree(vqvae, theirs)
    assert cli.main(["train", "vq-prior", "--vqvae", str(theirs), *SMALL, "--steps", "2", "--out", own]) == 0
    shutil.rmtree(theirs)
    capsys.readouterr()
    assert cli.main(["eval", own, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["saving"] == pytest.approx(1 - found["bits_per_code"] / found["zeroth_order_entropy"])
    assert found["bits_per_code"] == pytest.approx(4, abs=0.5) and found["samples"] == 297
    assert math.isfinite(found["bits_per_code_given_label"])
    picture = tmp_path / "g.png"
    assert cli.main(["sample", own, "--label", "7", "--out", str(picture)]) == 0 and picture.exists()


def test_what_it_refuses(vqvae, tmp_path, capsys):
    out = ["--out", str(tmp_path / "never")]
    for args in (
        [], ["--vqvae", str(tmp_path)], ["--vqvae", str(vqvae), "--hidden", "0"], ["--vqvae", str(vqvae), "--size", "16"],
        ["--vqvae", str(vqvae), "--data", "8gaussians"],
    ):  # fmt: skip
        assert cli.main(["train", "vq-prior", *args, *out]) == 2
    lines = capsys.readouterr().err.splitlines()
    wanted = ["--vqvae RUN", "not a run folder", "--hidden must be", "of shape (1, 8, 8)", "of shape (1, 8, 8)"]
    assert len(lines) == 5 and all(w in line for w, line in zip(wanted, lines, strict=True)), lines


@CELLS
def test_guidance_draws_from_the_distribution_it_names(cell):
    """p(k_t | .., label)^2 / p(k_t | ..), rescaled at each step, over all grids of two codes."""
    model = enlarged(cell, grid=(1, 2))
    every = np.array(list(itertools.product(range(3), repeat=2))).reshape(-1, 1, 1, 2)
    told, untold = (log_softmax(model.logits(every, np.full(9, label)).data[:, :, 0]) for label in (1, -1))
    guided = log_softmax(2 * told - untold)
    p = np.exp(sum(guided[t, np.arange(9), every[:, 0, 0, t]] for t in range(2)))
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-5)
    codes, log_p = model.generate(np.random.default_rng(1), 20_000, np.ones(20_000, int), guidance=1.0)
    at = codes.reshape(-1, 2) @ [3, 1]
    np.testing.assert_allclose(np.exp(log_p), p[at], rtol=1e-3)
    np.testing.assert_allclose(np.bincount(at, minlength=9) / 20_000, p, atol=0.012)


def log_softmax(logits):
    return logits - np.log(np.exp(logits.astype(np.float64)).sum(-1, keepdims=True))
