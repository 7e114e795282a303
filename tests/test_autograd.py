"""The engine's promises: depth without recursion, only what was asked for, no stale value, no gradient in silence."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

import minigen as mg
from minigen import nn, ops, optim
from minigen.autograd import GradientError
from minigen.models import dcgan_discriminator, dcgan_generator
from minigen.ops import arithmetic, conv, elementwise


def leaf(*values, dtype=np.float64):
    return mg.tensor(np.array(values if len(values) > 1 else values[0], dtype), requires_grad=True)


def value(*tensors):
    return [t.data.tolist() for t in tensors]


def test_a_chain_of_100_000_ops():
    """Built, walked and freed: none of the three may recurse. (Freeing recurses in C unless the chain is taken apart.)"""
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = y + 1.0
    assert value(y, *mg.grad(y, x, retain_graph=True)) == [100_001.0, 1.0]
    y.backward()
    assert x.grad.item() == 1.0
    for _ in range(100_000):
        x = x * 1.0
    x = None  # dropped whole, without a backward that takes it apart


def test_diamonds_add_up():
    x = leaf(3.0)
    a, b = x * 2.0, x * x
    y = a * b + b  # 2x^3 + x^2
    assert value(*mg.grad(y, x)) == [6 * 9.0 + 6.0]
    y = x
    for _ in range(60):  # 2^60 paths, 60 ops
        y = y + y
    assert value(*mg.grad(y, x)) == [2.0**60]


def test_four_derivatives_of_x_to_the_fourth():
    x = leaf(2.0)
    y, found = x**4, []
    for _ in range(4):
        (y,) = mg.grad(y, x, create_graph=True)
        found.append(y.item())
    assert found == [32.0, 48.0, 48.0, 24.0]


def test_gradients_at_intermediate_tensors():
    x = leaf(2.0)
    h = x * x
    y = h * h + x
    assert value(*mg.grad(y, [h, x, y, h])) == [8.0, 33.0, 1.0, 8.0]
    h = x * x
    (dh,) = mg.grad(h * h, h, create_graph=True)
    assert value(dh, *mg.grad(dh, h)) == [8.0, 2.0]


class Halves(mg.autograd.Op):
    """Two outputs from one input, to see which cotangents arrive."""

    outputs = 2

    def forward(self, x):
        return x[:1] * 2.0, x[1:] * 3.0

    def backward(self, a, b):
        self.seen.append((a is None, b is None))
        zero = mg.tensor([0.0], dtype=np.float64)
        return (ops.concatenate([zero if a is None else a * 2.0, zero if b is None else b * 3.0]),)


@pytest.mark.parametrize(("used", "expected"), [((0,), [2, 0]), ((1,), [0, 3]), ((0, 1), [2, 3])])
def test_an_op_with_two_outputs(used, expected):
    x = leaf(5.0, 7.0)
    op = Halves()
    Halves.seen = []
    outs = op(x)
    (g,) = mg.grad([outs[i] for i in used], x)
    assert value(g) == [expected]
    assert Halves.seen == [(0 not in used, 1 not in used)]


def test_a_generator_step_computes_no_weight_gradient_of_the_discriminator(monkeypatch):
    calls = []
    right = conv.conv2d_weight_grad_forward
    monkeypatch.setattr(conv, "conv2d_weight_grad_forward", lambda x, y, *at: calls.append(x.shape) or right(x, y, *at))
    g, d = dcgan_generator((1, 8, 8)), dcgan_discriminator((1, 8, 8))
    with mg.mode("reference"):
        mg.grad(d(g(mg.randn(2, 100))).mean(), nn.parameters(g))
    assert len(calls) == 2  # G's two transposed convolutions; D's two convolutions pass the gradient on


def test_a_branch_that_was_not_asked_for_is_not_walked(monkeypatch):
    monkeypatch.setattr(elementwise.Tanh, "backward", lambda *args: pytest.fail("nothing that was asked for is here"))
    x, other = leaf(1.0), leaf(1.0)
    assert value(*mg.grad(x * 2.0 + ops.tanh(other), x)) == [2.0]


@pytest.mark.parametrize(
    ("f", "name"),
    [
        (lambda w: w * w, "Mul"),
        (lambda w: ops.matmul(w, w), "MatMul"),
        (lambda w: w.reshape(4) * 2.0 * w.reshape(4), "Mul"),
        (lambda w: ops.square(w.transpose(0, 1)), "Square"),
        (lambda w: ops.square(w[0]), "Square"),
        (lambda w: ops.square(ops.broadcast_to(w, (3, 2, 2))), "Square"),
        (lambda w: (w * 1.0) * w.detach(), "Mul"),
        (lambda w: ops.conv2d(w.reshape(1, 1, 2, 2), w.reshape(1, 1, 2, 2)), "Conv2d"),
    ],
)
def test_an_optimiser_step_before_the_backward_raises(f, name):
    w = mg.tensor(np.eye(2) + 1, requires_grad=True)
    y = f(w).sum()
    optim.SGD([w], lr=0.1).step([mg.tensor(np.ones((2, 2)))])
    with pytest.raises(GradientError, match=f"^{name}: input ., shape .* changed in place"):
        mg.grad(y, w)


@pytest.mark.parametrize("change", [lambda t: t.assign(0.0), lambda t: setattr(t, "data", t.data * 2), lambda t: t.bump()])
def test_every_way_to_change_a_tensor_is_noticed(change):
    x = leaf(1.0, 2.0)
    y = (x * x).sum()
    change(x)
    with pytest.raises(GradientError, match="Mul"):
        y.backward()


@pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid", "sqrt", "softmax", "log_softmax"])
def test_an_output_changed_before_the_backward_raises(name):
    """These ops keep their output for the backward; writing to it must not change the gradient in silence."""
    x = leaf(0.5, 1.0)
    y = getattr(ops, name)(x)
    y.assign(7.0)
    with pytest.raises(GradientError, match="changed in place"):
        mg.grad(y, x, np.array([1.0, 3.0]))


@pytest.mark.parametrize(
    "f",
    [lambda x: x + 1.0, lambda x: 1.0 - x, lambda x: -x, lambda x: x.sum(), lambda x: x.reshape(2, 1), lambda x: x[0],
     lambda x: ops.concatenate([x, x]), lambda x: ops.pad(x, [(1, 1)]), lambda x: ops.where([True, False], x, 0.0),
     lambda x: x.astype(np.float32)],
)  # fmt: skip
def test_no_false_alarm_where_the_value_does_not_matter(f):
    x = leaf(1.0, 2.0)
    y = f(x).sum()
    x.assign(5.0)
    (g,) = mg.grad(y, x)
    assert np.all(np.isfinite(g.data)) and g.shape == (2,)


def test_a_freed_graph_raises():
    x = leaf(1.0)
    y = ops.exp(x)
    y.backward()
    with pytest.raises(GradientError, match="Exp: this graph was freed"):
        y.backward()
    z = ops.exp(x)
    assert value(*mg.grad(z, x, retain_graph=True)) == value(*mg.grad(z, x))
    with pytest.raises(GradientError, match="freed"):
        mg.grad(z * 2.0, x)


def test_unused_inputs():
    x, other = leaf(1.0), leaf(1.0)
    with pytest.raises(GradientError, match=r"do not depend on input 1, shape \(\)"):
        mg.grad(x * 2.0, [x, other])
    found = mg.grad(x * 2.0, [x, other], allow_unused=True)
    assert found[0].item() == 2.0 and found[1] is None


def test_shapes_of_cotangents():
    x = leaf(1.0, 2.0)
    with pytest.raises(GradientError, match=r"shape \(2,\) needs grad_outputs"):
        mg.grad(x * 2.0, x)
    with pytest.raises(GradientError, match=r"grad_outputs of shape \(3,\) for an output of shape \(2,\)"):
        (x * 2.0).backward(np.ones(3))
    with pytest.raises(GradientError, match="1 grad_outputs for 2 outputs"):
        mg.grad([x * 2.0, x * x], x, [np.ones(2)])
    (g,) = mg.grad([x * 2.0, (x * x)[:1]], x, [np.array([1.0, 10.0]), None])  # one element can do without
    assert value(g) == [[4.0, 20.0]]


def test_only_leaves_accumulate():
    x = leaf(1.0, 2.0)
    h = x * 3.0
    for _ in range(2):
        (h * h).sum().backward(retain_graph=True)
    assert value(x.grad) == [[36.0, 72.0]]
    assert h.grad is None
    mg.grad((h * h).sum(), x)
    assert value(x.grad) == [[36.0, 72.0]]  # grad() touches no .grad


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.bool_])
def test_integers_cannot_require_a_gradient(dtype):
    with pytest.raises(TypeError, match="only float32 and float64"):
        mg.tensor(np.ones(2, dtype), requires_grad=True)


@pytest.mark.parametrize(
    ("f", "name"),
    [(lambda x: x.argmax(), "Argmax"), (lambda x: x.argmin(0), "Argmin"), (lambda x: x > 1.0, "Compare")],
)
def test_ops_without_a_gradient_are_named(f, name):
    x = leaf(1.0, 2.0)
    y = f(x)
    assert not y.requires_grad
    for ask in (lambda: mg.grad(y, x, np.ones(y.shape)), lambda: mg.grad((x * x).sum(), y)):
        with pytest.raises(GradientError, match=f"{name} has no gradient"):
            ask()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(lambda self, d: (d, None), "Mul gave no gradient for input 1"), (lambda self, d: (d, d[None]), r"shape \(1,\)")],
)
def test_a_backward_that_gives_nonsense_is_named(monkeypatch, wrong, message):
    monkeypatch.setattr(arithmetic.Mul, "backward", wrong)
    x, y = leaf(1.0), leaf(2.0)
    with pytest.raises(GradientError, match=f"^Mul gave .*{message.removeprefix('Mul gave ')}"):
        mg.grad(x * y, [x, y])


def test_no_grad_and_enable_grad_nest():
    x = leaf(1.0)
    with mg.no_grad():
        assert not (x * 2.0).requires_grad
        with mg.enable_grad():
            assert (x * 2.0).requires_grad
        with pytest.raises(ZeroDivisionError), mg.enable_grad():
            raise ZeroDivisionError
        assert not (x * 2.0).requires_grad
    assert (x * 2.0).requires_grad
    assert not mg.grad(x * x, x)[0].requires_grad
    assert mg.grad(x * x, x, create_graph=True)[0].requires_grad


def test_no_grad_belongs_to_one_thread():
    x, seen = leaf(1.0), []
    with mg.no_grad():
        t = threading.Thread(target=lambda: seen.append((x * 2.0).requires_grad))
        t.start()
        t.join()
    assert seen == [True]


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_dropped_graph_leaves_nothing_to_collect(create_graph):
    """No reference cycles: counting alone frees a graph, at once, whether or not it was walked."""
    gc.collect()
    gc.disable()
    try:
        x, w, b = leaf(*np.linspace(0.1, 0.9, 12)), leaf(1.0, 2.0, 3.0), leaf(0.0, 0.1, 0.2)
        with mg.mode("reference"):  # compiling a kernel leaves garbage of its own
            y = ops.batch_norm(ops.tanh(ops.bias_act(x.reshape(4, 3), b, 0.2)), w, b)
            y = ops.softmax(ops.sqrt(ops.exp(ops.sigmoid(y)))).sum()
            found = mg.grad(y, [x, w], create_graph=True) if create_graph else []
        alive = [weakref.ref(t.op) for t in (y, y.op._inputs[0], *found)]
        del y, found
        assert [r() for r in alive] == [None] * len(alive)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_backward_frees_as_it_goes(monkeypatch):
    """When the walk reaches the first op of a chain of 50, the arrays that the others saved are gone."""
    x, saved, alive = leaf(1.0, 2.0), [], []
    y = ops.exp(x)
    for _ in range(50):
        y = ops.tanh(y)
        saved.append(weakref.ref(y.data))
    right = elementwise.Exp.backward
    monkeypatch.setattr(
        elementwise.Exp, "backward", lambda *args: alive.append(sum(r() is not None for r in saved)) or right(*args)
    )
    mg.grad(y.sum(), x)
    assert alive[0] <= 2  # the last, which y still holds, and the one in hand
