"""@kernel: one name, three implementations, chosen by where the array lives.

The decorated function is the NumPy reference: it is the definition, and it is what students read. Beside it,
`minigen/kernels/<stem>.py` may hold `<name>_cpu` (Numba) and `<name>_cuda` (raw CUDA), with the same parameters:

    @kernel("conv")
    def conv2d_forward(x_nihw, w_oikk, stride, padding, dilation): ...

- NumPy arrays of float32 and float64 go to `conv2d_forward_cpu` in `kernels/conv.py`, if there is one;
- everything else that NumPy understands (complex numbers, for the complex-step check) goes to the reference;
- device arrays go to `conv2d_forward_cuda`; if that is missing, the call raises: nothing falls back in silence;
- inside `with mode("reference")` the reference always runs.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from minigen.errors import UserError

F = TypeVar("F", bound=Callable[..., Any])
MODES = ("auto", "reference")
REGISTRY: dict[str, tuple[str, Callable[..., Any]]] = {}  # function name -> (stem, reference)
_mode = "auto"
_around: Callable[..., Any] | None = None  # called in a kernel's place, with its name, itself and its reference
_FAST = (np.dtype(np.float32), np.dtype(np.float64))


@contextmanager
def mode(name: str) -> Iterator[None]:
    """Choose what runs inside the block: "auto" (the default) or "reference" (NumPy alone)."""
    global _mode
    if name not in MODES:
        raise ValueError(f"mode is one of {', '.join(MODES)}, not {name!r}")
    previous, _mode = _mode, name
    try:
        yield
    finally:
        _mode = previous


@contextmanager
def around(call: Callable[..., Any]) -> Iterator[None]:
    """Inside the block `call(name, kernel, reference, *args)` is what runs for a kernel."""
    global _around
    previous, _around = _around, call
    try:
        yield
    finally:
        _around = previous


def kernel(stem: str) -> Callable[[F], F]:
    """Make the decorated NumPy reference a name with three implementations; see the module docstring."""

    def decorate(reference: F) -> F:
        name = reference.__name__
        implementations: dict[str, Callable[..., Any] | None] = {}

        @functools.wraps(reference)
        def call(*args: Any) -> Any:
            first = args[0]
            if type(first) is np.ndarray:
                if _mode == "reference" or first.dtype not in _FAST:
                    return reference(*args)
                device = "cpu"
            else:
                device = "cuda"
            if device not in implementations:
                implementations[device] = _find(stem, name, device)
            f = implementations[device]
            if f is None:
                if device == "cuda":
                    raise NotImplementedError(f"{name} has no CUDA version (minigen/kernels/{stem}.py)")
                f = reference
            return f(*args) if _around is None else _around(name, f, reference, *args)

        REGISTRY[name] = (stem, reference)
        return call  # type: ignore[return-value]

    return decorate


def _find(stem: str, name: str, device: str) -> Callable[..., Any] | None:
    """Import `minigen.kernels.<stem>` (this is where Numba is first loaded) and take `<name>_<device>` from it."""
    if importlib.util.find_spec("minigen.kernels") is None:
        raise UserError("minigen runs from its source folder but is not installed: its kernels are missing. pip install -e .")
    module = f"minigen.kernels.{stem}"
    if importlib.util.find_spec(module) is None:
        return None
    found = importlib.import_module(module)
    if device == "cpu" and not getattr(found, "available", True):
        return None  # no BLAS that Numba can call: the reference, which NumPy's own BLAS serves, is the fast version
    return getattr(found, f"{name}_{device}", None)
