"""GAN: the losses by their formulas, one step of each network, labels, spectral norm, penalties."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import minigen as mg
from minigen import nn, random
from minigen.data import Loader
from minigen.errors import UserError
from minigen.models import dcgan_discriminator, dcgan_generator, mlp_discriminator, mlp_generator
from minigen.train import GAN, DataInfo
from minigen.train.gan import add_penalty, discriminator_loss, generator_loss

LOSSES = ("nonsaturating", "minimax", "lsgan", "hinge")
EVERY = pytest.mark.parametrize("loss", LOSSES)
REAL, FAKE = np.array([2.0, -0.5, 0.3, 7.0]), np.array([-3.0, 0.4, -0.7, 1.5])


def s(x):
    return 1 / (1 + np.exp(-x))


def by_hand(loss, real, fake):
    """What D and what G minimise, as minigen/train/gan.py's table has it."""
    cross_entropy = -np.log(s(real)).mean() - np.log(1 - s(fake)).mean()
    return {
        "nonsaturating": (cross_entropy, -np.log(s(fake)).mean()),
        "minimax": (cross_entropy, np.log(1 - s(fake)).mean()),
        "lsgan": ((((real - 1) ** 2).mean() + (fake**2).mean()) / 2, ((fake - 1) ** 2).mean() / 2),
        "hinge": (np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean(), -fake.mean()),
    }[loss]


@EVERY
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_losses_are_the_formulas(loss, dtype):
    real, fake = mg.tensor(REAL.astype(dtype)), mg.tensor(FAKE.astype(dtype))
    found = discriminator_loss(loss, real, fake), generator_loss(loss, fake)
    assert [t.dtype for t in found] == [dtype] * 2
    np.testing.assert_allclose([t.item() for t in found], by_hand(loss, REAL, FAKE), rtol=20 * np.finfo(dtype).eps)


@EVERY
def test_each_network_pulls_the_scores_its_way(loss):
    """D raises the score of data and lowers that of fakes; G raises that of fakes."""
    real, fake = (mg.tensor(s(scores), requires_grad=True) for scores in (REAL, FAKE))  # between lsgan's targets, 0 and 1
    d_real, d_fake = mg.grad(discriminator_loss(loss, real, fake), [real, fake])
    (g_fake,) = mg.grad(generator_loss(loss, fake), fake)
    assert (d_real.data < 0).all() and (d_fake.data > 0).all() and (g_fake.data < 0).all()


def test_the_original_game_gives_a_losing_generator_no_gradient():
    fake = mg.tensor(np.full(4, -20.0), requires_grad=True)
    (original,) = mg.grad(generator_loss("minimax", fake), fake)
    (other,) = mg.grad(generator_loss("nonsaturating", fake), fake)
    assert np.abs(original.data).max() < 1e-8
    np.testing.assert_allclose(other.data, -0.25, rtol=1e-7)


@EVERY
def test_scores_of_a_thousand_give_finite_losses(loss):
    far = mg.tensor(np.array([1000.0, -1000.0], np.float32), requires_grad=True)
    for value in (discriminator_loss(loss, far, far), generator_loss(loss, far)):
        assert np.isfinite(value.item()) and np.isfinite(mg.grad(value, far, retain_graph=True)[0].data).all()


def test_an_unknown_loss_is_not_taken_for_another():
    scores = mg.tensor(REAL)
    with pytest.raises((UserError, ValueError)):
        discriminator_loss("wasserstein", scores, scores)
    with pytest.raises((UserError, ValueError)):
        generator_loss("wasserstein", scores)


# --- the trainer


def trainer(classes=("even", "odd"), **options):
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2 if classes else None
    data = SimpleNamespace(images=rng.integers(0, 256, (40, 1, 8, 8), np.uint8), labels=labels)
    info = DataInfo("noise", (1, 8, 8), classes, 40, 0)
    config = GAN(batch_size=8, **options)
    config.resolve(info)
    mg.seed(0)
    return config.build(info, data), data


def parameters(model):
    return {k: p.data.tobytes() for k, p in nn.named_parameters(model).items()}


@pytest.mark.parametrize("frozen", ["opt_d", "opt_g"])
@pytest.mark.parametrize(
    "options", [{}, {"net": "mlp"}, {"labels": True}, {"spectral_norm": True}, {"loss": "hinge", "l2": 0.1}]
)
def test_each_update_moves_its_own_network_only(monkeypatch, frozen, options):
    t, _ = trainer(**options)
    g, d = parameters(t.generator), parameters(t.discriminator)
    monkeypatch.setattr(getattr(t, frozen), "step", lambda grads: None)
    losses = t.step()
    still, moved = ((t.discriminator, d), (t.generator, g))[:: 1 if frozen == "opt_d" else -1]
    assert parameters(still[0]) == still[1]
    after = parameters(moved[0])
    assert [k for k in moved[1] if after[k] == moved[1][k]] == []
    assert set(losses) == {"discriminator", "generator"} and all(map(np.isfinite, losses.values()))


