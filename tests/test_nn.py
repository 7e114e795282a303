"""Layers against PyTorch's of the same name, with weights copied both ways; walking, saving and loading parameters."""

from __future__ import annotations

import numpy as np
import pytest

import minigen as mg
from minigen import nn
from minigen.models import Generator, dcgan_discriminator, dcgan_generator

EPS = np.finfo(np.float32).eps


@pytest.fixture
def torch():
    module = pytest.importorskip("torch")
    module.manual_seed(0)
    return module


def close(ours, theirs, terms):
    """Within the rounding of sums of `terms` float32 numbers, relative to the largest entry of `theirs`."""
    exact = theirs.detach().numpy()
    assert ours.shape == exact.shape
    np.testing.assert_allclose(ours, exact, rtol=0, atol=terms * EPS * max(np.abs(exact).max(initial=0), 1e-3))


def state(module):
    return {k: v.detach().numpy() for k, v in module.state_dict().items()}


# name: (ours, PyTorch's, input shape)
LAYERS = {
    "Linear": (lambda: nn.Linear(5, 3), lambda t: t.Linear(5, 3), (4, 5)),
    "Linear of three axes": (lambda: nn.Linear(5, 3, bias=False), lambda t: t.Linear(5, 3, bias=False), (2, 4, 5)),
    "Conv2d": (lambda: nn.Conv2d(2, 3, (3, 4), 2, (1, 2)), lambda t: t.Conv2d(2, 3, (3, 4), 2, (1, 2)), (2, 2, 7, 8)),
    "Conv2d dilated": (
        lambda: nn.Conv2d(2, 3, 3, padding=2, dilation=2, bias=False),
        lambda t: t.Conv2d(2, 3, 3, padding=2, dilation=2, bias=False),
        (2, 2, 7, 8),
    ),
    "ConvTranspose2d": (
        lambda: nn.ConvTranspose2d(2, 3, 4, 3, 1, (1, 2)),
        lambda t: t.ConvTranspose2d(2, 3, 4, 3, 1, (1, 2)),
        (2, 2, 4, 5),
    ),
    "ConvTranspose2d dilated": (
        lambda: nn.ConvTranspose2d(2, 3, 3, dilation=2, bias=False),
        lambda t: t.ConvTranspose2d(2, 3, 3, dilation=2, bias=False),
        (2, 2, 4, 5),
    ),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(3), lambda t: t.BatchNorm1d(3), (5, 3)),
    "BatchNorm1d of sequences": (
        lambda: nn.BatchNorm1d(3, 1e-3, 0.3),
        lambda t: t.BatchNorm1d(3, 1e-3, 0.3),
        (4, 3, 6),
    ),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(3), lambda t: t.BatchNorm2d(3), (4, 3, 5, 6)),
    "LayerNorm": (lambda: nn.LayerNorm(6), lambda t: t.LayerNorm(6), (4, 3, 6)),
    "LayerNorm of images": (lambda: nn.LayerNorm((3, 4, 5)), lambda t: t.LayerNorm((3, 4, 5)), (2, 3, 4, 5)),
}


