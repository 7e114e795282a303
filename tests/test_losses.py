"""Losses against PyTorch, and with logits so large that a formula written without care overflows."""

from __future__ import annotations

import numpy as np
import pytest
from minigen.kernels import cuda, emulator
from minigen.kernels.device_array import to_device

import minigen as mg
from minigen import ops

RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 4)) * 4
T = RNG.random((6, 4))
CLASSES = np.array([0, 3, 1, 1, 2, 0])


def functional(t):
    return t.nn.functional


# name: (ours, PyTorch's, inputs)
LOSSES = {
    "bce 1": (lambda x: ops.bce_with_logits(x, 1), lambda t, x: functional(t).softplus(-x).mean(), (X,)),
    "bce 0": (lambda x: ops.bce_with_logits(x, 0), lambda t, x: functional(t).softplus(x).mean(), (X,)),
    "bce 0.9": (
        lambda x: ops.bce_with_logits(x, 0.9),
        lambda t, x: functional(t).binary_cross_entropy_with_logits(x, t.full_like(x, 0.9)),
        (X,),
    ),
    "bce": (ops.bce_with_logits, lambda t, x, y: functional(t).binary_cross_entropy_with_logits(x, y), (X, T)),
    "cross entropy": (
        lambda x: ops.cross_entropy(x, CLASSES),
        lambda t, x: functional(t).cross_entropy(x, t.tensor(CLASSES)),
        (X,),
    ),
    "mse": (ops.mse, lambda t, x, y: functional(t).mse_loss(x, y), (X, T)),
    "mse to a number": (lambda x: ops.mse(x, 1.0), lambda t, x: functional(t).mse_loss(x, t.ones_like(x)), (X,)),
    "hinge real": (lambda x: ops.hinge(x, 1), lambda t, x: (1 - x).relu().mean(), (X,)),
    "hinge fake": (lambda x: ops.hinge(x, -1), lambda t, x: (1 + x).relu().mean(), (X,)),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients_are_torchs(name, dtype):
    torch = pytest.importorskip("torch")
    ours, theirs, arrays = LOSSES[name]
    arrays = [a.astype(dtype) for a in arrays]
    xs = [mg.tensor(a, requires_grad=True) for a in arrays]
    ts = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]
    y, t = ours(*xs), theirs(torch, *ts)
    assert y.shape == ()
    found, exact = [y, *mg.grad(y, xs)], [t, *torch.autograd.grad(t, ts)]
    for f, e in zip(found, exact, strict=True):
        e = e.detach().numpy()
        assert f.dtype == dtype
        # A mean of 24 terms, each of a handful of roundings.
        assert np.abs(f.data - e).max() < 24 * np.finfo(dtype).eps * np.abs(e).max()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("logit", "target", "value", "slope"), [(1000, 0, 1000, 1), (1000, 1, 0, 0), (-1000, 1, 1000, -1), (-1000, 0, 0, 0)]
)
def test_logits_of_a_thousand(logit, target, value, slope, dtype):
    for t in (target, mg.tensor(np.array([target], dtype)), float(target)):
        x = mg.tensor(np.array([logit], dtype), requires_grad=True)
        y = ops.bce_with_logits(x, t)
        assert y.item() == value
        assert mg.grad(y, x)[0].item() == slope
    x = mg.tensor(np.array([[logit, 0]], dtype), requires_grad=True)
    y = ops.cross_entropy(x, [1 - target])  # two classes: class 0 is what the logit speaks for
    assert y.item() == value
    assert mg.grad(y, x)[0].data.tolist() == [[slope, -slope]]


def test_targets_may_be_tensors_of_integers():
    x = mg.tensor(X.astype(np.float32))
    assert ops.cross_entropy(x, mg.tensor(CLASSES)).item() == ops.cross_entropy(x, CLASSES).item()
    assert ops.cross_entropy(x, CLASSES.astype(np.uint8)).dtype == np.float32
    by_hand = -ops.log_softmax(x).data[np.arange(6), CLASSES].mean()
    assert abs(ops.cross_entropy(x, CLASSES).item() - by_hand) < 1e-6


def test_targets_changed_after_the_forward_do_not_change_the_gradient():
    """A loader that fills the same array again is the usual case."""
    x, target = mg.tensor(X, requires_grad=True), CLASSES.copy()
    loss = ops.cross_entropy(x, target)
    target[:] = 3
    wanted = mg.grad(ops.cross_entropy(x, CLASSES), x)[0].data
    np.testing.assert_array_equal(mg.grad(loss, x)[0].data, wanted)


