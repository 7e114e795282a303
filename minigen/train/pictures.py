"""What a run shows of itself: grids of samples, clouds of points, and curves."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from minigen.data.dataset import to_uint8
from minigen.train.checkpoint import write_atomically

TILE = 48  # small images are enlarged by whole factors until a tile is at least this many pixels


def grid(samples: Any, columns: int | None = None) -> np.ndarray[Any, Any]:
    """Images (N, C, H, W) in [-1, 1] -> one picture (rows, columns, 3) uint8, tiles apart by a thin line."""
    n, _, h, w = samples.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    factor = max(1, math.ceil(TILE / h))
    tiles = to_uint8(np.asarray(samples)).repeat(factor, axis=2).repeat(factor, axis=3)
    h, w, gap = h * factor, w * factor, 2
    picture = np.full((rows * (h + gap) + gap, columns * (w + gap) + gap, 3), 96, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = gap + (i // columns) * (h + gap), gap + (i % columns) * (w + gap)
        picture[y : y + h, x : x + w] = tile.transpose(1, 2, 0)  # one channel broadcasts to three
    return picture


def save_samples(path: Path, samples: Any, data: Any = None, columns: int | None = None) -> None:
    """A grid of images in so many columns, or a scatter plot of points (N, 2) over the `data` points if given."""
    if np.ndim(samples) == 4:
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(grid(samples, columns)).save(buffer, "PNG")
        write_atomically(path, buffer.getvalue())
        return
    figure = _figure(5, 5)
    axes = figure.add_subplot()
    if data is not None:
        axes.plot(data[:2000, 0], data[:2000, 1], ".", ms=2, color="0.75", label="data")
    axes.plot(samples[:, 0], samples[:, 1], ".", ms=2, color="tab:red", label="samples")
    axes.set_aspect("equal")
    axes.legend(loc="upper right", fontsize=8)
    _save(path, figure)


def save_curves(path: Path, records: list[dict[str, float]]) -> None:
    """One panel for each named loss, over steps: quantities of different scale are never drawn on one axis."""
    if not records:
        return
    names = [k for k in records[-1] if k != "step"]
    steps = [r["step"] for r in records]
    figure = _figure(7, 1.9 * len(names))
    for i, name in enumerate(names):
        axes = figure.add_subplot(len(names), 1, i + 1)
        values = np.array([r.get(name, math.nan) for r in records])
        axes.plot(steps, values, lw=0.5, color="0.7")
        axes.plot(steps, _smooth(values), lw=1.5, color="tab:blue")
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
        if i == len(names) - 1:
            axes.set_xlabel("step")
        else:
            axes.set_xticklabels([])
    _save(path, figure)


def _smooth(values: Any) -> Any:
    """A running mean over a twentieth of the curve."""
    width = max(1, len(values) // 20)
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # no pyplot: no window system is ever touched

    return Figure(figsize=(width, height), dpi=100, layout="constrained")


def _save(path: Path, figure: Any) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(path, buffer.getvalue())
