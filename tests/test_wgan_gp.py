"""WGAN-GP: the penalty and its second derivatives three ways, the two steps, and what the recipe refuses."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import minigen as mg
from minigen import nn, random
from minigen.data import Loader
from minigen.errors import UserError
from minigen.models import Discriminator, dcgan_discriminator
from minigen.train import WGANGP, DataInfo
from minigen.train.wgan_gp import gradient_penalty

PENALTIES = ("two-sided", "one-sided", "fake", "real")
EVERY = pytest.mark.parametrize("penalty", PENALTIES)


def float64(critic, scale):
    """Larger weights, so that slopes lie on both sides of one; in float64, for finite differences."""
    for p in nn.parameters(critic):
        p.data = p.data.astype(np.float64) * (scale if p.ndim > 1 else 1)
    return critic


def critic_of(*layers):
    return Discriminator(nn.Sequential(*layers), planes=True)


def mlp(hidden):
    return critic_of(nn.Flatten(), nn.Linear(16, 5), nn.LeakyReLU(0.2), nn.Linear(5, 4), hidden, nn.Linear(4, 1))


def conv(*norm):
    first = nn.Conv2d(1, 2, 3, 2, 1)
    return critic_of(first, *norm, nn.Tanh(), nn.Conv2d(2, 2, 2), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(2, 1))


CRITICS = {
    "mlp": lambda: mlp(nn.Tanh()),
    "relu mlp": lambda: mlp(nn.ReLU()),
    "conv": lambda: conv(),
    "conv with layer norm": lambda: conv(nn.LayerNorm((2, 2, 2))),
}
# Biases after which there is nothing but leaky ReLUs: they shift the output and change no slope. Gradient zero, or unused.
FLAT = {"mlp": {"body.5.bias"}, "relu mlp": {"body.1.bias", "body.3.bias", "body.5.bias"},
        "conv": {"body.2.bias", "body.5.bias"}, "conv with layer norm": {"body.3.bias", "body.6.bias"}}  # fmt: skip


def setting(name):
    """A critic, data and fakes."""
    mg.seed(2)
    critic = float64(CRITICS[name](), 4.0)
    rng = np.random.default_rng(0)
    x, y = (mg.tensor(rng.standard_normal((5, 1, 4, 4))) for _ in range(2))
    return critic, x, y


def seeded(penalty, critic, x, y):
    """The penalty at the same interpolates on every call."""
    mg.seed(3)
    return gradient_penalty(penalty, critic, x, y)


@EVERY
@pytest.mark.parametrize("name", CRITICS)
def test_the_gradient_of_the_penalty_is_right_and_not_zero(name, penalty):
    """For every weight of the critic, entry by entry, against finite differences of the penalty itself."""
    critic, x, y = setting(name)
    named = nn.named_parameters(critic)
    owners = [(layer, key) for layer in critic.body for key, p in vars(layer).items() if any(p is q for q in named.values())]

    def at(*weights):
        for (layer, key), w in zip(owners, weights, strict=True):
            setattr(layer, key, w)
        return seeded(penalty, critic, x, y)

    with mg.mode("reference"):
        mg.gradcheck(at, *named.values(), order=1)
        grads = mg.grad(at(*named.values()), list(named.values()), allow_unused=True)
    for (key, p), g in zip(named.items(), grads, strict=True):
        if key in FLAT[name]:
            assert g is None or not g.data.any(), key
        else:
            assert g is not None and np.abs(g.data).max() > 0.1 and g.shape == p.shape, key


@EVERY
@pytest.mark.parametrize("norm", [False, True])
def test_value_and_gradients_are_torchs_double_backward(norm, penalty):
    """The conv critic of the recipe, in float64, on the same interpolates."""
    torch = pytest.importorskip("torch")
    critic = float64(dcgan_discriminator((1, 8, 8), norm=nn.LayerNorm if norm else None), 3.0)
    t = torch.nn
    layers = [t.Conv2d(1, 64, 4, 2, 1), t.LeakyReLU(0.2), t.Conv2d(64, 128, 4, 2, 1, bias=not norm)]
    layers += [t.LayerNorm((128, 2, 2))] * norm + [t.LeakyReLU(0.2), t.Flatten(), t.Linear(512, 1)]
    other = t.Sequential(*layers).double()
    other.load_state_dict({k.removeprefix("body."): torch.tensor(v) for k, v in nn.state_dict(critic).items()})
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4, 1, 8, 8)), rng.standard_normal((4, 1, 8, 8))
    found = seeded(penalty, critic, mg.tensor(x), mg.tensor(y))
    grads = mg.grad(found, nn.parameters(critic), allow_unused=True)

    mg.seed(3)
    e = mg.rand(4, 1, 1, 1).data
    at = torch.tensor({"fake": y, "real": x}.get(penalty, e * x + (1 - e) * y), requires_grad=True)
    (slopes,) = torch.autograd.grad(other(at).sum(), at, create_graph=True)
    squared = slopes.square().sum((1, 2, 3))
    exact = {
        "two-sided": (squared.sqrt() - 1).square().mean(),
        "one-sided": (squared.sqrt() - 1).relu().square().mean(),
        "fake": squared.mean(),
        "real": squared.mean(),
    }[penalty]
    expected = torch.autograd.grad(exact, list(other.parameters()), allow_unused=True)
    assert exact.item() > 0
    np.testing.assert_allclose(found.item(), exact.item(), rtol=1e-9)  # 1e-12 under our root, against slopes near 1
    for g, h in zip(grads, expected, strict=True):
        g, h = (0.0 if v is None else v for v in (None if g is None else g.data, None if h is None else h.numpy()))
        np.testing.assert_allclose(g, h, rtol=0, atol=1e-9 * max(1.0, np.abs(h).max()))


@EVERY
@pytest.mark.parametrize("norm", [0.5, 3.0])
def test_a_linear_critic_by_hand(norm, penalty):
    """D(u) = w u has slope |w| everywhere."""
    critic = Discriminator(nn.Sequential(nn.Linear(3, 1, bias=False)))
    w = np.array([[2.0, -1.0, 2.0]]) * norm / 3
    critic.body[0].weight.data = w
    x, y = mg.tensor(np.ones((4, 3))), mg.tensor(np.zeros((4, 3)))
    found = gradient_penalty(penalty, critic, x, y)
    value, slope = {  # of the penalty, and its derivative in |w|
        "two-sided": ((norm - 1) ** 2, 2 * (norm - 1)),
        "one-sided": (max(0, norm - 1) ** 2, 2 * max(0, norm - 1)),
    }.get(penalty, (norm**2, 2 * norm))
    np.testing.assert_allclose(found.item(), value, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(mg.grad(found, critic.body[0].weight)[0].data, slope * w / norm, rtol=1e-10, atol=1e-12)


def test_a_critic_of_slope_zero_has_a_finite_gradient():
    critic = Discriminator(nn.Sequential(nn.Linear(3, 1)))
    critic.body[0].weight.assign(0.0)
    found = gradient_penalty("two-sided", critic, mg.randn(4, 3), mg.randn(4, 3))
    np.testing.assert_allclose(found.item(), 1.0, rtol=1e-5)
    assert np.isfinite(mg.grad(found, critic.body[0].weight)[0].data).all()


@EVERY
def test_where_the_slope_is_taken(penalty):
    seen = []

    class Critic(Discriminator):
        def __call__(self, x, labels=None):
            seen.append((x.data, labels))
            return super().__call__(x, labels)

    x, y = mg.tensor(np.full((6, 2), 10.0, np.float32)), mg.tensor(np.zeros((6, 2), np.float32))
    gradient_penalty(penalty, Critic(nn.Sequential(nn.Linear(2, 1))), x, y, labels=None)
    ((at, _),) = seen
    if penalty in ("fake", "real"):
        np.testing.assert_array_equal(at, (y if penalty == "fake" else x).data)
    else:
        assert (at[:, 0] == at[:, 1]).all() and len(set(at[:, 0])) == 6  # one e for each sample, not for each pixel
        assert at.min() >= 0 and at.max() <= 10 and at.dtype == np.float32


# --- the trainer


def trainer(labels=False, **options):
    rng = np.random.default_rng(0)
    data = SimpleNamespace(images=rng.integers(0, 256, (40, 1, 8, 8), np.uint8), labels=np.arange(40) % 2)
    info = DataInfo("noise", (1, 8, 8), ("even", "odd"), 40, 0)
    config = WGANGP(batch_size=8, labels=labels, **options)
    config.resolve(info)
    mg.seed(0)
    return config.build(info, data), data


def weights(model):
    return {k: v.tobytes() for k, v in nn.state_dict(model).items()}


@pytest.mark.parametrize(
    "options", [{}, {"net": "mlp"}, {"critic_norm": "layer"}, {"labels": True}, {"net": "mlp", "labels": True}]
)
def test_each_step_moves_its_own_network_only(options):
    t, _ = trainer(**options)
    g, d = weights(t.generator), weights(t.discriminator)
    losses = t.critic_step()
    g_params = {k: g[k] for k in nn.named_parameters(t.generator)}
    assert {k: weights(t.generator)[k] for k in g_params} == g_params  # running statistics may move
    moved = weights(t.discriminator)
    last = list(d)[-1]  # a constant added to D changes no difference and no slope: it has no reason to move
    assert all(moved[k] != d[k] for k in d if k != last)
    losses |= t.generator_step()
    assert weights(t.discriminator) == moved
    assert all(weights(t.generator)[k] != g[k] for k in g_params)
    assert set(losses) == {"critic", "wasserstein", "penalty", "generator"}
    assert all(np.isfinite(v.item()) for v in losses.values())


def test_the_critics_loss_is_the_equation():
    """L_D = E D(y) - E D(x) + lambda P on the first batch, recomputed from the same random numbers."""
    t, data = trainer(gp_weight=7.0)
    x, _ = Loader(data.images, data.labels, 8, 0).next()
    state = random.get_state()
    critic = {k: p.data.copy() for k, p in nn.named_parameters(t.discriminator).items()}
    losses = {k: v.item() for k, v in t.critic_step().items()}
    for k, p in nn.named_parameters(t.discriminator).items():
        p.assign(critic[k])
    random.set_state(state)
    with mg.no_grad():
        y = t.generator(t.noise(8))
    real, fake = t.discriminator(mg.Tensor(x)).mean().item(), t.discriminator(y).mean().item()
    penalty = gradient_penalty("two-sided", t.discriminator, mg.Tensor(x), y).item()
    np.testing.assert_allclose(losses["wasserstein"], real - fake, rtol=1e-4)
    np.testing.assert_allclose(losses["penalty"], penalty, rtol=1e-5)
    np.testing.assert_allclose(losses["critic"], fake - real + 7 * penalty, rtol=1e-5)


def test_the_same_seed_gives_the_same_losses_and_looking_changes_nothing():
    (one, _), (two, data) = (trainer(n_critic=1) for _ in range(2))
    mg.seed(5)
    losses = [one.step() for _ in range(2)]
    mg.seed(5)
    first = two.step()
    assert two.sample(5).shape == (5, 1, 8, 8)
    assert two.score(np.zeros((3, 1, 8, 8), np.float32), data.labels[:3]).shape == (3,)
    assert [first, two.step()] == losses
    assert trainer(n_critic=1, seed=1)[0].step() != first


@pytest.mark.parametrize("n_critic", [1, 3])
def test_critic_updates_for_each_generator_update(n_critic):
    t, _ = trainer(n_critic=n_critic)
    t.step()
    assert (t.opt_d.t, t.opt_g.t) == (n_critic, 1)


def test_the_critics_update_records_nothing_of_the_generator():
    t, _ = trainer(n_critic=1)
    d, seen = t.discriminator, []
    t.discriminator = lambda x, labels: seen.append((len(x), x.requires_grad, x.op is None)) or d(x, labels)
    t.step()
    assert seen == [(16, False, True), (8, True, True), (8, True, False)]  # both, at the interpolates; then fakes, for G


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_the_critic_judges_each_sample_by_itself(norm):
    t, _ = trainer(critic_norm=norm)
    x = mg.randn(6, 1, 8, 8)
    together = t.discriminator(x).data
    alone = [t.discriminator(x[i : i + 1]).item() for i in range(6)]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"critic_norm": "batch"}, "--critic-norm batch: the gradient penalty is per sample, and batch norm couples samples"),
        ({"critic_norm": "layer", "net": "mlp"}, "--critic-norm layer is for --net dcgan"),
        ({"n_critic": 0}, "--n-critic must be at least 1, not 0"),
        ({"batch_size": 0}, "--batch-size must be at least 1, not 0"),
    ],
)
def test_what_the_recipe_refuses(options, message):
    with pytest.raises(UserError, match=message):
        WGANGP(**options).resolve(DataInfo("noise", (1, 8, 8), (), 40, 0))


def test_defaults_follow_the_paper_for_images_and_suit_points():
    images, points = WGANGP(), WGANGP()
    images.resolve(DataInfo("noise", (1, 28, 28), (), 40, 0))
    assert (images.gp_weight, images.n_critic, images.lr, images.betas, images.net) == (10, 5, 1e-4, (0, 0.9), "dcgan")
    points.resolve(DataInfo("ring", (2,), (), 40, 0))
    assert (points.net, points.gp_weight, points.penalty) == ("mlp", 0.1, "two-sided")
    with pytest.raises(UserError, match="the data ring are points: use --net mlp"):
        WGANGP(net="dcgan").resolve(DataInfo("ring", (2,), (), 40, 0))


def test_an_unknown_penalty_is_not_taken_for_another():
    critic = Discriminator(nn.Sequential(nn.Linear(3, 1)))
    with pytest.raises((UserError, ValueError)):
        gradient_penalty("two_sided", critic, mg.randn(4, 3), mg.randn(4, 3))
