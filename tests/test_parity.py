"""Every CPU kernel against its NumPy reference: values, signatures, threads, NaN, and memory that is not contiguous.

The exact answer is the reference in float64, on the numbers that the kernel is given. A kernel may differ by as many
epsilons of the largest entry as its longest sum has terms. Where there is no CPU kernel there is nothing to compare, and no
test; it turns on with the kernel.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from typing import NamedTuple

import numpy as np
import pytest

import minigen as mg
import minigen.ops  # these two fill the registry
import minigen.optim
from minigen import dispatch
from minigen.dispatch import REGISTRY

DTYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def conv_cases(order):
    """Arguments of one of the three convolutions, `order` naming which of x, w, y it takes and what it is told beside."""
    geometries = [  # n, i, o, image, kernel, stride, padding, dilation
        (1, 1, 1, (1, 1), (1, 1), (1, 1), (0, 0), (1, 1)),
        (3, 2, 5, (9, 7), (3, 2), (2, 1), (1, 2), (1, 2)),
        (2, 3, 1, (6, 11), (1, 5), (1, 3), (0, 2), (1, 1)),
        (7, 24, 17, (14, 13), (4, 4), (2, 2), (1, 1), (1, 1)),
        (2, 19, 33, (8, 8), (3, 3), (1, 1), (2, 2), (2, 2)),
    ]
    for n, i, o, size, kernel, stride, padding, dilation in geometries:
        out = tuple(
            (h + 2 * p - d * (k - 1) - 1) // s + 1
            for h, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
        )
        shapes = {"x": (n, i, *size), "w": (o, i, *kernel), "y": (n, o, *out)}
        beside = {"xw": (), "yw": (size,), "xy": (kernel,)}[order]
        yield (*(shapes[letter] for letter in order), stride, padding, dilation, *beside)


class ScanCase(NamedTuple):
    """Arguments of one of a recurrent cell's three kernels. What a sweep reads, the sweeps before it have computed."""

    cell: str
    which: str  # forward, backward, double_backward
    sizes: tuple[int, int, int]  # T, N, D
    masked: bool  # whether some steps do not exist
    want_w: bool  # the backward's; in the double backward, whether there is a vw

    def __call__(self, rng, poisoned=None):
        (t, n, d), (gates, biases, states) = self.sizes, SCANS[self.cell]
        shapes = (t, n, gates * d), *[(n, d)] * states, (gates * d, d), (biases * d,)
        scales = 1.0, *[0.5] * states, 1 / np.sqrt(d), 0.5  # a larger weight would make errors grow from step to step
        u, v = ([scale * rng.standard_normal(s) for s, scale in zip(shapes, scales, strict=True)] for _ in "uv")
        dy = [rng.standard_normal(s) for s in ((t, n, d), (n, d))[:states]]
        poison([*u, *dy, *v], poisoned)
        mask = rng.random((t, n)) < (0.7 if self.masked else 2.0)
        if self.which == "forward":
            return [*u, mask]
        saved = REGISTRY[f"{self.cell}_forward"][1](*u, mask)
        if self.which == "backward":
            return [*dy, *saved, u[-2], mask, self.want_w]
        dx, *_ = REGISTRY[f"{self.cell}_backward"][1](*dy, *saved, u[-2], mask, True)
        return [*v[:-2], v[-2] if self.want_w else None, v[-1], *dy, dx, *saved, u[-2], mask]

    def poisonable(self):
        """How many of u, dy, v this kernel knows of: NaN in other arguments is where these put it."""
        states = SCANS[self.cell][2]
        u = v = 3 + states
        return range({"forward": u, "backward": u + states, "double_backward": u + states + v}[self.which])

    def specified(self, results):
        """Gradients of w and bias that nobody wants may be anything."""
        return results[:-2] if self.which == "backward" and not self.want_w else results


SCANS = {"rnn": (1, 1, 1), "gru": (3, 4, 1), "gru_cho": (3, 3, 1), "lstm": (4, 4, 2)}  # G / D, biases / D, initial states
SWEEPS = [  # (T, N, D), masked, want_w
    ((1, 1, 1), False, True),
    ((1, 5, 3), True, False),
    ((30, 3, 1), True, True),
    ((3, 17, 2), False, False),
    ((9, 16, 16), False, True),
    ((30, 7, 33), True, True),
    ((5, 33, 64), True, False),
    ((4, 50, 130), True, True),
]


