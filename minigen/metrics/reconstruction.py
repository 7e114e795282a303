"""How close a reconstruction is.

    PSNR = 10 log10(255^2 / MSE)     in dB, the mean squared error over all values of all images, in bytes 0..255

    >>> x = np.zeros((1, 1, 2, 2), np.uint8)
    >>> round(psnr(x, x + np.uint8(1)), 2)
    48.13
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def psnr(x: Any, y: Any) -> float:
    """Of two arrays of bytes of one shape; infinite where they are equal."""
    return psnr_of(float(np.mean((x.astype(np.float64) - y) ** 2)))


def psnr_of(mse: float) -> float:
    """Of a mean squared error in bytes."""
    return 10 * math.log10(255**2 / mse) if mse else math.inf
