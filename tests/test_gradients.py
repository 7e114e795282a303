"""Every op's gradients: against finite differences, on both back ends, for every choice of what requires a gradient.

The finite differences judge the reference once, with everything requiring a gradient. All other ways of asking for the
same numbers (another back end, one input alone, a constant cotangent) are then compared with that answer.
"""

from __future__ import annotations

import numpy as np
import pytest

import minigen as mg
from minigen import ops
from minigen.gradcheck import GradcheckError, gradcheck
from minigen.ops import arithmetic, conv, elementwise, norm
from minigen.ops.matmul import Linear, MatMul
from minigen.ops.softmax import CrossEntropyGrad, LogSoftmaxGrad, SoftmaxGrad

EXAMPLES = ops.examples()
CASES = [pytest.param(e, id=f"{name}-{i}") for name, examples in EXAMPLES.items() for i, e in enumerate(examples)]

# Functions without an example of their own, and why.
NO_GRADIENT = {"argmax", "argmin", "compare", "nearest_code", "one_hot"}
UNDER_ANOTHER_NAME = {"embedding": "gather", "minimum": "maximum", "transpose": "permute", "rotation_trick": "rotate_as"}
A_CAST = {"astype"}  # in float64, where examples run, it does nothing; tests/test_arithmetic.py checks it


def strided(array):
    """The same values with gaps between them and the axes stored in reverse: contiguous in no order."""
    roomy = np.full(tuple(2 * n + 1 for n in array.shape[::-1]), np.nan)
    view = roomy[(..., *(slice(1, None, 2) for _ in array.shape))].T
    view[...] = array
    return view


def outputs(f, xs):
    y = f(*xs)
    return y if isinstance(y, tuple) else (y,)


def derivatives(f, arrays, v, u, asked, v_needs_grad):
    """First gradients g_i of <v, f> for the `asked` inputs, then those of sum <u_i, g_i> for the same inputs and the v."""
    xs = [mg.Tensor(a, requires_grad=i in asked) for i, a in enumerate(arrays)]
    cotangents = [mg.Tensor(c, v_needs_grad) for c in v]
    targets = [xs[i] for i in asked]
    first = mg.grad(outputs(f, xs), targets, cotangents, create_graph=True)
    terms = [(mg.Tensor(u[i]) * g).sum() for i, g in zip(asked, first, strict=True)]
    total = sum(terms[1:], terms[0])
    wanted = targets + cotangents * v_needs_grad
    second = mg.grad(total, wanted, allow_unused=True) if total.requires_grad else [None] * len(wanted)
    zeros = [np.zeros(t.shape) if g is None else g.data for g, t in zip(second, wanted, strict=True)]
    return [g.data for g in first], zeros


def expected(f, arrays, v, u, asked):
    """The same, with every input requiring a gradient and nothing left out: a term that was not asked for has weight 0."""
    everything = tuple(range(len(arrays)))
    only = [u[i] if i in asked else np.zeros_like(u[i]) for i in everything]
    first, second = derivatives(f, arrays, v, only, everything, True)
    return [first[i] for i in asked], [second[i] for i in asked] + second[len(arrays) :]


@pytest.mark.parametrize("example", CASES)
def test_finite_differences_agree(example):
    arrays = [strided(a) for a in example.sample(np.random.default_rng(0))]
    with mg.mode("reference"):
        findings = gradcheck(example.f, *arrays, order=example.order)
    assert [f.order for f in findings] == list(range(1, example.order + 1))


