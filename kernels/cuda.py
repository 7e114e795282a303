"""The only file that imports CuPy: what a GPU would need here, by name."""

from __future__ import annotations

import importlib.util


def status() -> str:
    """One line that names the first thing missing: CuPy, a driver or device, or the CUDA kernels themselves."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed"
    try:
        import cupy
    except ImportError as e:
        return f"CuPy is installed but does not import (wrong wheel for this CUDA?): {e}"
    if not cupy.cuda.is_available():
        return "CuPy is installed but finds no driver or no device"
    return "a GPU was found, but this version has no CUDA kernels"