@EVERY
def test_the_step_reports_the_losses_of_its_batch(loss):
    """Recomputed on a second trainer from the same random numbers: D's loss before its update, G's after it."""
    (one, data), (two, _) = trainer(loss=loss), trainer(loss=loss)
    mg.seed(1)
    losses = one.step()
    x, _ = Loader(data.images, data.labels, 8, 0).next()
    mg.seed(1)
    with mg.no_grad():
        fake = two.generator(two.noise(8))
        real, scores = two.discriminator(mg.Tensor(x)).data, two.discriminator(fake).data
    np.testing.assert_allclose(losses["discriminator"], by_hand(loss, real, scores)[0], rtol=1e-4)
    for p, q in zip(two.params_d, one.params_d, strict=True):
        p.assign(q.data)
    with mg.no_grad():
        scores = two.discriminator(two.generator(two.noise(8))).data
    np.testing.assert_allclose(losses["generator"], by_hand(loss, real, scores)[1], rtol=1e-3, atol=1e-5)


def test_the_same_seed_gives_the_same_losses_and_looking_changes_nothing():
    (one, _), (two, data) = trainer(), trainer()
    mg.seed(5)
    losses = [one.step() for _ in range(3)]
    mg.seed(5)
    found = [two.step()]
    state = random.get_state()
    picture = two.sample(5)
    assert random.get_state() == state and picture.shape == (5, 1, 8, 8) and np.abs(picture).max() <= 1
    np.testing.assert_array_equal(two.sample(5), picture)
    two.evaluate(np.zeros((3, 1, 8, 8), np.float32), data.labels[:3])
    found += [two.step(), two.step()]
    assert found == losses


def test_the_discriminators_update_records_nothing_of_the_generator():
    t, _ = trainer()
    d, seen = t.discriminator, []
    t.discriminator = lambda x, labels: seen.append(x.requires_grad) or d(x, labels)
    t.step()
    assert seen == [False, False, True]  # data, fakes; then fakes again, for G


def test_training_separates_what_can_be_separated():
    """Twenty steps of D alone against an untrained G: it learns to tell bright squares from noise."""
    t, data = trainer(net="mlp", lr=1e-3)
    data.images[:] = 255
    t.opt_g.lr = 0.0
    losses = [t.step()["discriminator"] for _ in range(20)]
    assert losses[-1] < 0.3 * losses[0]


# --- labels


@pytest.mark.parametrize(
    ("g", "d"),
    [(dcgan_generator((1, 8, 8), 3), dcgan_discriminator((1, 8, 8), 3)), (mlp_generator((2,), 3), mlp_discriminator((2,), 3))],
)
def test_labels_reach_both_networks(g, d):
    nn.set_training(g, False), nn.set_training(d, False)
    z = mg.Tensor(np.repeat(mg.randn(1, 100).data, 3, 0))
    x = g(z, np.array([0, 1, 2]))
    assert len({row.tobytes() for row in x.data}) == 3  # one noise, three labels, three samples
    same = mg.Tensor(np.repeat(x.data[:1], 3, 0))
    assert len(set(d(same, np.array([0, 1, 2])).data.tolist())) == 3
    np.testing.assert_array_equal(d(same, np.array([1, 1, 1])).data, d(same, np.array([1, 1, 1])).data)


def test_samples_take_labels_in_turn_or_one():
    t, _ = trainer(labels=True)
    nn.set_training(t.generator, False)
    several, ones = t.sample(6), t.sample(6, label=1)
    np.testing.assert_allclose(several[1::2], ones[1::2], atol=1e-6)
    assert np.abs(several[::2] - ones[::2]).max() > 1e-4
    assert t.sample(300).shape == (300, 1, 8, 8)  # more than one batch
    with pytest.raises(UserError, match=r"label 2 is not in 0\.\.1"):
        t.sample(2, label=2)
    with pytest.raises(UserError, match="trained without --labels"):
        trainer()[0].sample(2, label=0)
    with pytest.raises(UserError, match="--labels: the data noise have no labels"):
        trainer(classes=(), labels=True)


# --- regularisers


