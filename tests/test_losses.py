"""Losses against PyTorch, and with logits so large that a formula written without care overflows."""

from __future__ import annotations

import numpy as np
import pytest

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
