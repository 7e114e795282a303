"""Two-dimensional toy distributions, for watching a generator lose modes.

| name        | distribution                                                        | rescaled here? |
|-------------|---------------------------------------------------------------------|----------------|
| 8gaussians  | 8 modes on a ring of radius 2, standard deviation 0.02              | no             |
| 25gaussians | 25 modes on the grid {-4, -2, 0, 2, 4}^2, standard deviation 0.05   | no             |
| swissroll   | (t cos t, t sin t), t = 1.5 pi (1 + 2u), u uniform, plus noise 0.25 | divided by 7.5 |

The grid in these coordinates is PacGAN's (Lin et al. 2018). The code of Gulrajani et al. 2017 draws the same
three sets, then divides the grid by 2.828, the ring by 1.414 and the roll by 7.5; only the last is done here,
so that `centers` and `sigma` keep the round numbers of the table.
"""

from __future__ import annotations

import numpy as np

from minigen.data.dataset import Dataset

NAMES = ("8gaussians", "25gaussians", "swissroll")
TRAIN, TEST = 100_000, 10_000
SWISSROLL_SCALE = 7.5


def mixture(name: str) -> tuple[np.ndarray, float]:
    """The centers, float32 (modes, 2), and the standard deviation of a Gaussian mixture; equal weights."""
    if name == "8gaussians":
        angle = 2 * np.pi * np.arange(8) / 8
        return (2 * np.stack([np.cos(angle), np.sin(angle)], axis=1)).astype(np.float32), 0.02
    if name == "25gaussians":
        line = np.arange(-4, 5, 2, dtype=np.float32)
        return np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(25, 2), 0.05
    raise ValueError(f"{name} is not a Gaussian mixture")


def draw(name: str, count: int, seed: int, stream: int = 0) -> tuple[np.ndarray, np.ndarray | None]:
    """`count` points float32 (count, 2) and the mode of each, int64 (count,); None for the swiss roll.

    The draw is a function of (seed, stream): streams 0 and 1 are the training and test parts of `load_toy`.
    """
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, stream])))
    if name == "swissroll":
        t = 1.5 * np.pi * (1 + 2 * generator.random(count))
        roll = np.stack([t * np.cos(t), t * np.sin(t)], axis=1) + 0.25 * generator.standard_normal((count, 2))
        return (roll / SWISSROLL_SCALE).astype(np.float32), None
    centers, sigma = mixture(name)
    modes = generator.integers(len(centers), size=count)
    return (centers[modes] + sigma * generator.standard_normal((count, 2))).astype(np.float32), modes


def load_toy(name: str, seed: int = 0) -> Dataset:
    """100,000 training and 10,000 test points, float32 (N, 2); the labels of a mixture are its modes."""
    train, labels = draw(name, TRAIN, seed, stream=0)
    test, test_labels = draw(name, TEST, seed, stream=1)
    source = f"drawn with seed {seed}"
    if labels is None:
        return Dataset(name, train, None, (), test, None, source)
    centers, sigma = mixture(name)
    classes = tuple(f"({x:.2f}, {y:.2f})" for x, y in centers)
    return Dataset(name, train, labels, classes, test, test_labels, source, centers=centers, sigma=sigma)
