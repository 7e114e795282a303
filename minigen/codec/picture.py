"""Pixels (H, W, c) uint8, of one channel or three, to the formats that Pillow writes, and from those it reads."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def write(picture: Array, name: str, **options: Any) -> bytes:
    """A file's bytes in the format of this name, as Pillow calls it."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).save(buffer, name, **options)
    return buffer.getvalue()


def read(file: Any, channels: int) -> Array:
    """The pixels of a path or an open file, grey or in colour as wanted. Raises what Pillow raises."""
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(image.height, image.width, channels)
