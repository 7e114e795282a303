"""Recurrent generators, convolutions shared between G and D, and a GRU critic under the gradient penalty."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import minigen as mg
from minigen import cli, nn, ops
from minigen.errors import UserError
from minigen.models import RecurrentGenerator, SequenceCritic, mirrored_discriminator
from minigen.train import GAN, WGANGP, DataInfo, checkpoint, train
from minigen.train.wgan_gp import gradient_penalty

CELLS = ("gru", "lstm", "rnn")
EVERY = pytest.mark.parametrize("cell", CELLS)


def trainer(recipe, images=None, **options):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 1, 8, 8), np.uint8) if images is None else images
    data = SimpleNamespace(images=images, labels=np.arange(len(images)) % 2)
    info = DataInfo("noise", images.shape[1:], ("even", "odd"), len(images), 0)
    config = recipe(batch_size=8, **options)
    config.resolve(info)
    mg.seed(0)
    return config.build(info, data)


def values(model):
    return {k: p.data.copy() for k, p in nn.named_parameters(model).items()}


def moved(model, before):
    return {k for k, p in nn.named_parameters(model).items() if (p.data != before[k]).any()}


# --- the generator


@EVERY
def test_the_canonical_sizes(cell):
    g = RecurrentGenerator(cell, (1, 28, 28))
    assert g.noise_shape == (14, 100) and (g.rnn.input_size, g.rnn.hidden_size) == (100, 224)
    assert g.body[0].weight.shape == (64, 16, 3, 3) and g.body[3].weight.shape == (64, 1, 4, 4)
    assert g(mg.randn(2, 14, 100)).shape == (2, 1, 28, 28)
    other = RecurrentGenerator(cell, (3, 8, 12), classes=3)
    assert other.noise_shape == (4, 100) and (other.rnn.input_size, other.rnn.hidden_size) == (103, 96)
    x = other(mg.randn(2, 4, 100), np.array([0, 2]))
    assert x.shape == (2, 3, 8, 12) and np.abs(x.data).max() < 1


def test_the_output_of_step_t_is_row_t_of_the_maps():
    g = RecurrentGenerator("gru", (1, 8, 8))
    seen = []
    g.body = lambda maps: seen.append(maps.data) or maps
    z = mg.randn(3, 4, 100)
    g(z)
    states, _ = g.rnn(z)  # (N, T, 16 * 4)
    for t in range(4):
        np.testing.assert_array_equal(seen[0][:, :, t], states.data[:, t].reshape(3, 16, 4))


@EVERY
def test_a_row_knows_those_above_it_and_not_those_below(cell):
    g = RecurrentGenerator(cell, (1, 16, 16))
    nn.set_training(g, False)
    z = mg.randn(1, 8, 100).data
    first, last = z.copy(), z.copy()
    first[:, 0] += 1
    last[:, -1] += 1
    x, after_first, after_last = (g(mg.Tensor(v)).data[0, 0] for v in (z, first, last))
    assert (x != after_first).any(axis=1).all()
    assert (x[-2:] != after_last[-2:]).any() and (x[:11] == after_last[:11]).all()  # each convolution looks one row further


@EVERY
def test_labels_reach_the_generator(cell):
    g = RecurrentGenerator(cell, (1, 8, 8), classes=3)
    nn.set_training(g, False)
    z = mg.Tensor(np.repeat(mg.randn(1, 4, 100).data, 3, 0))
    assert len({row.tobytes() for row in g(z, np.arange(3)).data}) == 3


# --- training


@pytest.mark.parametrize("frozen", ["opt_d", "opt_g"])
@pytest.mark.parametrize("options", [{"net": "gru"}, {"net": "lstm", "labels": True}, {"net": "rnn", "spectral_norm": True}])
def test_each_update_moves_its_own_network_only(monkeypatch, frozen, options):
    t = trainer(GAN, **options)
    g, d = values(t.generator), values(t.discriminator)
    monkeypatch.setattr(getattr(t, frozen), "step", lambda grads: None)
    losses = t.step()
    assert moved(t.generator, g) == (set() if frozen == "opt_g" else set(g))
    assert moved(t.discriminator, d) == (set() if frozen == "opt_d" else set(d))
    assert all(map(np.isfinite, losses.values()))


@pytest.mark.parametrize("recipe", [GAN, WGANGP])
@EVERY
def test_samples_are_a_function_of_the_weights_and_the_seed(recipe, cell):
    t = trainer(recipe, net=cell, labels=True, average=0.5)
    t.step()
    x = t.sample(5)
    assert x.shape == (5, 1, 8, 8)
    np.testing.assert_array_equal(t.sample(5), x)
    assert (t.sample(5, seed=1) != x).any()
    assert t.evaluate(np.zeros((3, 1, 8, 8), np.float32), np.array([0, 1, 0])).keys()


def test_a_recurrent_generator_learns():
    """Bright above, dark below: its pictures come to look so, against the dcgan discriminator."""
    images = np.zeros((40, 1, 8, 8), np.uint8)
    images[:, :, :4] = 255
    t = trainer(GAN, images, net="gru", lr=2e-3)
    for _ in range(100):
        t.step()
    x = t.sample(20)
    assert x[:, :, :3].mean() > 0.8 and x[:, :, 5:].mean() < -0.8


RUNS = [GAN(net="gru", share_convs=True, labels=True), WGANGP(net="rnn", critic="gru", n_critic=1, lr_schedule="constant")]


@pytest.mark.parametrize("config", RUNS)
def test_a_run_resumes_bit_for_bit(tmp_path, config):
    def outcome(folder):
        saved = checkpoint.load(folder, config.name)
        return (folder / "metrics.jsonl").read_bytes(), {k: v.tobytes() for k, v in saved.arrays.items()}, saved.rng

    fields = {"batch_size": 16, "log_every": 1}
    train(replace(config, **fields, steps=4, out=str(tmp_path / "whole")))
    train(replace(config, **fields, steps=2, out=str(tmp_path / "parts")))
    train(replace(config, **fields, steps=4, out=str(tmp_path / "parts"), resume=True))
    assert outcome(tmp_path / "whole") == outcome(tmp_path / "parts")


# --- shared convolutions


@pytest.mark.parametrize("classes", [0, 3])
def test_shared_convolutions_are_one_tensor_and_each_others_transpose(classes):
    g = RecurrentGenerator("gru", (3, 8, 12), classes)
    d = mirrored_discriminator(g, (3, 8, 12), lambda chw: nn.BatchNorm2d(chw[0]))
    shared = {id(p) for p in nn.parameters(g)} & {id(p) for p in nn.parameters(d)}
    assert shared == {id(g.body[0].weight), id(g.body[3].weight)}
    first, second = d.body[0], d.body[2]
    first.bias.assign(0.0), g.body[3].bias.assign(0.0)
    x, y = mg.randn(2, 3, 8, 12), mg.randn(2, 64, 4, 6)
    planes = mg.Tensor(np.zeros((2, classes, 8, 12), np.float32))
    looked = first(ops.concatenate([x, planes], 1) if classes else x)
    np.testing.assert_allclose((looked * y).sum().item(), (x * g.body[3](y)).sum().item(), rtol=1e-4, atol=1e-4)
    u, v = mg.randn(2, 64, 4, 6), mg.randn(2, 16, 4, 6)
    np.testing.assert_allclose((second(u) * v).sum().item(), (u * g.body[0](v)).sum().item(), rtol=1e-4, atol=1e-4)
    assert d(x, np.array([0, 1]) if classes else None).shape == (2,)


@pytest.mark.parametrize("labels", [False, True])
def test_both_updates_move_what_is_shared_and_nothing_else_of_the_other(monkeypatch, labels):
    t = trainer(GAN, net="gru", share_convs=True, labels=labels)
    g, d = values(t.generator), values(t.discriminator)
    with monkeypatch.context() as m:
        m.setattr(t.opt_g, "step", lambda grads: None)
        t.step()
    assert moved(t.generator, g) == {"body.0.weight", "body.3.weight"} and moved(t.discriminator, d) == set(d)
    g, d = values(t.generator), values(t.discriminator)
    monkeypatch.setattr(t.opt_d, "step", lambda grads: None)
    t.step()
    assert moved(t.generator, g) == set(g) and moved(t.discriminator, d) == {"body.0.weight", "body.2.weight"}


def test_labels_reach_the_mirrored_discriminator():
    g = RecurrentGenerator("gru", (1, 8, 8), 3)
    d = mirrored_discriminator(g, (1, 8, 8), None)
    x = mg.Tensor(np.repeat(mg.randn(1, 1, 8, 8).data, 3, 0))
    assert len(set(d(x, np.arange(3)).data.tolist())) == 3


# --- the recurrent critic


def critic(classes=0, cell="gru"):
    """In float64, and with larger weights, so that some slopes are above one."""
    mg.seed(2)
    d = SequenceCritic((1, 4, 4), classes, hidden=5, cell=cell)
    for p in nn.parameters(d):
        p.data = p.data.astype(np.float64) * (3 if p.ndim > 1 else 1)
    d.body.weight.data *= 4
    return d


def pair():
    rng = np.random.default_rng(0)
    return [mg.tensor(rng.standard_normal((5, 1, 4, 4))) for _ in range(2)]


def seeded(penalty, d, x, y):
    mg.seed(3)
    return gradient_penalty(penalty, d, x, y)


@pytest.mark.parametrize("penalty", ["two-sided", "one-sided", "fake", "real"])
@EVERY
def test_the_penalty_alone_gives_every_weight_its_right_gradient(cell, penalty):
    """Entry by entry against finite differences of the penalty: through the fused scan's double backward."""
    d, (x, y) = critic(cell=cell), pair()
    named = nn.named_parameters(d)

    def at(*weights):
        for key, w in zip(named, weights, strict=True):
            owner, _, name = key.rpartition(".")
            setattr(getattr(d, owner), name, w)
        return seeded(penalty, d, x, y)

    with mg.mode("reference"):
        mg.gradcheck(at, *named.values(), order=1)
        grads = mg.grad(at(*named.values()), list(named.values()), allow_unused=True)
    for key, g in zip(named, grads, strict=True):
        if key == "body.bias":  # it shifts the score and changes no slope
            assert g is None or not g.data.any()
        else:
            assert g is not None and np.abs(g.data).max() > 1e-3, key