def scan_cases():
    return {
        f"{cell}_{which}": [ScanCase(cell, which, *sweep) for sweep in SWEEPS]
        for cell in SCANS
        for which in ("forward", "backward", "double_backward")
    }


# Lists of arguments, in which a tuple stands for an array of that shape, and np.floating for the dtype that is compared; or
# functions of a Generator that make them.
ROWS = [(5, 3, 7), (1, 1, 2), (33, 17, 1), (6, 64, 49), (2, 130, 5)]  # (N, C, L)
FLAT = [(1, 1), (5, 7), (64, 33), (130, 257)]  # (N, D)
MATRICES = [((1, 1), (1, 1)), ((5, 7), (7, 3)), ((64, 100), (100, 1)), ((130, 257), (257, 190)), ((3, 4, 5), (5, 2))]
LAYERS = [(1, 1, 1), (5, 7, 3), (64, 100, 33), (300, 40, 130), (3, 130, 1)]  # (N, in, out)
DRAWS = [(np.array([7, 9]), shape, np.floating) for shape in ([0], [1], [6], [3, 5, 7], [])]


def _targets(n, k):
    """A class for each of n rows, all k in turn."""
    return np.arange(n) * 7 % k


def _norm_backward(n, c, l):
    return (n, c, l), (n, c, l), (n, c, l), (c,), (c,), (c,), 0.2


CASES = {
    "vq_forward": [((1, 1), (1, 1)), ((5, 3), (2, 3)), ((300, 64), (513, 64)), ((70, 5), (1, 5))],
    "matmul_forward": MATRICES,
    "linear_forward": [((n, i), (o, i), (o,), slope) for n, i, o in LAYERS for slope in (1.0, 0.2, 0.0)],
    "conv2d_forward": list(conv_cases("xw")),
    "conv_transpose2d_forward": list(conv_cases("yw")),
    "conv2d_weight_grad_forward": list(conv_cases("xy")),
    "bias_act_forward": [((n, c, l), (c,), slope) for n, c, l in ROWS for slope in (1.0, 0.2, 0.0)],
    "bias_act_backward": [((n, c, l), (n, c, l), slope) for n, c, l in ROWS for slope in (1.0, 0.2, 0.0)],
    "softmax_forward": [((n, k),) for n, k in FLAT],
    "softmax_backward": [((n, k), (n, k)) for n, k in FLAT],
    "log_softmax_forward": [((n, k),) for n, k in FLAT],
    "log_softmax_backward": [((n, k), (n, k)) for n, k in FLAT],
    "cross_entropy_forward": [((n, k), _targets(n, k)) for n, k in FLAT],
    "cross_entropy_backward": [((n,), (n, k), _targets(n, k)) for n, k in FLAT],
    "batch_norm_forward": [((n, c, l), (c,), (c,), 1e-5, slope) for n, c, l in ROWS for slope in (1.0, 0.2)],
    "batch_norm_backward": [_norm_backward(*ncl) for ncl in ROWS],
    "layer_norm_forward": [((n, d), (d,), (d,), 1e-5) for n, d in FLAT if d > 1],
    "layer_norm_backward": [((n, d), (n, d), (n,), (n,), (d,)) for n, d in FLAT],
    "adam_update": [(s, s, s, s, np.array([1e-3, 0.99, 1.7]), 0.9, 0.999, 1e-8) for s in [(1,), (5, 7), (130, 257), (70_001,)]],
    "gather_forward": [((5, 3), np.array([[0, 4], [4, 2]])), ((7,), np.array([6]))],
    "scatter_add_forward": [((2, 2, 3), np.array([[0, 4], [4, 2]]), 5), ((1,), np.array([6]), 7)],
    "philox_uniform": DRAWS,
    "philox_normal": DRAWS,
    **scan_cases(),
}
CHANGED = {"adam_update": 3, "philox_uniform": 1, "philox_normal": 1}  # how many of the first arguments are written to
POSITIVE = {"adam_update": {2}, "batch_norm_backward": {4}, "layer_norm_backward": {3}}  # a variance, 1 / std


