"""The codec beside JPEG and WebP, at the sizes that come nearest to its own.

All three compress one picture, a square mosaic of held-out images, so that no format is charged a header for each small image;
the model is not counted, as the decoders of JPEG and WebP are not. Bits per pixel are those of the whole file.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np

from minigen.codec.codec import Codec, compress, decompress
from minigen.codec.picture import read, write
from minigen.data import to_uint8
from minigen.metrics.reconstruction import psnr

Array = np.ndarray[Any, Any]
MOST = 1024  # images in the mosaic


def mosaic(images: Array) -> Array:
    """(N, c, H, W) -> (side H, side W, c), of the first side^2 of them."""
    side = math.isqrt(min(len(images), MOST))
    _, c, h, w = images.shape
    return images[: side**2].reshape(side, side, c, h, w).transpose(0, 3, 1, 4, 2).reshape(side * h, side * w, c)


def compare(trainer: Any, images: Array) -> dict[str, Any]:
    """bits per pixel and PSNR in dB of the three formats, on a mosaic of images (N, c, H, W) in [-1, 1]."""
    codec, picture = Codec(trainer), mosaic(to_uint8(images))
    content = compress(codec, [picture])
    (back,) = decompress(codec, content)
    pixels = picture.shape[0] * picture.shape[1]
    found: dict[str, Any] = {
        "mosaic": f"{picture.shape[1]}x{picture.shape[0]}",
        "bits_per_pixel": 8 * len(content) / pixels,
        "psnr": psnr(picture, back),
    }
    for name in ("JPEG", "WEBP"):
        size, decoded = nearest(picture, name, len(content))
        found |= {f"{name.lower()}_bits_per_pixel": 8 * size / pixels, f"{name.lower()}_psnr": psnr(picture, decoded)}
    return found


def nearest(picture: Array, name: str, size: int) -> tuple[int, Array]:
    """Pillow's file of this format whose size comes nearest to `size`, over all qualities: its size, and its picture."""
    low, high = 0, 100
    while low < high:  # the least quality that takes at least `size`
        middle = (low + high) // 2
        low, high = (low, middle) if len(_file(picture, name, middle)) >= size else (middle + 1, high)
    files = [_file(picture, name, q) for q in (max(low - 1, 0), low)]
    best = min(files, key=lambda f: abs(len(f) - size))
    return len(best), read(io.BytesIO(best), picture.shape[2])


def _file(picture: Array, name: str, quality: int) -> bytes:
    return write(picture, name, quality=quality)