@pytest.mark.parametrize("back_end", ["reference", "auto"])
@pytest.mark.parametrize("example", CASES)
def test_every_way_to_ask_gives_the_same_gradients(example, back_end):
    rng = np.random.default_rng(1)
    arrays = [strided(a) for a in example.sample(rng)]
    kept = [a.copy() for a in arrays]
    u = [strided(rng.standard_normal(a.shape)) for a in arrays]
    with mg.mode("reference"):
        v = [strided(rng.standard_normal(y.shape)) for y in outputs(example.f, [mg.Tensor(a) for a in arrays])]
    subsets = {(i,) for i in range(len(arrays))} | {tuple(range(len(arrays)))}
    for asked in sorted(subsets):
        with mg.mode("reference"):
            wanted = expected(example.f, arrays, v, u, asked)
        for v_needs_grad in (True, False):
            with mg.mode(back_end):
                found = derivatives(example.f, arrays, v, u, asked, v_needs_grad)
            for order in (0, 1):
                for g, w in zip(found[order], wanted[order], strict=False):  # a constant v has no second gradient
                    # Both in float64: they may differ by the order of a few hundred additions.
                    np.testing.assert_allclose(g, w, rtol=1e-9, atol=1e-11 * max(1.0, np.abs(w).max(initial=0)))
    for a, b in zip(arrays, kept, strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


def test_every_public_function_has_an_example():
    exempt = NO_GRADIENT | A_CAST | {"FAMILIES", "examples"}
    missing = [n for n in ops.__all__ if n not in exempt and UNDER_ANOTHER_NAME.get(n, n) not in EXAMPLES]
    assert missing == []
    assert set(EXAMPLES) <= set(ops.__all__)


# --- the check can fail -------------------------------------------------------------------------------------------------


def flipped(at):
    """A backward whose gradient number `at` has the wrong sign."""
    return lambda right: lambda *args: [-g if i == at and g is not None else g for i, g in enumerate(right(*args))]


def silenced(at):
    """A backward whose gradient number `at` is zero: the classic fault of a reference nobody tested."""
    return lambda right: lambda *args: [g * 0.0 if i == at and g is not None else g for i, g in enumerate(right(*args))]


def slightly_off(right):
    """A kernel whose first output is wrong by one part in ten thousand."""
    return lambda *args: (right(*args)[0] * (1 + 1e-4), *right(*args)[1:])


MUTATIONS = [
    ("tanh", elementwise.Tanh, "backward", flipped(0), 1),
    ("div", arithmetic.Div, "backward", flipped(1), 1),
    ("matmul", MatMul, "backward", flipped(1), 1),
    *(("linear", Linear, "backward", flipped(i), 1) for i in range(3)),
    ("conv2d", conv.Conv2d, "backward", flipped(0), 1),
    ("conv2d", conv.Conv2d, "backward", flipped(1), 1),
    ("conv_transpose2d", conv.ConvTranspose2d, "backward", silenced(1), 1),
    ("sigmoid", elementwise.Sigmoid, "backward", silenced(0), 1),
    ("batch_norm", norm.BatchNorm, "backward", silenced(2), 1),
    ("batch_norm", norm, "batch_norm_backward", slightly_off, 1),
    ("layer_norm", norm, "layer_norm_backward", slightly_off, 1),
    # Right at first order, wrong at second.
    *(("softmax", SoftmaxGrad, "backward", flipped(i), 2) for i in range(2)),
    *(("log_softmax", LogSoftmaxGrad, "backward", flipped(i), 2) for i in range(2)),
    *(("cross_entropy", CrossEntropyGrad, "backward", silenced(i), 2) for i in range(2)),
    ("conv2d", conv.Conv2dWeightGrad, "backward", flipped(0), 2),
    ("batch_norm", norm.BatchNormGrad, "backward", flipped(0), 2),
    ("batch_norm", norm.BatchNormGrad, "backward", flipped(1), 2),
    ("batch_norm", norm.BatchNormGrad, "backward", silenced(2), 2),
    ("layer_norm", norm.LayerNormGrad, "backward", flipped(1), 2),
]


@pytest.mark.parametrize(("name", "owner", "attribute", "fault", "order"), MUTATIONS)
def test_a_wrong_gradient_is_caught(monkeypatch, name, owner, attribute, fault, order):
    monkeypatch.setattr(owner, attribute, fault(getattr(owner, attribute)))
    example = EXAMPLES[name][0]
    with mg.mode("reference"), pytest.raises(GradcheckError, match=f"^order {order}, (input|cotangent)"):
        gradcheck(example.f, *example.sample(np.random.default_rng(2)))


def test_the_cotangent_is_not_the_input_drawn_from_the_same_seed(monkeypatch):
    """With v = x the input gradient of batch norm is zero, whatever its factor: an error there would not show."""
    monkeypatch.setattr(norm, "batch_norm_backward", slightly_off(norm.batch_norm_backward))
    example = EXAMPLES["batch_norm"][0]
    with mg.mode("reference"), pytest.raises(GradcheckError, match=r"^order 1, input 0"):
        gradcheck(example.f, *example.sample(np.random.default_rng(0)), seed=0)


def test_the_message_names_the_worst_entry():
    def crooked(x):
        weights = np.ones(3)
        weights[1] = 2.0  # what the value uses ...
        return x.detach() * mg.Tensor(weights) + (x - x.detach())  # ... but not what the gradient sees

    with pytest.raises(GradcheckError, match=r"order 1, input 0\[1\]: computed .*, finite difference"):
        gradcheck(crooked, np.ones(3))


def test_a_nan_gradient_is_caught():
    with np.errstate(all="ignore"), pytest.raises(GradcheckError):
        gradcheck(lambda x: ops.sqrt(x * 0.0) + x, np.ones(2), order=1)


THIRD = ["tanh", "softplus", "conv2d", "matmul", "linear", "batch_norm", "layer_norm", "bias_act", "softmax", "log_softmax"]


@pytest.mark.parametrize("name", [*THIRD, "cross_entropy"])
def test_third_order(name):
    example = EXAMPLES[name][0]
    findings = gradcheck(example.f, *example.sample(np.random.default_rng(0)), order=3)
    assert [f.order for f in findings] == [1, 2, 3]


def test_large_inputs_are_checked_along_a_direction():
    findings = gradcheck(ops.tanh, np.random.default_rng(0).standard_normal(500), order=1)
    assert "direction" in findings[0].where
    with pytest.raises(GradcheckError, match="direction"):
        gradcheck(lambda x: x.detach() * 2.0 + x, np.random.default_rng(0).standard_normal(500), order=1)
