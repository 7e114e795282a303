"""Every CUDA kernel against its NumPy reference, on the emulator: the cases of test_parity.py that are small enough.

Three orders of threads; and once in the checked build, which names races, reads of what was never written and accesses outside.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from minigen.kernels import cuda, device_array, emulator

from minigen import dispatch
from minigen.dispatch import REGISTRY

pytestmark = pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))

_spec = importlib.util.spec_from_file_location("parity_of_the_cpu", Path(__file__).with_name("test_parity.py"))
assert _spec is not None and _spec.loader is not None
cpu = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cpu)

DEVICE = [name for name in cpu.CASES if dispatch._find(REGISTRY[name][0], name, "cuda")]
SMALL = 15_000  # numbers in all arguments together: the emulator takes its time
LARGER_TILES = {
    "matmul_forward": [((33, 18), (18, 70)), ((2, 1, 3, 4), (3, 4, 5)), ((70, 40), (40, 35))],
    "linear_forward": [((33, 18), (70, 18), (70,), 0.2), ((70, 40), (35, 40), (35,), 0.0)],
}


def on_the_device(name):
    """The CUDA version, for NumPy arrays; those it changes are changed."""
    f = dispatch._find(REGISTRY[name][0], name, "cuda")

    def call(*arguments):
        moved = [device_array.to_device(a) if isinstance(a, np.ndarray) else a for a in arguments]
        for i in range(cpu.CHANGED.get(name, 0), len(moved)):
            if isinstance(moved[i], device_array.DeviceArray):
                moved[i] = moved[i].T.copy().T  # the same array, as a view with gaps
        result = f(*moved)
        for a, b in zip(arguments[: cpu.CHANGED.get(name, 0)], moved, strict=False):
            a[...] = b.get()
        return None if result is None else tuple(r.get() for r in result) if isinstance(result, tuple) else result.get()

    return call


def small_cases(name, dtype):
    for case in cpu.CASES[name] + LARGER_TILES.get(name, []):
        arguments = cpu.arrays_of(name, case, dtype)
        if sum(np.size(a) for a in arguments) <= SMALL:
            yield case, arguments


@cpu.DTYPES
@pytest.mark.parametrize("name", DEVICE)
def test_values(name, dtype):
    for seed in range(3):
        with cuda.using(cuda.Emulated(seed=seed)):
            for case, arguments in small_cases(name, dtype):
                cpu.compare(on_the_device(name), name, case, arguments, dtype)


@pytest.mark.parametrize("name", DEVICE)
def test_no_race_and_nothing_outside(name):
    with cuda.using(cuda.Emulated(checked=True)):
        for case, arguments in small_cases(name, np.float32):
            cpu.compare(on_the_device(name), name, case, arguments, np.float32)
