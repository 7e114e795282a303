"""What holds for every fused scan: double backward against the complex step, masks, orders, what is asked for, bad shapes.

That each cell is its definition, step by step, is tested beside it: test_rnn.py, test_gru.py, test_gru_cho.py, test_lstm.py.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from typing import Any, NamedTuple

import numpy as np
import pytest

import minigen as mg
from minigen import ops
from minigen.dispatch import REGISTRY
from minigen.gradcheck import GradcheckError, gradcheck

BACK_ENDS = pytest.mark.parametrize("back_end", ["reference", "auto"])


class Cell(NamedTuple):
    """G = `gates` D, the bias has `biases` D numbers, and there are `states` initial states."""

    name: str
    op_name: str
    gates: int
    biases: int
    states: int

    @property
    def f(self):
        return getattr(ops, self.name)

    @property
    def op(self):
        return getattr(importlib.import_module(f"minigen.ops.{self.name}"), self.op_name)

    def kernel(self, which):
        """What ops call: dispatched by the first array."""
        return getattr(importlib.import_module(f"minigen.ops.{self.name}"), f"{self.name}_{which}")

    def inputs(self, t, n, d, seed=0):
        """x, states, w, bias."""
        rng, g = np.random.default_rng(seed), self.gates * d
        return [rng.standard_normal(s) for s in ((t, n, g), *[(n, d)] * self.states, (g, d), (self.biases * d,))]


CELLS = [
    Cell("rnn", "RNN", 1, 1, 1),
    Cell("gru", "GRU", 3, 4, 1),
    Cell("gru_cho", "GRUCho", 3, 3, 1),
    Cell("lstm", "LSTM", 4, 4, 2),
]
EACH = pytest.mark.parametrize("cell", CELLS, ids=[c.name for c in CELLS])
RAGGED = np.arange(5)[:, None] < np.array([5, 2, 4, 1])  # (T, N): sequences of 5, 2, 4 and 1 steps
HOLES = np.array([[1, 0, 1, 1], [0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0], [0, 1, 1, 1]], bool)


def tensors(arrays):
    return [mg.Tensor(a, True) for a in arrays]


def both(outs):
    return outs if isinstance(outs, tuple) else (outs,)


# --- the double backward is the derivative of the backward --------------------------------------------------------------

H = 1e-30


def example(cell, sizes=(5, 4, 3), masked=True, complete=True):
    """Inputs u, cotangents dy of the outputs, directions v (shaped as u), a mask, and what a real forward and backward gave."""
    t, n, d = sizes
    rng = np.random.default_rng(1)
    u, v = cell.inputs(t, n, d), cell.inputs(t, n, d, seed=2)
    dy = [rng.standard_normal(s) for s in ((t, n, d), (n, d))[: cell.states]]
    mask = rng.random((t, n)) < 0.7 if masked else np.ones((t, n), bool)
    saved = cell.kernel("forward")(*u, mask)
    dx = cell.kernel("backward")(*dy, *saved, u[-2], mask, True)[0]
    return u, dy, v, mask, saved, dx


def by_complex_step(cell, u, dy, v, mask):
    """The gradient of <v, B(u, dy)>, for u and then for dy, from two sweeps that know nothing of second derivatives."""
    moved = [a + 1j * H * b for a, b in zip(u, v, strict=True)]
    saved = cell.kernel("forward")(*moved, mask)
    outs = [saved[0][1:]] if cell.states == 1 else [saved[0][1:], saved[1][-1]]
    found = cell.kernel("backward")(*[c + 0j for c in dy], *saved, moved[-2], mask, True)
    return [g.imag / H for g in (*found, *outs)]


def double_backward(cell, f, u, dy, v, mask, saved, dx):
    return f(*v, *dy, dx, *saved, u[-2], mask)


def worst(found, wanted):
    assert [a.shape for a in found] == [a.shape for a in wanted]
    return max(float(np.abs(a - b).max()) / max(float(np.abs(b).max()), 1e-3) for a, b in zip(found, wanted, strict=True))


@EACH
@BACK_ENDS
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sizes", [(5, 4, 3), (1, 3, 2), (3, 1, 1), (7, 2, 9)])
def test_double_backward_is_the_complex_step(cell, sizes, masked, back_end):
    """Along all directions at once, and along that of each input alone, where nothing can make up for a missing term."""
    u, dy, v, mask, saved, dx = example(cell, sizes, masked)
    weight = len(u) - 2
    for alone in (None, *range(len(u))):
        some = [b if alone in (None, i) else np.zeros_like(b) for i, b in enumerate(v)]
        given = [None if i == weight and alone not in (None, i) else b for i, b in enumerate(some)]  # None: a zero for less
        with mg.mode(back_end):
            found = double_backward(cell, cell.kernel("double_backward"), u, dy, given, mask, saved, dx)
        assert worst(found, by_complex_step(cell, u, dy, some, mask)) < 2e-13, f"along input {alone}"


def signs(name):
    """The reference's double backward, once for each + and - in it, with that one turned round; and the line it is on."""
    _, reference = REGISTRY[name]
    source = textwrap.dedent(inspect.getsource(reference))
    source = source[source.index("def ") :]
    count = sum(isinstance(n, ast.BinOp) and isinstance(n.op, (ast.Add, ast.Sub)) for n in ast.walk(ast.parse(source)))
    for i in range(count):
        tree = ast.parse(source)
        at = [n for n in ast.walk(tree) if isinstance(n, ast.BinOp) and isinstance(n.op, (ast.Add, ast.Sub))][i]
        at.op = ast.Sub() if isinstance(at.op, ast.Add) else ast.Add()
        names: dict[str, Any] = {}
        exec(compile(tree, name, "exec"), dict(vars(inspect.getmodule(reference))), names)
        yield names[name], ast.unparse(at)


