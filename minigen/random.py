"""The one source of randomness: seeded, with a state that can be saved.

`mg.seed(n)` fixes a run, and a checkpoint that keeps `get_state()` continues it bit for bit. There are two streams:

- `generator()`, NumPy's, on the CPU: everything random there (initial weights, noise, dropout), and initial weights anywhere;
- `device_state()`, a pair (seed, counter) in device memory: noise and dropout on a device, by `minigen/ops/philox.py`.

So on a device a seed gives the weights it gives on the CPU, and other noise. Data order is separate: a function of seed and
epoch.
"""

from __future__ import annotations

import json
from typing import Any, Literal

import numpy as np

from minigen.device import current
from minigen.tensor import Tensor

Kind = Literal["normal", "uniform"]
_generator = np.random.Generator(np.random.PCG64(0))
_start = np.zeros(2, np.int64)  # where the device's stream begins once it is made: seed, counter
_stream: tuple[Any, Any] | None = None  # the back end it was made on, and the array there


def seed(n: int) -> None:
    """Restart both streams from `n`."""
    global _generator
    _generator = np.random.Generator(np.random.PCG64(n))
    _restart(n, 0)


def generator() -> np.random.Generator:
    return _generator


def device_state() -> Any:
    """(seed, counter) in device memory, int64. Made when first asked for; from then on the same memory, which graphs refer to.

    Another back end has one of its own, which begins where `seed` or `set_state` have put it.
    """
    global _stream
    from minigen.kernels import cuda
    from minigen.kernels.device_array import to_device

    backend = cuda.bare_backend()  # or it would be part of a step that is being captured
    if _stream is None or _stream[0] is not backend:
        with cuda.using(backend):
            _stream = backend, to_device(_start)
    return _stream[1]


def _restart(key: int, counter: int) -> None:
    """Put the device's stream there: into the array that kernels read, and where one made later begins."""
    _start[:] = np.array([int(key) % 2**64, counter], np.uint64).view(np.int64)
    if _stream is not None:
        backend, state = _stream
        backend.upload(state.memory, 0, _start)


def _reached() -> tuple[int, int]:
    """Seed and counter of the device's stream."""
    host = _start.copy()
    if _stream is not None:
        backend, state = _stream
        backend.download(state.memory, 0, host)
    key, counter = host.view(np.uint64).tolist()
    return key, counter


def get_state() -> str:
    """The state of both streams as JSON text."""
    key, counter = _reached()
    return json.dumps({**_generator.bit_generator.state, "device": {"seed": key, "counter": counter}})


def set_state(state: str) -> None:
    """Continue from a state that `get_state` gave. Texts from before there was a device's stream begin that anew."""
    found = json.loads(state)
    there = found.pop("device", {"seed": _reached()[0], "counter": 0})
    _generator.bit_generator.state = found
    _restart(there["seed"], there["counter"])


def draw(kind: Kind, shape: tuple[int, ...], dtype: Any, where: str) -> Any:
    """An array on the device `where`: "normal" (mean 0, variance 1), or "uniform" in [0, 1)."""
    if where == "cpu":
        return _on_the_host(kind, shape, dtype)
    from minigen.kernels import philox

    of = philox.philox_normal_cuda if kind == "normal" else philox.philox_uniform_cuda
    return of(device_state(), shape, dtype)


def _on_the_host(kind: Kind, shape: tuple[int, ...], dtype: Any) -> Any:
    return _generator.standard_normal(shape, dtype=dtype) if kind == "normal" else _generator.random(shape, dtype=dtype)


def randn(*shape: int, dtype: Any = np.float32) -> Tensor:
    """Standard normal draws."""
    return Tensor(draw("normal", shape, dtype, current()))


def rand(*shape: int, dtype: Any = np.float32) -> Tensor:
    """Uniform draws in [0, 1)."""
    return Tensor(draw("uniform", shape, dtype, current()))
