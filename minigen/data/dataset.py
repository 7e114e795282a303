"""One data set in memory, and the scale the networks see it in.

Images stay uint8, one byte per value, until a batch is drawn: CIFAR-10 takes 184 MB that way, 737 MB in
float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from minigen.errors import UserError


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and held-out data with labels and their origin.

    images, test_images   uint8 (N, C, H, W), C = 1 or 3, H and W multiples of 4 (kind "images"),
                          or float32 (N, 2) (kind "points": the toy distributions)
    labels, test_labels   int64 (N,), each an index into `classes`; both None when there are no labels
    classes               the names of the labels; empty when there are none
    source                who made the data, the licence, where it was read from
    notices               one line for each thing done to the data that the user may not expect (resizing,
                          ...)
    centers, sigma        of a Gaussian mixture: float32 (modes, 2), and the standard deviation; else None

    The held-out part may be empty (shape (0, ...)). Raises UserError when the data cannot be used.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...]
    test_images: np.ndarray
    test_labels: np.ndarray | None
    source: str
    notices: tuple[str, ...] = ()
    centers: np.ndarray | None = None
    sigma: float | None = None

    def __post_init__(self) -> None:
        if len(self.images) == 0:
            raise UserError(f"{self.name}: no training data")
        for part, images, labels in (
            ("training", self.images, self.labels),
            ("test", self.test_images, self.test_labels),
        ):
            self._check_images(part, images)
            self._check_labels(part, len(images), labels)

    @property
    def kind(self) -> Literal["images", "points"]:
        return "images" if self.images.ndim == 4 else "points"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example: (C, H, W), or (2,) for points."""
        return self.images.shape[1:]

    def _check_images(self, part: str, images: np.ndarray) -> None:
        expected = np.uint8 if self.kind == "images" else np.float32
        if images.dtype != expected or images.shape[1:] != self.shape:
            shape = ", ".join(map(str, ("N", *self.shape)))
            raise TypeError(
                f"{self.name}: {part} data must be {np.dtype(expected)} ({shape}), "
                f"not {images.dtype} {images.shape}"
            )
        if self.kind == "points":
            return
        channels, height, width = self.shape
        if channels not in (1, 3):
            raise UserError(f"{self.name}: images must have 1 or 3 channels, these have {channels}")
        if height % 4 or width % 4 or height == 0 or width == 0:
            raise UserError(f"{self.name}: sizes must be multiples of 4, these images are {height}x{width}")

    def _check_labels(self, part: str, count: int, labels: np.ndarray | None) -> None:
        if (labels is None) != (self.labels is None):
            raise TypeError(f"{self.name}: give labels to both parts or to neither")
        if labels is None:
            return
        if labels.dtype != np.int64 or labels.ndim != 1:
            raise TypeError(
                f"{self.name}: {part} labels must be int64 (N,), not {labels.dtype} {labels.shape}"
            )
        if len(labels) != count:
            raise UserError(f"{self.name}: {count} {part} images but {len(labels)} labels")
        if count and not 0 <= labels.min() <= labels.max() < len(self.classes):
            raise UserError(
                f"{self.name}: {part} labels run from {labels.min()} to {labels.max()}, "
                f"expected 0 to {len(self.classes) - 1}"
            )


def to_float(images: np.ndarray) -> np.ndarray:
    """uint8 0..255, any shape -> float32 in [-1, 1], same shape: x / 127.5 - 1."""
    x = images.astype(np.float32)
    x /= np.float32(127.5)
    x -= np.float32(1)
    return x


def to_uint8(x: np.ndarray) -> np.ndarray:
    """Float in [-1, 1], any shape -> uint8, same shape: rounded; values outside [-1, 1] are clipped.

    The inverse of `to_float`. `x` must hold no NaN.
    """
    return np.clip(np.rint((x + 1) * 127.5), 0, 255).astype(np.uint8)