# --- targets on the device ----------------------------------------------------------------------------------------------

EMULATED = pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))


@pytest.fixture
def device():
    with cuda.using(cuda.Emulated()) as backend:
        yield backend


def alone(monkeypatch, backend):
    """From here on the device is left alone with what it has."""
    for name in ("upload", "download"):
        monkeypatch.setattr(backend, name, lambda *args: pytest.fail("a copy between the host and the device"))


@EMULATED
@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize("wrapped", [False, True])
def test_targets_on_the_device_are_not_copied(monkeypatch, device, kind, wrapped):
    wanted = mg.tensor(X, requires_grad=True)
    loss = ops.cross_entropy(wanted, CLASSES)
    (g,) = mg.grad(loss, wanted, create_graph=True)
    (h,) = mg.grad((g * g).sum(), wanted)
    x, target = mg.tensor(X, requires_grad=True, device="cuda"), to_device(CLASSES.astype(kind))
    with monkeypatch.context() as patch:
        alone(patch, device)
        there = ops.cross_entropy(x, mg.Tensor(target) if wrapped else target)
        (d,) = mg.grad(there, x, create_graph=True)
        (e,) = mg.grad((d * d).sum(), x)
    for a, b in ((there, loss), (d, g), (e, h)):
        np.testing.assert_allclose(a.data.get(), b.data, rtol=1e-12, atol=1e-15)


@EMULATED
def test_a_target_on_the_device_that_is_no_class_makes_the_loss_nan(device):
    x = mg.tensor(X, requires_grad=True, device="cuda")
    loss = ops.cross_entropy(x, to_device(np.array([0, 3, 4, 1, -1, 0])))
    assert np.isnan(loss.item())
    assert np.isnan(mg.grad(loss, x)[0].data.get()).all(1).tolist() == [False, False, True, False, True, False]


@EMULATED
def test_what_is_refused_of_targets_on_the_device(device):
    x = mg.tensor(X, device="cuda")
    with pytest.raises(ValueError, match=r"integers in 0\.\.3"):
        ops.cross_entropy(x, to_device(CLASSES.astype(np.float32)))
    with pytest.raises(ValueError, match=r"wants logits \(N, K\)"):
        ops.cross_entropy(x, to_device(CLASSES[:3]))
    with pytest.raises(TypeError, match="the index is on the device and the data is not"):
        ops.cross_entropy(mg.tensor(X), to_device(CLASSES))
    with pytest.raises(ValueError, match=r"integers in 0\.\.3"):  # those of the host are looked at, wherever the logits are
        ops.cross_entropy(x, CLASSES + 1)


@pytest.mark.parametrize("loss", [lambda x: ops.bce_with_logits(x, 1), lambda x: ops.mse(x, 0.0), lambda x: ops.hinge(x, 1)])
def test_nan_goes_through(loss):
    assert np.isnan(loss(mg.tensor([np.nan, 1.0])).item())


def test_nan_goes_through_cross_entropy():
    assert np.isnan(ops.cross_entropy(mg.tensor([[np.nan, 1.0], [0.0, 1.0]]), [0, 1]).item())


@pytest.mark.parametrize(
    ("x", "target", "message"),
    [
        (X, CLASSES[:3], r"wants logits \(N, K\) and targets \(N,\), not \(6, 4\) and \(3,\)"),
        (X[0], CLASSES, r"wants logits \(N, K\)"),
        (X, np.array([0, 3, 1, 1, 2, 4]), r"integers in 0\.\.3"),
        (X, np.array([0, 3, 1, 1, 2, -1]), r"integers in 0\.\.3"),
        (X, CLASSES.astype(float), r"integers in 0\.\.3"),
    ],
)
def test_bad_targets(x, target, message):
    with pytest.raises(ValueError, match=message):
        ops.cross_entropy(mg.tensor(x), target)


def test_a_target_that_does_not_broadcast_to_the_logits_is_refused():
    """(N,) scores against (N, 1) targets would give (N, N) pairs, and the mean over them, in silence."""
    with pytest.raises(ValueError):
        ops.bce_with_logits(mg.tensor(np.zeros(4)), mg.tensor(np.ones((4, 1))))