def test_value_and_gradients_are_torchs_double_backward():
    """PyTorch differentiates its GRU twice on a CPU, out of small operations; on a GPU it refuses."""
    torch = pytest.importorskip("torch")
    d, (x, y) = critic(), pair()
    found = seeded("two-sided", d, x, y)
    grads = mg.grad(found, nn.parameters(d), allow_unused=True)

    gru, out = torch.nn.GRU(4, 5).double(), torch.nn.Linear(5, 1).double()
    for other, layer in ((gru, d.rnn), (out, d.body)):
        other.load_state_dict({k: torch.tensor(v) for k, v in nn.state_dict(layer).items()})
    mg.seed(3)
    e = mg.rand(5, 1, 1, 1).data
    at = torch.tensor(e * x.data + (1 - e) * y.data, requires_grad=True)
    score = out(gru(at[:, 0].transpose(0, 1))[0].mean(0)).sum()
    (slope,) = torch.autograd.grad(score, at, create_graph=True)
    penalty = (slope.square().sum((1, 2, 3)).sqrt() - 1).square().mean()
    np.testing.assert_allclose(found.item(), penalty.item(), rtol=1e-8)
    named = {f"rnn.{k}": p for k, p in gru.named_parameters()} | {"body.weight": out.weight, "body.bias": out.bias}
    expected = torch.autograd.grad(penalty, list(named.values()), allow_unused=True)
    expected = dict(zip(named, expected, strict=True))
    for key, g in zip(nn.named_parameters(d), grads, strict=True):
        if key != "body.bias":
            np.testing.assert_allclose(g.data, expected[key].numpy(), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("net", ["mlp", "dcgan", *CELLS])
def test_any_generator_trains_under_the_recurrent_critic(net, labels):
    t = trainer(WGANGP, net=net, critic="gru", labels=labels)
    assert isinstance(t.discriminator, SequenceCritic)
    g, d = values(t.generator), values(t.discriminator)
    losses = t.critic_step()
    assert moved(t.generator, g) == set()
    assert moved(t.discriminator, d) >= set(d) - {"body.bias"}  # which changes no difference and no slope
    d = values(t.discriminator)
    losses |= t.generator_step()
    assert moved(t.generator, g) == set(g) and moved(t.discriminator, d) == set()
    assert all(np.isfinite(v.item()) for v in losses.values())


def test_the_critic_judges_each_sample_by_itself_and_sees_the_label():
    d = SequenceCritic((3, 8, 12), classes=3)
    x, labels = mg.randn(6, 3, 8, 12), np.array([0, 1, 2, 0, 1, 2])
    together = d(x, labels).data
    np.testing.assert_allclose(together, [d(x[i : i + 1], labels[i : i + 1]).item() for i in range(6)], rtol=1e-4, atol=1e-6)
    assert (d(x, labels[::-1].copy()).data != together)[[0, 2, 3, 5]].all()


@pytest.mark.parametrize("net", ["mlp", "gru"])
def test_a_short_run_brings_the_distance_down(net):
    """The estimate rises while the critic learns to see, then falls as the generator follows."""
    images = np.zeros((64, 1, 8, 8), np.uint8)
    images[:, :, :4] = np.random.default_rng(0).integers(200, 256, (64, 1, 4, 8))
    t = trainer(WGANGP, images, net=net, critic="gru", lr=2e-3, steps=60)
    distance = [t.step()["wasserstein"] for _ in range(60)]
    assert max(distance) > 1
    assert np.mean(distance[-10:]) < 0.5 * max(distance)


# --- options


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (GAN(share_convs=True), "--share-convs is for --net gru, lstm, rnn, not dcgan"),
        (GAN(net="gru", share_convs=True, spectral_norm=True), "--share-convs with --spectral-norm"),
        (WGANGP(net="gru", share_convs=True, critic="gru"), "--share-convs needs a critic with convolutions: --critic net"),
        (WGANGP(critic="gru", critic_norm="layer"), "--critic-norm layer is for"),
    ],
)
def test_what_is_refused(config, message):
    with pytest.raises(UserError, match=message):
        config.resolve(DataInfo("noise", (1, 8, 8), (), 40, 0))


def test_points_have_no_rows():
    ring = DataInfo("ring", (2,), (), 40, 0)
    with pytest.raises(UserError, match="the data ring are points: use --net mlp"):
        GAN(net="gru").resolve(ring)
    with pytest.raises(UserError, match="the data ring are points: use --critic net"):
        WGANGP(critic="gru").resolve(ring)


@pytest.mark.parametrize("recipe", [["gan", "--net", "lstm", "--labels"], ["wgan-gp", "--net", "gru", "--critic", "gru"]])
def test_from_the_command_line(recipe, tmp_path, capsys):
    folder, picture = str(tmp_path / "run"), tmp_path / "g.png"
    assert cli.main(["train", *recipe, "--steps", "2", "--out", folder]) == 0
    assert cli.main(["sample", folder, "--count", "4", "--out", str(picture)]) == 0 and picture.stat().st_size > 100
    capsys.readouterr()
    assert cli.main(["eval", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 297