@EACH
def test_every_sign_in_the_double_backward_matters(cell):
    """The comparison above would notice any of them: mutations, one at a time."""
    u, dy, v, mask, saved, dx = example(cell)
    wanted = by_complex_step(cell, u, dy, v, mask)
    _, reference = REGISTRY[f"{cell.name}_double_backward"]
    assert worst(double_backward(cell, reference, u, dy, v, mask, saved, dx), wanted) < 2e-13
    mutants = list(signs(f"{cell.name}_double_backward"))
    assert len(mutants) > 10
    for mutant, where in mutants:
        try:
            found = double_backward(cell, mutant, u, dy, v, mask, saved, dx)
            assert worst(found, wanted) > 1e-3, f"{where}: nobody noticed"
        except (IndexError, ValueError):
            pass  # a sign in an index


@EACH
def test_gradcheck_notices_a_wrong_sign(cell, monkeypatch):
    right = cell.op.double_backward_kernel
    arrays = cell.inputs(2, 2, 1)
    gradcheck(cell.f, *arrays)
    for wrong in range(3 + 2 * cell.states):
        mutant = lambda *a, i=wrong: tuple(-g if j == i else g for j, g in enumerate(right(*a)))  # noqa: E731
        monkeypatch.setattr(cell.op, "double_backward_kernel", staticmethod(mutant))
        with pytest.raises(GradcheckError, match=r"^order 2, (input|cotangent)"):
            gradcheck(cell.f, *arrays)


# --- orders, and what is asked for --------------------------------------------------------------------------------------


@EACH
@BACK_ENDS
def test_a_third_derivative_raises_and_names_the_cell(cell, back_end):
    xs = tensors(cell.inputs(2, 2, 2))
    with mg.mode(back_end):
        (g,) = mg.grad(both(cell.f(*xs))[0].sum(), xs[0], create_graph=True)
        (gg,) = mg.grad((g * g).sum(), xs[0], create_graph=True)
        with pytest.raises(mg.GradientError, match=rf"{cell.op_name}DoubleBackward has no gradient"):
            mg.grad((gg * gg).sum(), xs[0])


@EACH
def test_weight_gradients_are_computed_only_if_somebody_wants_them(cell, monkeypatch):
    wanted = []
    right = cell.op.backward_kernel
    monkeypatch.setattr(cell.op, "backward_kernel", staticmethod(lambda *args: wanted.append(args[-1]) or right(*args)))
    xs = tensors(cell.inputs(2, 2, 2))
    for i in range(len(xs)):
        mg.grad(both(cell.f(*xs))[0].sum(), xs[i])
    assert wanted == [False] * (1 + cell.states) + [True, True]


