"""The device layer: what a launch checks, and what is said where there is no device."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from minigen.kernels import cuda, emulator, source
from minigen.kernels.device_array import empty, to_device

pytestmark = pytest.mark.skipif(emulator.missing() is not None, reason=str(emulator.missing()))


@pytest.fixture(autouse=True)
def emulated():
    with cuda.using(cuda.Emulated()) as backend:
        yield backend


def fill(y, value=1.0, n=None, grid=1, block=32, real=np.float32, kernel="put", extra=()):
    """One launch of arithmetic.cu's `put`."""
    n = y.size if n is None else n
    cuda.launch("arithmetic", kernel, real, grid, block, [None, value, y, [1] * 5 + [9] + [0] * 17 + [1], n, *extra])


def launch_put(y, layout):
    cuda.launch("arithmetic", "put", np.float32, 1, 1, [None, 1, y, layout, y.size])


def test_a_launch_runs_and_numbers_are_converted():
    y = empty((8,), np.float32)
    fill(y, 3)
    assert (y.get() == 3).all()


def test_a_struct_is_handed_over_as_an_array_of_one_element():
    """The one form of it that CuPy takes."""
    (parameter,) = [p for p in source.kernels(cuda._text("arithmetic"))["put"] if p.of == "Layout"]
    value = cuda._fitted("put", parameter, list(range(24)), np.dtype(np.float32))
    assert value.shape == (1,) and value.dtype == np.dtype("V96")
    assert value.view(np.int32).tolist() == list(range(24))


def test_a_grid_without_blocks_does_nothing():
    y = empty((8,), np.float32)
    fill(y, grid=0)
    assert np.isnan(y.get()).all()


@pytest.mark.parametrize(
    "wrong, error, message",
    [
        (lambda y: fill(empty((8,), np.float64)), TypeError, "y must be float32, not float64"),
        (lambda y: fill(np.zeros(8, np.float32)), TypeError, "y must be a device array, not ndarray"),
        (lambda y: fill(empty((8, 2), np.float32)[:, 0]), ValueError, "y is a view with gaps"),
        (lambda y: fill(y, extra=(1,)), TypeError, "put takes 5 arguments, not 6"),
        (lambda y: fill(y, kernel="puts"), ValueError, "arithmetic.cu has no kernel puts"),
        (lambda y: fill(y, block=2048), ValueError, "larger than a GPU takes"),
        (lambda y: fill(y, grid=(1, 70000)), ValueError, "larger than a GPU takes"),
        (lambda y: fill(y, n=2**31), ValueError, "n = 2147483648 does not fit into int32"),
        (lambda y: launch_put(y, layout=[1] * 23), TypeError, "at is 24 integers, not 23"),
    ],
)
def test_what_a_launch_refuses(wrong, error, message):
    with pytest.raises(error, match=message):
        wrong(empty((8,), np.float32))


def test_a_kernel_that_writes_outside_is_found_without_the_checked_build():
    y = empty((8,), np.float32)
    with pytest.raises(emulator.KernelFault, match="put wrote outside of an array"):
        fill(y, n=9)


def test_and_named_with_it():
    with cuda.using(cuda.Emulated(checked=True)):
        y = empty((8,), np.float32)
        with pytest.raises(emulator.KernelFault, match=r"put: arithmetic.cu:\d+: thread 8 of block 0 writes 4 bytes outside"):
            fill(y, n=9)


def say(code, **environment):
    """What a fresh interpreter prints."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MINIGEN_CUDA")}
    done = subprocess.run([sys.executable, "-c", code], env=kept | environment, capture_output=True, text=True)
    return done.stdout + done.stderr


CHOICE = """
from minigen.kernels import cuda
try:
    print(cuda.backend().name, cuda.backend().seed)
except cuda.DeviceError as e:
    print("no:", e)
"""


def test_the_environment_chooses():
    assert say(CHOICE, MINIGEN_CUDA="emulated", MINIGEN_CUDA_SEED="3") == "emulated 3\n"
    assert say(CHOICE, MINIGEN_CUDA="opencl") == "no: MINIGEN_CUDA=opencl: it may be 'emulated', or not set\n"
    assert "no: MINIGEN_CUDA=emulated: g++ is not installed" in say(CHOICE, MINIGEN_CUDA="emulated", PATH="")


@pytest.mark.skipif(cuda.status() is None, reason="there is a GPU here")
def test_without_a_gpu_the_first_thing_missing_is_named():
    assert say(CHOICE) == f"no: {cuda.status()}\n"


def test_arrays_come_back_as_they_went():
    for dtype in (np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_):
        host = (np.random.default_rng(0).random((3, 0, 2) if dtype == np.bool_ else (3, 4)) * 9).astype(dtype)
        back = to_device(host).get()
        assert back.dtype == host.dtype and np.array_equal(back, host)
    with pytest.raises(TypeError, match=r"device arrays are bool, .* not complex128"):
        to_device(np.zeros(3, complex))
