"""Where arrays live: "cpu" for NumPy's, "cuda" for those of `kernels/device_array.py`, and how they get there.

`MINIGEN_CUDA=emulated` lets "cuda" be this computer: see `kernels/emulator/`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from minigen.errors import UserError

DEVICES = ("cpu", "cuda")
_where = "cpu"


@contextlib.contextmanager
def on(device: str) -> Iterator[None]:
    """Inside the block, `place` and everything made with it is on `device`: weights, noise, batches. UserError without one."""
    global _where
    require(device)
    before, _where = _where, device
    try:
        yield
    finally:
        _where = before


def place(array: Any) -> Any:
    """A NumPy array, on the device that work is done on."""
    return array if _where == "cpu" else to_device(array, _where)


def synchronize(device: str) -> None:
    """Wait until the device has done everything it was given."""
    if device == "cpu":
        return
    from minigen.kernels import cuda

    cuda.backend().synchronize()


def is_array(x: Any) -> bool:
    """Whether x is an array of either kind (and not a Tensor)."""
    return isinstance(x, np.ndarray) or hasattr(x, "__array_function__")


def cuda_status() -> str:
    """One line: what runs CUDA kernels here, or why nothing can."""
    from minigen.kernels import cuda

    try:
        return f"kernels run on {cuda.backend().describe()}"
    except cuda.DeviceError as e:
        return f"{e} ({_emulator()})"


def _emulator() -> str:
    from minigen.kernels import emulator

    return emulator.missing() or "MINIGEN_CUDA=emulated runs the kernels on this computer, slowly"


def require(device: str) -> None:
    """Raise UserError unless tensors can live on `device`."""
    if device not in DEVICES:
        raise UserError(f"no device {device!r}; choose from {', '.join(DEVICES)}")
    if device == "cuda":
        from minigen.kernels import cuda

        try:
            cuda.backend()
        except cuda.DeviceError as e:
            raise UserError(f"cannot use --device cuda: {e}; use --device cpu") from None


def to_host(array: Any) -> Any:
    """The array itself if NumPy owns it; otherwise a copy that it does."""
    return array if isinstance(array, (np.ndarray, np.generic)) else array.get()


def to_device(array: Any, device: str) -> Any:
    """The array on `device`: itself, if it is there. Raises UserError if there is no such device."""
    require(device)
    if device == "cpu":
        return to_host(array)
    from minigen.kernels.device_array import to_device

    return to_device(array)