@pytest.mark.parametrize("net", ["mlp", "dcgan"])
def test_spectral_norm_holds_every_layer_of_the_discriminator(net):
    t, _ = trainer(net=net, spectral_norm=True, lr=1e-2)
    for _ in range(5):
        t.step()
    layers = [layer for layer in t.discriminator.body if isinstance(layer, nn.SpectralNorm)]
    assert len(layers) == 3
    assert not any(isinstance(layer, (nn.Linear, nn.Conv2d, nn.BatchNorm2d)) for layer in t.discriminator.body)
    nn.set_training(t.discriminator, True)
    for _ in range(50):  # let the power iteration catch up with the last update
        t.discriminator(mg.randn(1, 1, 8, 8))
    for layer in layers:
        used = layer._layer.weight.data
        assert abs(np.linalg.svd(used.reshape(len(used), -1), compute_uv=False)[0] - 1) < 0.02


def test_the_penalty_by_hand():
    params = [mg.tensor(np.array([[1.0, -2.0]]), requires_grad=True), mg.tensor(np.array([0.0, 3.0]), requires_grad=True)]
    loss = mg.tensor(np.array(2.0))
    assert add_penalty(loss, params, 0.0, 0.0).item() == 2
    for l1, l2 in ((0.5, 0.0), (0.0, 0.1), (0.5, 0.1)):
        found = add_penalty(loss, params, l1, l2)
        assert found.shape == ()
        np.testing.assert_allclose(found.item(), 2 + l1 * 6 + l2 * 14, rtol=1e-15)
        for p, g in zip(params, mg.grad(found, params), strict=True):
            np.testing.assert_allclose(g.data, l1 * np.sign(p.data) + 2 * l2 * p.data, rtol=1e-15)


@pytest.mark.parametrize("net", ["mlp", "dcgan"])
def test_the_penalty_is_added_to_both_gradients(monkeypatch, net):
    """The gradients of a step with the penalty, less those of the same step without it."""
    seen = {}
    for key, l1, l2 in (("plain", 0.0, 0.0), ("penalised", 0.01, 0.1)):
        t, _ = trainer(net=net, l1=l1, l2=l2)
        for name in ("opt_d", "opt_g"):
            monkeypatch.setattr(getattr(t, name), "step", lambda grads, at=(key, name): seen.__setitem__(at, grads))
        mg.seed(1)
        t.step()
    for name, params in (("opt_d", t.params_d), ("opt_g", t.params_g)):
        for p, g, h in zip(params, seen["plain", name], seen["penalised", name], strict=True):
            extra = 0.01 * np.sign(p.data) + 0.2 * p.data
            np.testing.assert_allclose(h.data - g.data, extra, atol=1e-5 * max(1, np.abs(g.data).max()))


# --- options


def test_a_linear_schedule_falls_for_both_optimisers():
    t, _ = trainer(net="mlp", lr=0.4, lr_schedule="linear", steps=4)
    rates = []
    for _ in range(4):
        rates.append((t.opt_d.rate, t.opt_g.rate))
        t.step()
    np.testing.assert_allclose(rates, [(0.4, 0.4), (0.3, 0.3), (0.2, 0.2), (0.1, 0.1)])


def test_samples_come_from_the_average_and_training_does_not():
    (t, _), (plain, _) = (trainer(net="mlp", lr=1e-2, **more) for more in ({"average": 0.5}, {}))
    averages = [p.data.copy() for p in t.params_g]
    for run in (t, plain):
        mg.seed(1)
        for _ in range(3):
            run.step()
            run.sample(2)
            if run is t:
                averages = [0.5 * a + 0.5 * p.data for a, p in zip(averages, t.params_g, strict=True)]
    for p, q in zip(t.params_g, plain.params_g, strict=True):
        np.testing.assert_array_equal(p.data, q.data)  # sampling put back what it exchanged
    for p, a in zip(plain.params_g, averages, strict=True):
        p.assign(a)
    np.testing.assert_allclose(t.sample(3), plain.sample(3), atol=1e-5)


def test_defaults_and_refusals():
    images, points = GAN(), GAN()
    images.resolve(DataInfo("noise", (1, 8, 8), (), 40, 0))
    points.resolve(DataInfo("ring", (2,), (), 40, 0))
    assert (images.net, images.batch_size, images.lr, images.betas) == ("dcgan", 64, 2e-4, (0.5, 0.999))
    assert (points.net, points.batch_size) == ("mlp", 256)
    with pytest.raises(UserError, match="the data ring are points: use --net mlp"):
        GAN(net="dcgan").resolve(DataInfo("ring", (2,), (), 40, 0))
    with pytest.raises(UserError, match="--steps must be at least 1, not 0"):
        GAN(steps=0).resolve(DataInfo("ring", (2,), (), 40, 0))
    with pytest.raises(UserError, match="40 examples, fewer than one batch of 64"):
        images.build(
            DataInfo("noise", (1, 8, 8), (), 40, 0), SimpleNamespace(images=np.zeros((40, 1, 8, 8), np.uint8), labels=None)
        )
