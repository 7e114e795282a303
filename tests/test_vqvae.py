"""The vqvae and vae recipes: whole epochs are counted, runs resume bit for bit, and both learn."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

import minigen as mg
from minigen import cli
from minigen.data import to_float
from minigen.errors import UserError
from minigen.metrics.reconstruction import psnr
from minigen.train import RECIPES, checkpoint
from minigen.train.config import DataInfo
from minigen.train.vqvae import Epoch

BOTH = pytest.mark.parametrize("name", ["vqvae", "vae"])


def trainer(name, count=40, channels=1, **options):
    images = np.random.default_rng(0).integers(0, 256, (count, channels, 8, 8), np.uint8)
    data = SimpleNamespace(images=images, labels=None, test_images=images[:10])
    config = RECIPES[name](**({"batch_size": 8, "dim": 8} | options))
    info = DataInfo("noise", images.shape[1:], (), count, 0)
    config.resolve(info)
    mg.seed(0)
    return config.build(info, data)


@pytest.mark.parametrize("quantizer", ["vq", "ema", "rotation"])
def test_a_few_images_are_learned(quantizer):
    t = trainer("vqvae", count=8, num_codes=64, quantizer=quantizer, lr=2e-3)
    first = t.step()["mse"]
    for _ in range(150):
        last = t.step()
    assert last["mse"] < first / 3
    x = to_float(t.loader.images)
    found = t.evaluate(x, None)
    assert found["psnr"] == pytest.approx(psnr(t.loader.images, t.decode(t.encode(t.loader.images))))
    assert found["codes_used"] == len(np.unique(t.encode(t.loader.images)))
    assert found["nominal_bits_per_pixel"] == 4 * 6 / 64


def test_figures_are_of_the_last_whole_epoch():
    epoch = Epoch(4)
    epoch.count(0, np.array([[0, 0], [1, 1]]), 10.0, 0)
    assert epoch.figures() == {  # so far
        "perplexity": pytest.approx(2), "codes_used": 2, "codes_dead": 2, "codes_revived": 0,
        "psnr": pytest.approx(10 * math.log10(255**2 / 10)),
    }  # fmt: skip
    epoch.count(0, np.array([2, 2]), 30.0, 1)
    epoch.count(1, np.array([3]), 5.0, 0)
    for _ in range(2):
        assert epoch.figures() == {
            "perplexity": pytest.approx(3), "codes_used": 3, "codes_dead": 1, "codes_revived": 1,
            "psnr": pytest.approx(10 * math.log10(255**2 / 20)),
        }  # fmt: skip
        epoch.count(1, np.array([3]), 5.0, 0)
    epoch.count(2, np.array([0]), 5.0, 0)
    assert epoch.figures()["codes_used"] == 1


def test_the_steps_figures_are_those_of_its_epochs():
    t = trainer("vqvae", num_codes=16)
    seen = []
    encode = t.model.quantizer.__class__.__call__

    def spy(self, z):
        found = encode(self, z)
        seen.append(found.indices)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(t.model.quantizer.__class__, "__call__", spy)
        losses = [t.step() for _ in range(7)]  # five batches are an epoch
    counts = np.bincount(np.concatenate(seen[:5]).reshape(-1), minlength=16)
    assert losses[6]["codes_used"] == (counts > 0).sum()
    assert losses[6]["codes_dead"] == (counts == 0).sum()


def test_samples_are_reconstructions_below_their_originals():
    t = trainer("vqvae")
    grid = t.sample(64)
    np.testing.assert_allclose(grid[:8], t.shown[:8], atol=1e-6)
    np.testing.assert_allclose(grid[10 - 2 + 8 : 18], t.shown[8:10], atol=1e-6)
    with pytest.raises(UserError, match="takes no label"):
        t.sample(8, label=1)


def test_the_vaes_bound_is_that_of_its_formula():
    t = trainer("vae", lr=1e-3)
    for _ in range(3):
        losses = t.step()
    assert losses["bound"] == pytest.approx(losses["likelihood"] + losses["kl"], rel=1e-5)
    x = to_float(t.loader.images[:10])
    mg.seed(3)
    found = t.evaluate(x, None)
    mg.seed(3)
    mean, log_var = (a.data.astype(np.float64) for a in t.model.encode(mg.tensor(x)))
    z = mean + np.exp(log_var / 2) * mg.randn(*mean.shape).data
    y = t.model.decode(mg.tensor(z.astype(np.float32))).data
    variance = float(t.model.variance)
    likelihood = 0.5 * ((x - y) ** 2 / variance + math.log(2 * math.pi * variance)).sum((1, 2, 3)).mean()
    kl = 0.5 * (mean**2 + np.exp(log_var) - log_var - 1).sum((1, 2, 3)).mean()
    assert found["likelihood"] == pytest.approx(likelihood, rel=1e-4)
    assert found["kl"] == pytest.approx(kl, rel=1e-4)
    assert found["bound"] == pytest.approx(likelihood + kl, rel=1e-4)
    assert t.sample(5).shape == (5, 1, 8, 8) and np.abs(t.sample(5)).max() <= 1


def test_the_vae_learns():
    t = trainer("vae", count=8, lr=2e-3)
    first = t.step()["likelihood"]
    for _ in range(100):
        last = t.step()["likelihood"]
    assert last < first - 20


@BOTH
def test_a_resumed_run_is_the_same_run(name, tmp_path):
    def run(folder, *steps):
        for i, n in enumerate(steps):
            more = ["--resume"] if i else []
            args = ["--dim", "4", "--batch-size", "256", "--steps", str(n), "--log-every", "1", "--out", str(folder)]
            assert cli.main(["train", name, *args, *more]) == 0
        saved = checkpoint.load(folder, name)
        return (folder / "metrics.jsonl").read_bytes(), {k: v.tobytes() for k, v in saved.arrays.items()}, saved.rng

    assert run(tmp_path / "a", 8) == run(tmp_path / "b", 3, 8)  # five batches are an epoch


@BOTH
def test_from_the_command_line(name, tmp_path, capsys):
    folder, picture = str(tmp_path / "run"), tmp_path / "g.png"
    assert cli.main(["train", name, "--dim", "4", "--steps", "2", "--out", folder]) == 0
    assert cli.main(["sample", folder, "--out", str(picture)]) == 0 and picture.exists()
    capsys.readouterr()
    assert cli.main(["eval", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["psnr"] > 3
    assert cli.main(["sample", folder, "--label", "1"]) == 2
    assert cli.main(["train", name, "--data", "8gaussians"]) == 2
    assert cli.main(["train", name, "--dim", "0"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [len(line) > 10 for line in lines] == [True] * 3 and "points" in lines[1]