@EACH
def test_a_freed_graph_says_so(cell):
    xs = tensors(cell.inputs(2, 2, 2))
    (g,) = mg.grad(both(cell.f(*xs))[0].sum(), xs[0], create_graph=True)
    mg.grad((g * g).sum(), xs[0])
    assert "op=" in repr(g)
    with pytest.raises(mg.GradientError, match="freed by an earlier backward"):
        mg.grad((g * g).sum(), xs[0])


@EACH
@pytest.mark.parametrize("gradient", [False, True])
def test_changing_a_result_in_place_does_not_change_gradients_in_silence(cell, gradient):
    """The output is the memory that backward reads; the gradient for x, that which the double backward reads."""
    xs = tensors(cell.inputs(3, 2, 2))
    found = []
    for change in (False, True):
        result = both(cell.f(*xs))[0]
        if gradient:
            (result,) = mg.grad(result.sum(), xs[0], create_graph=True)
        total = result.sum()
        if change:
            result.assign(0.5)
        try:
            found.append(mg.grad(total, xs[-2])[0].data)
        except mg.GradientError:
            return
    np.testing.assert_array_equal(found[1], found[0])


# --- masks --------------------------------------------------------------------------------------------------------------


def gradients(cell, xs, mask, vs):
    """Outputs; gradients for x and states; and of a penalty on them, which is a sum over sequences, for all inputs and vs."""
    outs = both(cell.f(*xs, mask))
    own = xs[: 1 + cell.states]
    first = mg.grad(outs, own, vs, create_graph=True)
    second = mg.grad(sum((g * g * g).sum() for g in first), [*xs, *vs])
    return [y.data for y in outs], [g.data for g in first], [g.data for g in second]


