"""Image sizes: which are allowed, which one to take, and getting there.

The generators build an image from an (H/4, W/4) grid, so height and width are multiples of 4.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from minigen.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

Size = tuple[int, int]  # height, width

LONGEST_CHOSEN_SIDE = 64
LARGEST_SIDE = 4096


def check_size(size: int | None) -> Size | None:
    """The user's `size` as (height, width), or None. Raises UserError unless a multiple of 4 in 4..4096."""
    if size is None:
        return None
    if size % 4 or not 4 <= size <= LARGEST_SIDE:
        raise UserError(f"the image size must be a multiple of 4 between 4 and {LARGEST_SIDE}, not {size}")
    return int(size), int(size)


def round_to_4(height: int, width: int) -> Size:
    """The nearest multiples of 4, at least 4; halves go up: 30 -> 32."""
    return max(4, (height + 2) // 4 * 4), max(4, (width + 2) // 4 * 4)


def choose_size(sizes: Iterable[Size]) -> Size:
    """The size for a collection when the user named none.

    One common size is kept, rounded to multiples of 4. Otherwise the most frequent one is taken (the smaller
    on a tie), scaled down, if need be, until its longer side is 64.
    """
    counts = Counter(sizes)
    height, width = min(counts, key=lambda size: (-counts[size], size[0] * size[1], size))
    if len(counts) > 1:
        scale = min(1.0, LONGEST_CHOSEN_SIDE / max(height, width))
        height, width = round(height * scale), round(width * scale)
    return round_to_4(height, width)


def fit_image(image: Image.Image, size: Size) -> Image.Image:
    """Crop the middle to the wanted proportions and resize (bicubic, anti-aliased). Mode L or RGB."""
    from PIL import Image, ImageOps

    height, width = size
    if (image.height, image.width) == size:
        return image
    return ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)


def fit_array(images: np.ndarray, size: Size) -> np.ndarray:
    """`fit_image` on every image: uint8 (N, C, H, W) -> uint8 (N, C, *size), C = 1 or 3."""
    from PIL import Image

    out = np.empty((*images.shape[:2], *size), np.uint8)
    for target, image in zip(out, images, strict=True):
        last = image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
        pixels = np.asarray(fit_image(Image.fromarray(last), size))
        target[:] = pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return out


def fit_split(
    train: np.ndarray, test: np.ndarray, size: Size | None
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Both parts, uint8 (N, C, H, W), at `size` or, if None, at multiples of 4; a notice if they changed."""
    old: Size = (train.shape[2], train.shape[3])
    new = size or round_to_4(*old)
    if new == old:
        return train, test, ()
    return fit_array(train, new), fit_array(test, new), (f"images resized from {show(old)} to {show(new)}",)


def show(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