@pytest.mark.parametrize("direction", ["from torch", "to torch"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_with_torchs_weights_is_torchs(torch, name, direction):
    ours, theirs, shape = LAYERS[name][0](), LAYERS[name][1](torch.nn), LAYERS[name][2]
    rng = np.random.default_rng(0)
    if direction == "from torch":
        nn.load_state_dict(ours, {k: v + np.asarray(rng.random(v.shape)).astype(v.dtype) for k, v in state(theirs).items()})
    theirs.load_state_dict({k: torch.tensor(v) for k, v in nn.state_dict(ours).items()})
    theirs.double()
    for training in (True, True, True, False):  # three steps of running statistics, then their use
        nn.set_training(ours, training)
        theirs.train(training)
        x, v = (rng.standard_normal(s).astype(np.float32) for s in (shape, theirs(torch.zeros(shape).double()).shape))
        theirs.load_state_dict({k: torch.tensor(a) for k, a in nn.state_dict(ours).items()})
        a, b = mg.tensor(x, requires_grad=True), torch.tensor(x, dtype=torch.float64, requires_grad=True)
        y, z = ours(a), theirs(b)
        close(y.data, z, 100)
        found = mg.grad(y, [a, *nn.parameters(ours)], v)
        exact = torch.autograd.grad(z, [b, *theirs.parameters()], torch.tensor(v).double())
        for g, h in zip(found, exact, strict=True):
            close(g.data, h, 200)
        after = state(theirs)
        assert list(nn.state_dict(ours)) == list(after)
        for key, array in nn.state_dict(ours).items():
            np.testing.assert_allclose(array, after[key], rtol=20 * EPS, atol=20 * EPS)


def test_embedding_is_torchs(torch):
    ours, theirs = nn.Embedding(7, 3), torch.nn.Embedding(7, 3)
    nn.load_state_dict(ours, state(theirs))
    index = np.array([[0, 6, 6], [2, 0, 6]])
    y, z = ours(index), theirs(torch.tensor(index))
    np.testing.assert_array_equal(y.data, z.detach().numpy())
    (g,), (h,) = mg.grad((y * y).sum(), ours.weight), torch.autograd.grad((z * z).sum(), theirs.weight)
    close(g.data, h, 4)


@pytest.mark.parametrize(
    "make", [lambda n: n.Linear(50, 90), lambda n: n.Conv2d(9, 90, 3), lambda n: n.ConvTranspose2d(9, 90, 3)]
)
def test_default_weights_are_drawn_as_torchs(torch, make):
    ours, theirs = make(nn), make(torch.nn)
    for name in ("weight", "bias"):  # uniform up to a bound that the largest of 90 or more draws comes close to
        w, t = getattr(ours, name).data, getattr(theirs, name).detach().numpy()
        np.testing.assert_allclose([w.max(), w.min(), w.std()], [t.max(), t.min(), t.std()], rtol=0.15)


def torch_dcgan(t, c=1, s=2):
    """The canonical DCGAN of torch.nn layers; images of 4 s pixels."""
    g = t.Sequential(
        t.Linear(100, 128 * s * s, bias=False), t.Unflatten(1, (128, s, s)), t.BatchNorm2d(128), t.ReLU(),
        t.ConvTranspose2d(128, 64, 4, 2, 1, bias=False), t.BatchNorm2d(64), t.ReLU(),
        t.ConvTranspose2d(64, c, 4, 2, 1), t.Tanh(),
    )  # fmt: skip
    d = t.Sequential(
        t.Conv2d(c, 64, 4, 2, 1), t.LeakyReLU(0.2), t.Conv2d(64, 128, 4, 2, 1, bias=False), t.BatchNorm2d(128),
        t.LeakyReLU(0.2), t.Flatten(), t.Linear(128 * s * s, 1),
    )  # fmt: skip
    return g, d


@pytest.mark.parametrize("back_end", ["reference", "auto"])
def test_a_whole_dcgan_is_torchs(torch, back_end):
    mg.seed(0)
    g, d = dcgan_generator((1, 8, 8)), dcgan_discriminator((1, 8, 8))
    tg, td = (m.double() for m in torch_dcgan(torch.nn))
    for ours, theirs in ((g.body, tg), (d.body, td)):
        for p in nn.parameters(ours):
            p.assign(p.data * 3)  # wider than 0.02, so that no layer is nearly linear
        theirs.load_state_dict({k: torch.tensor(v) for k, v in nn.state_dict(ours).items()})
        assert list(nn.named_parameters(ours)) == [k for k, _ in theirs.named_parameters()]
    z = np.random.default_rng(0).standard_normal((6, 100)).astype(np.float32)
    with mg.mode(back_end):
        x = g(mg.tensor(z))
        loss = mg.ops.bce_with_logits(d(x), 1)
        found = mg.grad(loss, nn.parameters(g) + nn.parameters(d))
    tx = tg(torch.tensor(z).double())
    t_loss = torch.nn.functional.softplus(-td(tx)).mean()
    exact = torch.autograd.grad(t_loss, [*tg.parameters(), *td.parameters()])
    close(x.data, tx, 500)
    close(loss.data, t_loss, 500)
    for f, e in zip(found, exact, strict=True):
        close(f.data, e, 5000)  # eleven layers, sums of up to 2,048 terms, three divisions by a standard deviation


def test_sequential_fuses_an_activation_into_the_layer_before():
    mg.seed(0)
    layers = [
        nn.Linear(6, 12), nn.LeakyReLU(0.2), nn.Unflatten(3, 2, 2), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 1), nn.ReLU(),
        nn.ConvTranspose2d(4, 2, 2, bias=False), nn.LeakyReLU(0.1), nn.LayerNorm((2, 3, 3)), nn.ReLU(), nn.Flatten(), nn.Tanh(),
        nn.Sigmoid(), nn.SpectralNorm(nn.Linear(18, 5)), nn.ReLU(),
    ]  # fmt: skip
    model = nn.Sequential(*layers)
    nn.set_training(model, False)
    x = mg.randn(5, 6)
    y, plain = model(x), x
    for layer in layers:
        plain = layer(plain)
    close(y.data, plain, 100)
    fused, separate = (mg.grad(t.sum(), nn.parameters(model)) for t in (y, plain))
    for g, h in zip(fused, separate, strict=True):
        close(g.data, h, 200)


def test_a_fused_activation_is_not_called(monkeypatch):
    monkeypatch.setattr(nn.ReLU, "__call__", lambda *args: pytest.fail("a second pass over the data"))
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.ReLU(), nn.SpectralNorm(nn.Linear(4, 2)), nn.ReLU())
    assert model(mg.randn(5, 3)).data.min() >= 0


