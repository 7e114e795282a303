"""The CUDA kernels of the recurrent scans, on the emulator: both versions against the references, and finite differences."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from minigen.kernels import cuda, device_scan, emulator
from minigen.kernels.device_array import DeviceArray, to_device

from minigen.dispatch import REGISTRY

pytestmark = pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))

SCANS = {"rnn": (1, 1, 1), "gru": (3, 4, 1), "gru_cho": (3, 3, 1), "lstm": (4, 4, 2)}  # gates of w and of the bias, states
CELLS = pytest.mark.parametrize("cell", SCANS)
SWEEPS = pytest.mark.parametrize("sweep", ["forward", "backward", "double_backward"])
VERSIONS = pytest.mark.parametrize("version", ["step", "scan"], indirect=True)
# T, N, D; whether there is a mask; whether the gradient of w is wanted and, in the double backward, has a cotangent. Sequences
# fill a block of 4 and do not; the gates of 150 units are more than a block's 512 threads.
SIZES = [
    ((5, 3, 4), True, True),
    ((1, 3, 2), False, False),
    ((4, 1, 3), True, False),
    ((1, 1, 1), False, True),
    ((3, 9, 17), True, True),
    ((2, 5, 150), False, True),
]


@pytest.fixture
def version(request, monkeypatch):
    """Force a version, and see afterwards that no other ran."""
    monkeypatch.setattr(device_scan, "PERSISTENT", {"step": 0, "scan": 10**6}[request.param])
    ran = []

    def recording(launch):
        def recorded(stem, kernel, *rest, **more):
            ran.append(kernel)
            launch(stem, kernel, *rest, **more)

        return recorded

    for name in ("launch", "launch_each"):
        monkeypatch.setattr(device_scan, name, recording(getattr(device_scan, name)))
    yield request.param
    assert ran and all(kernel.endswith(f"_{request.param}") for kernel in ran)


def arguments(cell, sweep, sizes, masked, want_w, poisoned=None):
    """What a sweep is given, in float64, some of it by the sweeps before. `poisoned`: in which argument a NaN is put."""
    (t, n, d), (gates, biases, states), rng = sizes, SCANS[cell], np.random.default_rng(0)
    shapes = (t, n, gates * d), *[(n, d)] * states, (gates * d, d), (biases * d,)
    scales = 1.0, *[0.5] * states, 1 / np.sqrt(d), 0.5  # a larger weight would make errors grow from step to step
    u, v = ([scale * rng.standard_normal(s) for s, scale in zip(shapes, scales, strict=True)] for _ in "uv")
    dy = [rng.standard_normal(s) for s in ((t, n, d), (n, d))[:states]]
    if poisoned is not None:
        [*u, *dy, *v][poisoned].flat[-1] = np.nan
    mask = rng.random((t, n)) < (0.7 if masked else 2.0)
    if sweep == "forward":
        return [*u, mask]
    saved = REGISTRY[f"{cell}_forward"][1](*u, mask)
    if sweep == "backward":
        return [*dy, *saved, u[-2], mask, want_w]
    dx, *_ = REGISTRY[f"{cell}_backward"][1](*dy, *saved, u[-2], mask, True)
    return [*v[:-2], v[-2] if want_w else None, v[-1], *dy, dx, *saved, u[-2], mask]


def numbers(a):
    return isinstance(a, np.ndarray) and a.dtype != bool


def on_device(cell, sweep, given, place=to_device):
    """The CUDA function's results as NumPy arrays. The mask is handed over as it is."""
    function = getattr(importlib.import_module(f"minigen.kernels.{cell}"), f"{cell}_{sweep}_cuda")
    placed = [place(a) if numbers(a) else a for a in given]
    results = function(*placed)
    assert all(isinstance(r, DeviceArray) for r in results)
    for a, p in zip(given, placed, strict=True):
        if numbers(a):
            np.testing.assert_array_equal(p.get(), a, err_msg="an input was changed")
    return [r.get() for r in results]


def exact(cell, sweep, given):
    return REGISTRY[f"{cell}_{sweep}"][1](*[a.astype(np.float64) if numbers(a) else a for a in given])


def close(found, wanted, tolerance):
    for i, (f, w) in enumerate(zip(found, wanted, strict=True)):
        np.testing.assert_allclose(f, w, rtol=0, atol=tolerance * np.abs(w).max(), err_msg=f"result {i}")


# Relative to the largest entry. A sum of K terms may be wrong by K/2 epsilons of their sizes; the longest here has 600 (dh,
# over the gates), but errors mostly cancel. 1e-5 is 84 epsilons of float32.
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-5)])
@CELLS
@SWEEPS
@VERSIONS
def test_values_are_the_references_in_any_order_of_threads(cell, sweep, version, dtype, tolerance):
    for sizes, masked, want_w in SIZES:
        given = [a.astype(dtype) if numbers(a) else a for a in arguments(cell, sweep, sizes, masked, want_w)]
        results = []
        for seed in (1, 2, 3):
            with cuda.using(cuda.Emulated(seed=seed)):
                results.append(on_device(cell, sweep, given))
        close(results[0], exact(cell, sweep, given), tolerance)
        assert all(r.dtype == dtype for r in results[0])
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(a, b, err_msg="it depends on the order of threads")


@CELLS
@SWEEPS
@VERSIONS
def test_no_races_and_no_reads_of_what_nobody_wrote(cell, sweep, version):
    with cuda.using(cuda.Emulated(checked=True)):
        for sizes in ((3, 5, 4), (2, 1, 33)):
            given = arguments(cell, sweep, sizes, True, True)
            close(on_device(cell, sweep, given), exact(cell, sweep, given), 1e-10)


@CELLS
@SWEEPS
@VERSIONS
def test_arrays_may_be_views_with_gaps(cell, sweep, version):
    def apart(a):
        return to_device(np.stack([a, 0 * a], axis=-1))[..., 0]

    given = arguments(cell, sweep, (3, 5, 4), True, True)
    with cuda.using(cuda.Emulated()):
        close(on_device(cell, sweep, given, apart), exact(cell, sweep, given), 1e-10)


@CELLS
@SWEEPS
@VERSIONS
def test_not_a_number_spreads_as_in_the_reference(cell, sweep, version):
    states = SCANS[cell][2]
    count = {"forward": 3 + states, "backward": 3 + 2 * states, "double_backward": 6 + 3 * states}[sweep]
    for poisoned in range(count):
        given = arguments(cell, sweep, (4, 3, 2), True, True, poisoned)
        with cuda.using(cuda.Emulated()):
            found = on_device(cell, sweep, given)
        for f, w in zip(found, exact(cell, sweep, given), strict=True):
            np.testing.assert_array_equal(np.isnan(f), np.isnan(w), err_msg=f"NaN in argument {poisoned}")


@CELLS
@VERSIONS
def test_the_mask_may_be_on_the_device(cell, version):
    *given, mask = arguments(cell, "forward", (4, 3, 2), True, True)
    with cuda.using(cuda.Emulated()):
        function = getattr(importlib.import_module(f"minigen.kernels.{cell}"), f"{cell}_forward_cuda")
        found = [r.get() for r in function(*map(to_device, given), to_device(mask))]
    close(found, exact(cell, "forward", [*given, mask]), 1e-10)


def test_the_version_is_chosen_by_the_hidden_size():
    assert device_scan.persistent(np.empty((3 * 128, 128))) and not device_scan.persistent(np.empty((3 * 129, 129)))