@EACH
@BACK_ENDS
@pytest.mark.parametrize("mask", [RAGGED, HOLES], ids=["ragged", "holes"])
def test_a_padded_batch_is_each_sequence_alone(cell, mask, back_end):
    """Outputs, gradients and second order; where a step does not exist the state is carried on, and gradients are 0."""
    arrays, rng = cell.inputs(5, 4, 3), np.random.default_rng(4)
    x, *states, w, bias = arrays
    v = [rng.standard_normal(s) for s in ((5, 4, 3), (4, 3))[: cell.states]]
    v[0][~mask] = 0.0  # outputs there are copies of earlier ones
    total_w, total_b = np.zeros_like(w), np.zeros_like(bias)
    with mg.mode(back_end):
        outs, first, second = gradients(cell, tensors(arrays), mask, tensors(v))
        for n in range(4):
            there, one = mask[:, n], slice(n, n + 1)
            alone = tensors([x[there][:, one], *(s[one] for s in states), w, bias])
            vs = tensors([v[0][there][:, one], *(c[one] for c in v[1:])])
            y, f, s = gradients(cell, alone, None, vs)
            compare = [(outs[0][there][:, one], y[0]), (outs[0][-1:, one], y[0][-1:]), (first[0][there][:, one], f[0])]
            compare += [(second[0][there][:, one], s[0]), (second[len(arrays)][there][:, one], s[len(arrays)])]
            compare += [(outs[i][one], y[i]) for i in range(1, cell.states)]
            for i in range(1, 1 + cell.states):
                compare += [(first[i][one], f[i]), (second[i][one], s[i])]
            for a, b in compare:
                np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)
            total_w += s[-2 - cell.states]
            total_b += s[-1 - cell.states]
    np.testing.assert_allclose(second[len(arrays) - 2], total_w, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(second[len(arrays) - 1], total_b, rtol=1e-10, atol=1e-13)
    assert not first[0][~mask].any() and not second[0][~mask].any()


@EACH
@BACK_ENDS
def test_a_sequence_of_which_no_step_exists_is_its_initial_state(cell, back_end):
    xs = tensors(cell.inputs(3, 2, 2))
    states = xs[1:-2]
    with mg.mode(back_end):
        outs = both(cell.f(*xs, np.zeros((3, 2), bool)))
        first = mg.grad(outs, xs, [np.full(y.shape, i + 1.0) for i, y in enumerate(outs)])
    np.testing.assert_array_equal(outs[0].data, np.broadcast_to(states[0].data, (3, 2, 2)))
    assert all((y.data == s.data).all() for y, s in zip(outs[1:], states[1:], strict=True))
    assert [np.unique(g.data).tolist() for g in first] == [[0.0], [3.0], [2.0], [0.0], [0.0]][: 1 + cell.states] + [[0.0]] * 2


@EACH
@BACK_ENDS
@pytest.mark.parametrize("junk", [np.nan, np.inf, 1e30])
def test_what_stands_in_the_padding_does_not_matter(cell, junk, back_end):
    arrays, v = cell.inputs(5, 4, 3), np.random.default_rng(4).standard_normal((5, 4, 3))
    found = []
    for filler in (0.0, junk):
        arrays[0][~RAGGED] = filler
        xs = tensors(arrays)
        with mg.mode(back_end), np.errstate(all="ignore"):
            y = both(cell.f(*xs, RAGGED))[0]
            first = mg.grad(y, xs, v, create_graph=True)
            second = mg.grad(sum((g * g).sum() for g in first), xs)
        found.append([t.data for t in (y, *first, *second)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


@EACH
def test_a_mask_may_be_a_list_or_a_tensor_and_is_kept_as_it_was(cell):
    """A loader that fills the same array again is the usual case."""
    xs = tensors(cell.inputs(5, 4, 3))
    expected = mg.grad(both(cell.f(*xs, RAGGED))[0].sum(), xs[0])[0].data
    for mask in (RAGGED.tolist(), mg.tensor(RAGGED), RAGGED.astype(int)):
        np.testing.assert_array_equal(mg.grad(both(cell.f(*xs, mask))[0].sum(), xs[0])[0].data, expected)
    mask = RAGGED.copy()
    y = both(cell.f(*xs, mask))[0].sum()
    mask[...] = True
    np.testing.assert_array_equal(mg.grad(y, xs[0])[0].data, expected)


# --- edges --------------------------------------------------------------------------------------------------------------


@EACH
@BACK_ENDS
def test_an_empty_batch(cell, back_end):
    xs = tensors([a.astype(np.float32) for a in cell.inputs(3, 0, 2)])
    with mg.mode(back_end):
        outs = both(cell.f(*xs))
        first = mg.grad(outs, xs, [np.ones(y.shape) for y in outs], create_graph=True)
        second = mg.grad(sum((g * g).sum() for g in first), xs)
    assert outs[0].shape == (3, 0, 2)
    assert all(not g.data.any() and g.shape == x.shape for g, x in zip((*first, *second), xs + xs, strict=True))


@EACH
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda xs: [xs[0][0], *xs[1:]], r"gates of shape \(4, \d+\) and a weight of shape .*; wanted \(T, N, \d D\)"),
        (lambda xs: [xs[0][..., 1:], *xs[1:]], r"gates of shape \(5, 4, \d+\) and a weight"),
        (lambda xs: [*xs[:-2], xs[-2][1:], xs[-1]], r"gates .* and a weight of shape \(\d+, 3\); wanted .* and \(\d D, D\)"),
        (lambda xs: [xs[0][:0], *xs[1:]], "a sequence of no steps"),
        (lambda xs: [xs[0], xs[1][1:], *xs[2:]], r"an initial state of shape \(3, 3\); wanted \(N, D\) = \(4, 3\)"),
        (lambda xs: [*xs[:-1], xs[-1][1:]], r"a bias of shape \(\d+,\); wanted \(\d D,\) = \(\d+,\)"),
        (lambda xs: [*xs, RAGGED.T], r"a mask of shape \(4, 5\); wanted \(T, N\) = \(5, 4\)"),
    ],
)
def test_bad_shapes(cell, change, message):
    with pytest.raises(ValueError, match=f"^{cell.name}: {message}"):
        cell.f(*change(tensors(cell.inputs(5, 4, 3))))
