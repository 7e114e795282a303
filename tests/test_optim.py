"""Optimisers against PyTorch's, and what is saved of them; clipping, schedules, weight averaging."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minigen as mg
from minigen import nn, optim

# name: (ours, PyTorch's)
OPTIMIZERS = {
    "SGD": (lambda p: optim.SGD(p, 0.1), lambda o, p: o.SGD(p, 0.1)),
    "momentum": (lambda p: optim.SGD(p, 0.1, 0.9), lambda o, p: o.SGD(p, 0.1, 0.9)),
    "decay": (lambda p: optim.SGD(p, 0.1, 0.9, 0.01), lambda o, p: o.SGD(p, 0.1, 0.9, weight_decay=0.01)),
    "RMSprop": (lambda p: optim.RMSprop(p, 0.01, 0.9), lambda o, p: o.RMSprop(p, 0.01, 0.9)),
    "Adagrad": (lambda p: optim.Adagrad(p, 0.1), lambda o, p: o.Adagrad(p, 0.1)),
    "Adam": (lambda p: optim.Adam(p, 0.01, (0.5, 0.99)), lambda o, p: o.Adam(p, 0.01, (0.5, 0.99))),
    "AdamW": (
        lambda p: optim.AdamW(p, 0.01, (0.5, 0.99), 1e-6, 0.1),
        lambda o, p: o.AdamW(p, 0.01, (0.5, 0.99), 1e-6, 0.1),
    ),
    "defaults of Adam": (lambda p: optim.Adam(p), lambda o, p: o.Adam(p)),
    "defaults of AdamW": (lambda p: optim.AdamW(p), lambda o, p: o.AdamW(p)),
    "defaults of RMSprop": (lambda p: optim.RMSprop(p), lambda o, p: o.RMSprop(p)),
    "defaults of Adagrad": (lambda p: optim.Adagrad(p), lambda o, p: o.Adagrad(p)),
}
EVERY = pytest.mark.parametrize("name", OPTIMIZERS)
SHAPES = [(3, 4), (4,), ()]


def start(dtype=np.float32):
    rng = np.random.default_rng(0)
    return [mg.tensor(np.asarray(rng.standard_normal(s), dtype), requires_grad=True) for s in SHAPES]


def gradients(step, dtype=np.float32):
    rng = np.random.default_rng(step + 1)
    return [mg.tensor(np.asarray(rng.standard_normal(s), dtype)) for s in SHAPES]


@EVERY
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_five_steps_are_torchs(name, dtype):
    torch = pytest.importorskip("torch")
    params = start(dtype)
    theirs = [torch.tensor(p.data, dtype=torch.float64, requires_grad=True) for p in params]
    ours, other = OPTIMIZERS[name][0](params), OPTIMIZERS[name][1](torch.optim, theirs)
    for step in range(5):
        grads = gradients(step, dtype)
        ours.step(grads)
        for t, g in zip(theirs, grads, strict=True):
            t.grad = torch.tensor(g.data, dtype=torch.float64)
        other.step()
    for p, t in zip(params, theirs, strict=True):
        assert p.dtype == dtype
        # Five steps of some ten roundings.
        np.testing.assert_allclose(p.data, t.detach().numpy(), rtol=0, atol=50 * np.finfo(dtype).eps * 3)


@EVERY
def test_a_restored_state_goes_on_to_the_bit(name):
    make = OPTIMIZERS[name][0]
    params = start()
    first = make(params)
    for step in range(3):
        first.step(gradients(step))
    copies = [mg.tensor(p, requires_grad=True) for p in params]
    second = make(copies)
    state = first.state_dict()
    second.load_state_dict(state)
    first.step(gradients(3))  # the state is a copy: this does not move it
    second.step(gradients(3))
    for p, q in zip(params, copies, strict=True):
        np.testing.assert_array_equal(p.data, q.data)
    assert second.state_dict().keys() == state.keys() and list(state["steps"]) == [3] * len(state["steps"])


@pytest.mark.parametrize(
    "change", [lambda s: s.pop("m.0"), lambda s: s.update(x=np.ones(1)), lambda s: s.update({"v.2": np.ones(3)})]
)
def test_a_state_that_does_not_fit_changes_nothing(change):
    optimizer = optim.Adam(start())
    optimizer.step(gradients(0))
    before, other = optimizer.state_dict(), {k: v + 1 for k, v in optimizer.state_dict().items()}
    change(other)
    with pytest.raises(ValueError, match="optimiser state does not fit"):
        optimizer.load_state_dict(other)
    for key, array in optimizer.state_dict().items():
        np.testing.assert_array_equal(array, before[key])


@EVERY
def test_step_uses_grad_and_skips_what_has_none(name):
    params, explicit = start(), start()
    grads = gradients(0)
    params[0].grad, params[2].grad = grads[0], grads[2]
    one, two = OPTIMIZERS[name][0](params), OPTIMIZERS[name][0](explicit)
    one.step()
    two.step([grads[0], None, grads[2]])
    for p, q, moved, before in zip(params, explicit, (True, False, True), start(), strict=True):
        np.testing.assert_array_equal(p.data, q.data)
        assert (p.version > 0) == moved == bool((p.data != before.data).any())
    one.zero_grad()
    assert [p.grad for p in params] == [None] * 3


@pytest.mark.parametrize("name", ["Adam", "AdamW", "momentum"])
def test_a_gradient_that_comes_later_counts_from_its_own_first_step(name):
    """Bias correction divides by 1 - b^t with t the number of gradients that went into the mean: PyTorch's reading too."""
    torch = pytest.importorskip("torch")
    params = start()
    theirs = [torch.tensor(p.data, requires_grad=True) for p in params]
    ours, other = OPTIMIZERS[name][0](params), OPTIMIZERS[name][1](torch.optim, theirs)
    for step in range(4):
        grads = gradients(step)
        if step < 2:
            grads[1] = None
        ours.step(grads)
        for t, g in zip(theirs, grads, strict=True):
            t.grad = None if g is None else torch.tensor(g.data)
        other.step()
    for p, t in zip(params, theirs, strict=True):
        np.testing.assert_allclose(p.data, t.detach().numpy(), rtol=0, atol=1e-5)


