"""Where arrays live: "cpu", and what is missing for "cuda"."""

from __future__ import annotations

import importlib.util

from minigen.errors import UserError

DEVICES = ("cpu", "cuda")


def cuda_status() -> str:
    """One line: why a GPU cannot be used here."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed"
    from minigen.kernels import cuda

    return cuda.status()


def require(device: str) -> None:
    """Raise UserError unless tensors can live on `device`."""
    if device not in DEVICES:
        raise UserError(f"no device {device!r}; choose from {', '.join(DEVICES)}")
    if device == "cuda":
        raise UserError(f"cannot use --device cuda: {cuda_status()}; use --device cpu")