def is_shape(argument, name, position):
    """Whether an argument stands for an array: a tuple, but not one of a convolution's pairs."""
    return isinstance(argument, tuple) and not (name.startswith("conv") and position >= 2)


def is_float(argument):
    return isinstance(argument, np.ndarray) and argument.dtype.kind == "f"


def poison(arrays, which):
    """One NaN, in the middle of array number `which`, if it is a number."""
    if which is not None:
        arrays[which].flat[arrays[which].size // 2] = np.nan


def poisonable(name, case):
    """What `drawn` may be told to poison."""
    return case.poisonable() if callable(case) else [i for i, a in enumerate(case) if is_shape(a, name, i)]


def drawn(name, case, poisoned=None):
    """The arguments, in float64; with one NaN in the array number `poisoned`."""
    rng = np.random.default_rng(0)
    if callable(case):
        return case(rng, poisoned)
    made = []
    for position, argument in enumerate(case):
        if is_shape(argument, name, position):
            a = rng.standard_normal(argument)
            argument = np.abs(a) + 0.5 if position in POSITIVE.get(name, ()) else a
        made.append(argument)
    poison(made, poisoned)
    return made


def arrays_of(name, case, dtype, strided=False, poisoned=None):
    """The arguments with floats in `dtype`; strided: in no order contiguous, but for what is written to, which must be."""
    found = []
    for position, argument in enumerate(drawn(name, case, poisoned)):
        if isinstance(argument, np.ndarray):
            argument = argument.astype(dtype if is_float(argument) else argument.dtype)
        elif argument is np.floating:
            argument = np.dtype(dtype)
        if strided and position >= CHANGED.get(name, 0) and isinstance(argument, np.ndarray) and argument.dtype.kind in "fb":
            roomy = np.full(tuple(2 * n + 1 for n in argument.shape[::-1]), np.nan).astype(argument.dtype)
            view = roomy[tuple(slice(1, None, 2) for _ in argument.shape)].T
            view[...] = argument
            argument = view
        found.append(argument)
    return found


def outputs(f, name, case, arguments):
    """What f returns, and after it the arguments it changes."""
    result = f(*arguments)
    returned = () if result is None else result if isinstance(result, tuple) else (result,)
    found = [np.asarray(a) for a in (*returned, *arguments[: CHANGED.get(name, 0)])]
    return case.specified(found) if isinstance(case, ScanCase) else found


def kernel_of(name):
    return dispatch._find(REGISTRY[name][0], name, "cpu")


COMPILED = [name for name in CASES if kernel_of(name)]


def terms(case, arguments):
    """No sum is longer than the largest array. In a scan the terms have either sign, and an error shrinks from step to step."""
    return 100 if isinstance(case, ScanCase) else min(2000, max([16, *(a.size for a in arguments if is_float(a))]))


def test_every_function_is_compared():
    assert set(CASES) == set(REGISTRY)


def compare(f, name, case, arguments, dtype):
    """f gives what the reference gives in float64, to rounding in `dtype`."""
    copies = [a.astype(np.float64 if is_float(a) else a.dtype) if isinstance(a, np.ndarray) else a for a in arguments]
    exact = outputs(REGISTRY[name][1], name, case, copies)
    found = outputs(f, name, case, arguments)
    assert [a.shape for a in found] == [a.shape for a in exact], case
    assert [a.dtype for a in found] == [dtype if e.dtype.kind == "f" else e.dtype for e in exact], case
    for a, e in zip(found, exact, strict=True):
        limit = terms(case, arguments) * np.finfo(dtype).eps * max(np.abs(e).max(initial=0), 1e-3)
        np.testing.assert_allclose(a, e, rtol=0, atol=limit, err_msg=str(case))


@DTYPES
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("name", COMPILED)
def test_values(name, strided, dtype):
    f = kernel_of(name)
    for case in CASES[name]:
        arguments = arrays_of(name, case, dtype, strided)
        kept = [np.array(a) for a in arguments[CHANGED.get(name, 0) :]]
        compare(f, name, case, arguments, dtype)
        for a, before in zip(arguments[CHANGED.get(name, 0) :], kept, strict=True):
            np.testing.assert_array_equal(a, before, err_msg=f"{case}: an input was modified")


@DTYPES
@pytest.mark.parametrize("name", COMPILED)
def test_one_thread_and_two_give_the_same_bits(name, dtype):
    f = kernel_of(name)
    import numba
    from minigen.kernels.threads import get_num_threads, set_num_threads

    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("a pool of one thread")
    before = get_num_threads()
    try:
        for case in CASES[name]:
            found = []
            for threads in (1, 2, 2):
                set_num_threads(threads)
                found.append([a.tobytes() for a in outputs(f, name, case, arrays_of(name, case, dtype))])
            assert found[0] == found[1] == found[2], case
    finally:
        set_num_threads(before)


@pytest.mark.parametrize("name", COMPILED)
def test_a_nan_reaches_the_same_places(name):
    f, reference = kernel_of(name), REGISTRY[name][1]
    for case in CASES[name]:
        if isinstance(case, ScanCase) and np.prod(case.sizes) > 3000:
            continue  # one NaN at a time in each of up to 15 arrays: small ones will do
        for poisoned in poisonable(name, case):
            pair = []
            for g in (f, reference):
                arguments = arrays_of(name, case, np.float32, poisoned=poisoned)
                pair.append([np.isnan(a) for a in outputs(g, name, case, arguments)])
            for found, expected in zip(*pair, strict=True):
                np.testing.assert_array_equal(found, expected, err_msg=f"{case}, NaN in argument {poisoned}")


@pytest.mark.parametrize("name", COMPILED)
def test_signatures(name):
    """Same parameters, same order: a reader of one knows the others."""
    stem, reference = REGISTRY[name]
    module = importlib.import_module(f"minigen.kernels.{stem}")
    found = {
        n: list(inspect.signature(getattr(module, n)).parameters) for n in (f"{name}_cpu", f"{name}_cuda") if hasattr(module, n)
    }
    expected = list(inspect.signature(reference).parameters)
    assert found == dict.fromkeys(found, expected)


def test_no_kernel_is_an_orphan():
    """A kernel under a name that the dispatcher does not look for would never run, and nobody would notice."""
    for stem in {s for s, _ in REGISTRY.values()}:
        if importlib.util.find_spec(f"minigen.kernels.{stem}") is None:
            continue
        module = vars(importlib.import_module(f"minigen.kernels.{stem}"))
        for device in ("_cpu", "_cuda"):
            reached = [module.get(name + device) for name in REGISTRY]
            assert [n for n, f in module.items() if n.endswith(device) and f not in reached] == []


# --- the dispatcher


def test_the_mode_decides(monkeypatch):
    calls = []
    monkeypatch.setattr(dispatch, "_find", lambda stem, name, device: lambda a: calls.append(device) or a)

    @dispatch.kernel("nowhere")
    def doubled(a):
        return a * 2

    monkeypatch.delitem(REGISTRY, "doubled")
    ones = np.ones(2, np.float32)
    assert doubled(ones).tolist() == [1, 1] and calls == ["cpu"]
    with mg.mode("reference"):
        assert doubled(ones).tolist() == [2, 2]
        with mg.mode("auto"):
            assert doubled(ones).tolist() == [1, 1]
        assert doubled(ones).tolist() == [2, 2]
    assert doubled(ones + 1j).tolist() == [2 + 2j] * 2  # the complex-step check runs on the reference
    with pytest.raises(ValueError, match="mode is one of auto, reference, not 'fast'"), mg.mode("fast"):
        pass


def test_a_device_array_never_falls_back(monkeypatch):
    @dispatch.kernel("nowhere")
    def doubled(a):
        return a * 2

    monkeypatch.delitem(REGISTRY, "doubled")
    assert doubled(np.ones(2)).tolist() == [2, 2]  # no CPU version: the reference
    with pytest.raises(NotImplementedError, match=r"doubled has no CUDA version \(minigen/kernels/nowhere.py\)"):
        doubled(memoryview(b"not a NumPy array"))
