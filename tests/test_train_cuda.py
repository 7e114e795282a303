"""Training on the emulated device: the steps of every recipe are those of the CPU, and its runs are whole runs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from minigen.kernels import cuda, emulator

import minigen as mg
from minigen import device, random
from minigen.data.dataset import Dataset
from minigen.data.loader import Loader
from minigen.data.text import Text
from minigen.models import gan, vqvae
from minigen.ops.philox import philox_normal, philox_uniform
from minigen.optim import SGD, Adagrad, Adam, RMSprop
from minigen.train import RECIPES, checkpoint, run
from minigen.train.graph import StepGraph

pytestmark = pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))


def images(count=24, channels=1, size=8):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (count, channels, size, size), np.uint8)
    return Dataset("noise", x, np.arange(count) % 3, ("a", "b", "c"), x[:8], np.arange(8) % 3, "noise")


def points():
    x = np.random.default_rng(0).standard_normal((64, 2)).astype(np.float32)
    return Dataset("points", x, None, (), x[:8], None, "noise")


def text():
    return Text("letters", "".join("abcde "[i] for i in np.random.default_rng(0).integers(0, 6, 600)))


SMALL = {"batch_size": 4, "steps": 10}
EPS = 1e-4  # Adam's: at 1e-8 its first updates are the gradient's sign, and where a gradient is all rounding, so is the update
CODES = {"num_codes": 8, "dim": 4, "quantizer": "ema", "hidden": 5, "embedding": 3}
CASES = {
    "gan, mlp, labels": ("gan", images, {"net": "mlp", "labels": True}),
    "gan, dcgan": ("gan", images, {"net": "dcgan"}),
    "gan, dcgan, spectral norm": ("gan", images, {"net": "dcgan", "spectral_norm": True, "average": 0.9}),
    "gan, gru": ("gan", images, {"net": "gru", "labels": True}),
    "wgan-gp, points": ("wgan-gp", points, {"n_critic": 1}),
    "wgan-gp, dcgan": ("wgan-gp", images, {"n_critic": 1, "critic_norm": "layer"}),
    "wgan-gp, gru critic": ("wgan-gp", images, {"n_critic": 1, "net": "mlp", "critic": "gru"}),
    "pixel-rnn": ("pixel-rnn", images, {"cell": "lstm", "hidden": 5, "context": 1, "labels": True}),
    "vqvae": ("vqvae", images, {"num_codes": 8, "dim": 4}),
    "vqvae, rotation": ("vqvae", images, {"num_codes": 8, "dim": 4, "quantizer": "rotation"}),
    "vqvae, vq": ("vqvae", images, {"num_codes": 8, "dim": 4, "quantizer": "vq"}),
    "vae": ("vae", images, {"dim": 4}),
    "vq-prior": ("vq-prior", images, CODES | {"cell": "lstm"}),
    "seq2seq": ("seq2seq", images, CODES | {"read": 6, "attention": True}),
    "char-rnn": ("char-rnn", text, {"hidden": 6, "embedding": 4, "seq_length": 7, "layers": 2, "dropout": 0.3}),
    "text-gan": ("text-gan", text, {"hidden": 6, "embedding": 4, "seq_length": 5, "pretrain_steps": 1, "n_critic": 1}),
}


def build(recipe, data, options):
    config, info = RECIPES[recipe](**(SMALL | options)), run.data_info(data)
    mg.seed(0)
    if recipe not in ("vq-prior", "seq2seq"):
        config.resolve(info)
        return config.build(info, data), info
    trainer = config.build(info, None)  # over the codes of a VQ-VAE that was not trained
    trainer.vqvae.model.quantizer._set(slice(None), np.random.default_rng(0).standard_normal((8, 4)))
    trainer.loader = Loader(trainer.vqvae.encode(data.images), data.labels, config.batch_size, 0)
    return trainer, info


def steps_of(where, recipe, data, options, count=2):
    """Losses of the first steps, the weights after them, and samples, all on `where`."""
    options = options | {"device": where}
    with device.on(where):
        trainer, info = build(recipe, data, options)
        for optimiser in (o for o in vars(trainer).values() if isinstance(o, Adam)):
            optimiser.eps = EPS
        losses = [trainer.step() for _ in range(count)]
        samples = trainer.sample(1, seed=0, length=4) if info.is_text else trainer.sample(4, seed=0)
    return losses, trainer.state(), samples, trainer


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Convolutions of few channels: the emulator takes its time."""
    monkeypatch.setattr(gan, "WIDTH", 4)
    monkeypatch.setattr(vqvae, "WIDTH", 8)
    monkeypatch.setattr(vqvae, "INNER", 4)


@pytest.fixture
def same_noise(monkeypatch):
    """What the device draws, drawn on the CPU: by the reference, from the state in which a seed of 0 leaves the device."""
    state, draws = np.zeros(2, np.int64), {"normal": philox_normal, "uniform": philox_uniform}
    monkeypatch.setattr(random, "_on_the_host", lambda kind, *given: draws[kind](state, *given))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("same_noise")
