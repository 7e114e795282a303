"""What a file named after a kernel's stem holds: `cases() -> list[Case]`, shapes with counts of operations and bytes.

A case is verified, then timed: the kernel's float32 results against the NumPy reference in float64.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from minigen.kernels import blas, threads

from benchmarks.harness.agree import check, host
from minigen.device import to_device, to_host
from minigen.dispatch import REGISTRY, mode

Args = tuple[Any, ...]
TF32_TOLERANCE = 1e-2  # the factors of a product are rounded to ten bits, 5e-4, and a recurrence adds that up


@dataclass(frozen=True)
class Case:
    kernel: str  # a name that @kernel registered
    shape: str  # what the table calls it, 20 characters or so
    args: Callable[[np.random.Generator], Args]  # float32 arrays, integer arrays, numbers
    flops: int  # a multiply-add is two
    nbytes: int  # every input read once, every output written once
    torch: Callable[..., Any] | None  # the same from the same arguments, arrays as torch tensors; None: PyTorch has none
    changes: int = 0  # how many leading arguments it updates in place: its results
    tolerance: float = 1e-5  # relative to the reference, in Euclidean norm
    # Where PyTorch cannot take the same arguments, its own from the same draws, and which of the kernel's results it gives.
    torch_args: Callable[[np.random.Generator, str], Args] | None = None  # on a device, as PyTorch calls it
    torch_part: Callable[[list[Any]], list[Any]] | None = None


def normal(*shapes: tuple[int, ...], then: Args = ()) -> Callable[[np.random.Generator], Args]:
    """Arguments: arrays of these shapes from N(0, 1), followed by `then`."""
    return lambda rng: (*(rng.standard_normal(shape, dtype=np.float32) for shape in shapes), *then)


def dispatched(name: str) -> Callable[..., Any]:
    """The kernel as ops call it."""
    importlib.import_module("minigen.ops")
    return getattr(importlib.import_module(REGISTRY[name][1].__module__), name)  # type: ignore[no-any-return]


def reference(name: str, *args: Any) -> Any:
    """What the NumPy reference returns."""
    with mode("reference"), _one_blas_thread():
        return REGISTRY[name][1](*args)


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """References call many small products, and on a busy machine BLAS's threads wait for each other longer than they work."""
    before = blas._get_threads() if blas._get_threads and blas._set_threads else None
    if before is not None:
        blas._set_threads(1)
    try:
        yield
    finally:
        if before is not None:
            blas._set_threads(before)


def is_compiled(name: str) -> bool:
    """Whether there is a CPU version; if not, what runs is the NumPy reference."""
    try:
        module = importlib.import_module(f"minigen.kernels.{REGISTRY[name][0]}")
    except ModuleNotFoundError:
        return False
    return hasattr(module, f"{name}_cpu")


def copy(args: Args, dtype: Any = None) -> Args:
    """Fresh arrays with the same strides; floating-point ones in `dtype`."""
    return tuple(
        a.astype(dtype if dtype and a.dtype.kind == "f" else a.dtype, order="K", copy=True) if isinstance(a, np.ndarray) else a
        for a in args
    )


def moved(args: Args, device: str) -> Args:
    """The arguments with their floating-point arrays on a device, and the first, for it says which version is called."""
    return tuple(
        to_device(a, device) if isinstance(a, np.ndarray) and (i == 0 or a.dtype.kind == "f") else a for i, a in enumerate(args)
    )


def on_device(f: Callable[..., Any], device: str, changes: int) -> Callable[..., Any]:
    """f, computed on a device for arrays of the CPU; those it changes are changed."""

    def call(*args: Any) -> Any:
        there = moved(args, device)
        returned = f(*there)
        for a, b in zip(args[:changes], there, strict=False):
            a[...] = to_host(b)
        several = returned if isinstance(returned, (tuple, list)) else () if returned is None else (returned,)
        return tuple(to_host(r) for r in several)

    return call


def torch_args(case: Case, args: Args, seed: int, device: str = "cpu") -> Args:
    """What PyTorch's function is given on a device: the numbers of `args`, which are case.args(default_rng(seed))."""
    import torch

    if case.torch_args is not None:
        return case.torch_args(np.random.default_rng(seed), device)
    return tuple(torch.from_numpy(a).to(device) if isinstance(a, np.ndarray) else a for a in copy(args))


def verify(case: Case, args: Args, f: Callable[..., Any]) -> float:
    """The largest error of f(*copy of args); raises Disagreement if it is above the case's tolerance."""
    return _compare(_results(case, f, copy(args)), wanted(case, args), case.tolerance)


def verify_torch(case: Case, args: Args, right: list[Any], tf32: bool = False) -> float:
    """The same for PyTorch's function on `args`, which `torch_args` gave; `right`: what is wanted.

    With TF32 on, numbers are compared to three digits, and codes that were chosen by them not at all.
    """
    assert case.torch is not None
    right = right if case.torch_part is None else case.torch_part(right)
    results = _results(case, case.torch, args)
    if tf32:
        pairs = [(a, b) for a, b in zip(results, right, strict=True) if b.dtype.kind == "f"]
        results, right = [a for a, _ in pairs], [b for _, b in pairs]
    return _compare(results, right, TF32_TOLERANCE if tf32 else case.tolerance)


def wanted(case: Case, args: Args) -> list[Any]:
    """The reference's results, in float64."""
    return _results(case, lambda *a: reference(case.kernel, *a), copy(args, np.float64))


def _compare(found: list[Any], right: list[Any], tolerance: float) -> float:
    return max((check(f"result {i}", a, b, tolerance) for i, (a, b) in enumerate(zip(found, right, strict=True))), default=0.0)


def _results(case: Case, f: Callable[..., Any], args: Args) -> list[Any]:
    returned = f(*args)
    if case.changes:
        return [host(a) for a in args[: case.changes]]
    return [host(a) for a in (returned if isinstance(returned, (tuple, list)) else [returned])]


def second_level_cache() -> int:
    """Bytes of it that the threads have between them, as the system says; 2 MiB each where it does not."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text().strip()
        each = int(text.rstrip("KM")) << (20 if text.endswith("M") else 10)
    except (OSError, ValueError):
        each = 2 << 20
    return each * threads.get_num_threads()


def copies(args: Args) -> int:
    """How many sets of arguments take turns, so that each finds its own no longer in the second-level cache.

    In training, what a kernel reads was written some kernels ago: it may lie in the last-level cache, seldom nearer.
    """
    size = sum(a.nbytes for a in args if isinstance(a, np.ndarray))
    return max(2, min(64, 2 * second_level_cache() // max(size, 1)))


def rotating(f: Callable[..., Any], sets: list[Args]) -> Callable[[], Any]:
    """A call of `f` on the next set of arguments."""
    turn = itertools.cycle(sets)
    return lambda: f(*next(turn))