def test_gradients_are_not_modified_and_may_be_views():
    for make, _ in OPTIMIZERS.values():
        p = mg.tensor(np.ones((3, 4), np.float32), requires_grad=True)
        (g,) = mg.grad(p.sum(), p)  # one number, broadcast
        make([p]).step([g])
        assert (g.data == 1).all() and np.unique(p.data).size == 1 and p.data[0, 0] < 1


@EVERY
def test_parameters_stored_in_columns_train_too(name):
    """mg.tensor keeps the layout of what it copies: a weight transposed for another library lies in columns."""
    rng = np.random.default_rng(0)
    w, g = (rng.standard_normal((3, 4)).astype(np.float32) for _ in range(2))
    rows, columns = mg.tensor(w, requires_grad=True), mg.tensor(np.asfortranarray(w), requires_grad=True)
    for p in (rows, columns):
        OPTIMIZERS[name][0]([p]).step([mg.tensor(g)])
    np.testing.assert_array_equal(columns.data, rows.data)


def test_bad_arguments():
    with pytest.raises(ValueError, match="at least one parameter"):
        optim.Adam([])
    with pytest.raises(ValueError, match="1 gradients for 3 parameters"):
        optim.Adam(start()).step(gradients(0)[:1])


def test_training_converges():
    """A line through noisy points: the optimiser, the layer and the gradient together."""
    mg.seed(0)
    x = mg.randn(200, 1)
    y = mg.Tensor(3 * x.data - 1)
    model = nn.Linear(1, 1)
    optimizer = optim.Adam(nn.parameters(model), 0.1)
    for _ in range(200):
        optimizer.step(mg.grad(mg.ops.mse(model(x), y), nn.parameters(model)))
    np.testing.assert_allclose([model.weight.item(), model.bias.item()], [3, -1], atol=1e-2)


# --- clipping


@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_clipping_is_torchs(limit):
    torch = pytest.importorskip("torch")
    grads = gradients(0)
    kept = [g.data.copy() for g in grads]
    theirs = [torch.zeros(s, requires_grad=True) for s in SHAPES]
    for t, g in zip(theirs, grads, strict=True):
        t.grad = torch.tensor(g.data)
    exact = torch.nn.utils.clip_grad_norm_(theirs, limit)
    clipped, norm = optim.clip_grad_norm(grads, limit)
    np.testing.assert_allclose(norm, exact.item(), rtol=1e-6)
    for c, t in zip(clipped, theirs, strict=True):
        np.testing.assert_allclose(c.data, t.grad.numpy(), rtol=1e-5)  # PyTorch adds 1e-6 to the norm
        assert c.dtype == np.float32
    for g, k in zip(grads, kept, strict=True):
        np.testing.assert_array_equal(g.data, k)
    assert abs(optim.clip_grad_norm(clipped, limit)[1] - min(limit, norm)) < 1e-6 * norm


def test_clipping_zero_and_nan():
    zero = [mg.tensor([0.0, 0.0])]
    assert optim.clip_grad_norm(zero, 1.0)[1] == 0 and optim.clip_grad_norm(zero, 1.0)[0][0].data.tolist() == [0, 0]
    clipped, norm = optim.clip_grad_norm([mg.tensor([np.nan, 1.0])], 1.0)
    assert math.isnan(norm.item()) and np.isnan(clipped[0].data).all()  # seen, not hidden


# --- schedules and averages


def test_schedules():
    assert [optim.constant()(s) for s in (0, 10)] == [1, 1]
    linear = optim.linear_decay(10, 0.2)
    np.testing.assert_allclose([linear(s) for s in (0, 5, 10, 99)], [1, 0.6, 0.2, 0.2])
    cosine = optim.cosine(20, warmup=4, final=0.1)
    np.testing.assert_allclose([cosine(s) for s in (0, 1, 3, 4, 12, 20, 99)], [0.25, 0.5, 1, 1, 0.55, 0.1, 0.1])
    np.testing.assert_allclose(optim.cosine(8)(2), 0.5 * (1 + math.cos(math.pi / 4)))


def test_the_learning_rate_can_be_set_and_is_saved():
    (p,) = params = [mg.tensor([1.0], requires_grad=True)]
    optimizer = optim.SGD(params, 1.0)
    optimizer.lr *= 0.5
    optimizer.step([mg.tensor([1.0])])
    assert p.item() == 0.5 and optimizer.state_dict()["lr"] == 0.5


def test_weight_average():
    params = start()
    before = [p.data.copy() for p in params]
    average = optim.WeightAverage(params, 0.9)
    for p in params:
        p.assign(p.data + 1)
    average.update()
    now = [p.data.copy() for p in params]
    average.swap()
    for p, b in zip(params, before, strict=True):
        np.testing.assert_allclose(p.data, b + 0.1, rtol=1e-5, atol=1e-6)
    average.swap()
    for p, n in zip(params, now, strict=True):
        np.testing.assert_array_equal(p.data, n)  # to the bit
    assert all(p.version == 3 for p in params)  # graphs built before a swap are refused