class Tied:
    """A model as a user writes one: attributes, lists, dicts, a shared weight, private state, a function."""

    def __init__(self):
        self.encoder = nn.Linear(3, 3)
        self.decoder = nn.Linear(3, 3)
        self.decoder.weight = self.encoder.weight
        self.heads = {"a": nn.Linear(3, 1), "b": [nn.Linear(3, 2, bias=False)]}
        self.scale = mg.tensor(1.0, requires_grad=True)
        self.constant = mg.tensor(2.0)
        self.activation = lambda x: x
        self.name, self.size, self.again = "tied", 3, self
        self._hidden = nn.Linear(3, 3)


def test_parameters_are_found_once_under_their_names():
    model = Tied()
    names = ["encoder.weight", "encoder.bias", "decoder.bias", "heads.a.weight", "heads.a.bias", "heads.b.0.weight", "scale"]
    assert list(nn.named_parameters(model)) == names == list(nn.state_dict(model))
    assert [id(p) for p in nn.parameters(model)] == [id(p) for p in nn.named_parameters(model).values()]
    model.encoder.weight.assign(5.0)
    assert nn.state_dict(model)["encoder.weight"].max() == 5


def test_a_state_is_a_copy():
    model = nn.BatchNorm1d(2)
    kept = nn.state_dict(model)
    model(mg.randn(4, 2))
    model.weight.assign(7.0)
    assert kept["running_mean"].tolist() == [0, 0] and kept["weight"].tolist() == [1, 1] and kept["num_batches_tracked"] == 0
    buffers, version = model.running_mean, model.weight.version
    nn.load_state_dict(model, kept)
    assert model.running_mean is buffers and buffers.tolist() == [0, 0]  # in place: whoever holds the array sees it
    assert model.weight.version == version + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("1.bias"), r"missing \['1.bias'\], unexpected nothing"),
        (lambda s: s.update(extra=np.ones(1)), r"missing nothing, unexpected \['extra'\]"),
        (lambda s: s.update({"2.weight": np.ones((2, 4))}), r"2.weight is \(1, 4\) here and \(2, 4\) there"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, message):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    before = nn.state_dict(model)
    other = {k: v + 1 for k, v in before.items()}
    change(other)
    with pytest.raises(ValueError, match=message):
        nn.load_state_dict(model, other)
    for key, array in nn.state_dict(model).items():
        np.testing.assert_array_equal(array, before[key])


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.BatchNorm2d(3), (4, 3), "BatchNorm2d wants 4-D input"),
        (nn.BatchNorm1d(3), (4, 3, 2, 2), "BatchNorm1d wants 2-D or 3-D input"),
        (nn.BatchNorm1d(3), (4, 2), "BatchNorm1d: 2 channels, 3 expected"),
        (nn.Linear(3, 2), (4, 5), "x has 5 features"),
        (nn.Conv2d(3, 2, 3), (1, 2, 5, 5), "the input has 2 channels"),
    ],
)
def test_inputs_that_do_not_fit(layer, shape, message):
    before = nn.state_dict(layer)
    with pytest.raises(ValueError, match=message):
        layer(mg.randn(*shape))
    assert all((array == before[key]).all() for key, array in nn.state_dict(layer).items())


def test_a_seed_fixes_the_weights():
    mg.seed(3)
    first = nn.state_dict(dcgan_generator((1, 8, 8)))
    mg.seed(3)
    second = nn.state_dict(dcgan_generator((1, 8, 8)))
    assert all((first[k] == second[k]).all() for k in first)
    assert abs(first["body.0.weight"].std() - 0.02) < 1e-3 and isinstance(dcgan_generator((1, 8, 8)), Generator)
