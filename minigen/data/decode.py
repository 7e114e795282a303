"""Pixels out of image files: on all cores, as Pillow releases the interpreter lock while it decodes."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from minigen.data.resize import Size, fit_image
from minigen.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
CHUNK = 256

GREY = ("1", "L")
DEEP_GREY = ("I", "I;16", "I;16B", "I;16L", "I;16N")
ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 mean that the camera was held on its side

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One image file: its path below the data folder (with /), and where its bytes are."""

    name: str
    data: Path | bytes

    def stream(self) -> Path | io.BytesIO:
        return io.BytesIO(self.data) if isinstance(self.data, bytes) else self.data


@dataclass(frozen=True)
class Header:
    """What the first bytes of an image file say; the size is the one it is shown at."""

    size: Size
    grey: bool
    transparent: bool


def read_headers(root: Path, entries: Sequence[Entry]) -> list[Header]:
    """The headers, without decoding. Raises UserError that names the first file which is not an image."""

    def read(image: Image.Image) -> Header:
        turned = image.getexif().get(ORIENTATION, 1) >= 5
        size = (image.width, image.height) if turned else (image.height, image.width)
        transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
        return Header(size, image.mode in (*GREY, *DEEP_GREY) and not transparent, transparent)

    return _on_all_cores(root, entries, lambda _, image: read(image))


def decode(root: Path, entries: Sequence[Entry], size: Size, grey: bool) -> np.ndarray:
    """Decode, turn upright, crop and resize to `size` -> uint8 (N, C, H, W); C is 1 if `grey`, else 3.

    C is also 1 if the files are stored in colour and every pixel of every one is a shade of grey.
    Transparent parts become white; 16-bit greys keep their upper 8 bits.
    Raises UserError that names the first file that is damaged.
    """
    mode = "L" if grey else "RGB"
    out = np.empty((len(entries), 1 if grey else 3, *size), np.uint8)

    def fill(row: int, image: Image.Image) -> None:
        pixels = np.asarray(fit_image(_upright(image, mode, size), size))
        out[row] = pixels if grey else pixels.transpose(2, 0, 1)

    _on_all_cores(root, entries, fill)
    return out if grey or not _is_grey(out) else np.ascontiguousarray(out[:, :1])


def _upright(image: Image.Image, mode: str, size: Size) -> Image.Image:
    from PIL import Image, ImageOps

    side = 2 * max(size)
    image.draft(None, (side, side))  # decode a large JPEG at a fraction of its size, at least twice `size`
    if image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode in DEEP_GREY:
        image = Image.fromarray((np.asarray(image).astype(np.int32) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _is_grey(images: np.ndarray) -> bool:
    """Whether red, green and blue agree everywhere; stops at the first block of images that shows colour."""
    return all(
        np.array_equal(block[:, :1].repeat(2, axis=1), block[:, 1:])
        for block in (images[start : start + CHUNK] for start in range(0, len(images), CHUNK))
    )


def _on_all_cores(root: Path, entries: Sequence[Entry], work: Callable[[int, Image.Image], T]) -> list[T]:
    """[work(row, opened image) for each entry], in order; the first failure becomes a UserError."""
    from PIL import Image, UnidentifiedImageError

    def chunk(start: int) -> list[T]:
        results = []
        for row, entry in enumerate(entries[start : start + CHUNK], start):
            try:
                with Image.open(entry.stream(), formats=FORMATS) as image:
                    results.append(work(row, image))
            except Exception as error:  # Pillow's decoders raise nearly anything on damaged data
                unknown = isinstance(error, UnidentifiedImageError)
                reason = "not an image" if unknown else _one_line(error)
                raise UserError(f"{root}/{entry.name}: cannot read this image ({reason})") from error
        return results

    Image.preinit()  # registers the common formats once, before the threads race to do it
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        return [result for results in pool.map(chunk, range(0, len(entries), CHUNK)) for result in results]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