def test_the_steps_of_every_recipe_are_those_of_the_cpu(case):
    recipe, data, options = CASES[case]
    losses, state, samples, _ = steps_of("cpu", recipe, data(), options)
    with cuda.using(cuda.Emulated()):
        on_device = steps_of("cuda", recipe, data(), options)
    for found, wanted in zip(on_device[0], losses, strict=True):
        assert found.keys() == wanted.keys()
        np.testing.assert_allclose(list(found.values()), list(wanted.values()), rtol=1e-4, atol=1e-5)
    assert on_device[1].keys() == state.keys()
    for name, wanted in state.items():
        assert isinstance(on_device[1][name], np.ndarray)
        scale = max(1.0, np.abs(wanted).max())
        np.testing.assert_allclose(on_device[1][name], wanted, rtol=1e-4, atol=2e-5 * scale, err_msg=name)
    if recipe not in ("char-rnn", "text-gan"):
        assert isinstance(on_device[2], np.ndarray) and on_device[2].shape == samples.shape


REVIVING = {"num_codes": 8, "dim": 4, "revive_after": 1, "init": "uniform"}
GRAPHS = CASES | {
    "vqvae, reviving": ("vqvae", images, REVIVING | {"quantizer": "ema"}),
    "vqvae, vq, reviving": ("vqvae", images, REVIVING | {"quantizer": "vq"}),
    "gan, falling rate": ("gan", images, {"net": "mlp", "lr_schedule": "linear"}),
    "text-gan, its phases": ("text-gan", text, CASES["text-gan"][2] | {"pretrain_steps": 5, "steps": 12}),
}


@pytest.mark.parametrize("case", GRAPHS)
def test_a_captured_step_gives_the_same_to_the_last_bit(case):
    recipe, data, options = GRAPHS[case]
    count = 9 if "phases" in case else 5  # as always, noted, captured, replayed, replayed
    with cuda.using(cuda.Emulated()):
        losses, state, samples, _ = steps_of("cuda", recipe, data(), options, count)
    with cuda.using(cuda.Emulated()):
        captured = steps_of("cuda", recipe, data(), options | {"graph": True}, count)
    assert [list(found) for found in captured[0]] == [list(wanted) for wanted in losses]
    for found, wanted in zip(captured[0], losses, strict=True):
        np.testing.assert_array_equal(list(found.values()), list(wanted.values()))
    for name, wanted in state.items():
        np.testing.assert_array_equal(captured[1][name], wanted, err_msg=name)
    np.testing.assert_array_equal(captured[2], samples)
    if "reviving" in case:
        assert losses[-1]["codes_revived"] > 0


@pytest.mark.parametrize("kind", [SGD, RMSprop, Adagrad, Adam])
def test_any_optimiser_counts_its_steps_when_they_are_captured(kind):
    def trained(graph):
        with cuda.using(cuda.Emulated()), device.on("cuda"):
            p = mg.tensor([1.0, -2.0], requires_grad=True, device="cuda")
            optimiser = kind([p], 0.1, momentum=0.9) if kind is SGD else kind([p], 0.1)

            def update():
                loss = (p * p).sum()
                optimiser.step(mg.grad(loss, [p]))
                return {"loss": loss}

            step = StepGraph(update) if graph else lambda phase: update()
            losses = [step(None)["loss"].item() for _ in range(6)]
            return losses, p.data.get().tolist(), optimiser.t

    assert trained(True) == trained(False) and trained(True)[2] == 6


def test_a_step_that_cannot_be_captured_ends_in_one_line():
    with cuda.using(cuda.Emulated()), device.on("cuda"):
        trainer, _ = build("gan", images(), {"net": "mlp", "device": "cuda", "graph": True})
        factor = itertools.count()
        update = trainer._graph.update
        trainer._graph.update = lambda: {k: v * next(factor) for k, v in update().items()}
        trainer.step(), trainer.step()
        with pytest.raises(mg.errors.UserError, match=r"^--graph: this step cannot be captured: multiply: the number"):
            trainer.step()


def test_weights_and_what_is_computed_with_them_are_there():
    with cuda.using(cuda.Emulated()):
        *_, trainer = steps_of("cuda", "gan", images(), {"net": "dcgan"}, count=1)
        kinds = {p.device for p in mg.nn.parameters([trainer.generator, trainer.discriminator])}
    assert kinds == {"cuda"} and device.place(np.zeros(1)).__class__ is np.ndarray


def test_a_run_on_the_device_from_the_command_line(tmp_path, monkeypatch, capsys):
    from minigen import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIGEN_CUDA", "emulated")
    cuda._default.cache_clear()
    try:
        arguments = ["train", "gan", "--net", "mlp", "--batch-size", "4", "--out", "run", "--device", "cuda"]
        assert cli.main([*arguments, "--steps", "2"]) == 0
        assert cli.main([*arguments, "--steps", "7", "--graph", "--resume"]) == 0
        for whole in ([], ["--graph"]):
            other = [*arguments, "--out", "other" + "".join(whole)]
            assert cli.main([*other, "--steps", "7", *whole]) == 0
            one, two = (checkpoint.load(tmp_path / name, "gan") for name in ("run", other[-1]))
            assert one.rng == two.rng and one.arrays.keys() == two.arrays.keys()
            assert all(np.array_equal(one.arrays[k], two.arrays[k]) for k in one.arrays)
        assert cli.main(["train", "gan", "--graph"]) == 2 and "nothing to capture" in capsys.readouterr().err
    finally:
        cuda._default.cache_clear()
    assert (tmp_path / "run" / "samples" / "000007.png").exists()
    assert cli.main(["sample", "run"]) == 0, capsys.readouterr().err  # on the CPU, from a run that was not
