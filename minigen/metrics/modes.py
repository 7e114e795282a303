"""Modes covered, for samples from a mixture of Gaussians with known centres.

The protocol of VEEGAN (Srivastava et al. 2017, section 4.1) and PacGAN (Lin et al. 2018, section 4.1): 2,500 samples; a
sample is of high quality if it lies within three standard deviations of its nearest centre; a mode counts as covered if at
least one high-quality sample is nearest to it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

SAMPLES = 2500


class Coverage(NamedTuple):
    covered: int  # modes with at least one high-quality sample
    modes: int
    high_quality: float  # share of samples within three standard deviations of a centre


def mode_coverage(samples: Any, centers: Any, sigma: float) -> Coverage:
    """samples (N, 2), centers (K, 2)."""
    squared = ((samples[:, None, :] - centers[None, :, :]) ** 2).sum(axis=2)
    nearest = squared.argmin(axis=1)
    good = squared[np.arange(len(samples)), nearest] <= (3 * sigma) ** 2
    return Coverage(len(np.unique(nearest[good])), len(centers), float(good.mean()))
