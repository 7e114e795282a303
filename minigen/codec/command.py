"""`minigen compress` and `minigen decompress`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from minigen.errors import UserError

Chosen = tyro.conf.arg(metavar="PATH", help_behavior_hint="")


@dataclass
class Compress:
    """Compress images of any size with a trained vq-prior run, into one small file."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """The images: anything Pillow reads."""
    model: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    out: Annotated[Path | None, Chosen] = None
    """The file to write. (default: the first image's name with .mgvq)"""

    def __call__(self) -> int:
        from minigen.codec import compress
        from minigen.train.checkpoint import write_atomically

        if not self.images:
            raise UserError("compress: which images?")
        codec = _codec(self.model)
        pictures = [_read(path, codec.channels) for path in self.images]
        out = self.out or self.images[0].with_suffix(".mgvq")
        content = compress(codec, pictures)
        write_atomically(out, content)
        pixels = sum(p.shape[0] * p.shape[1] for p in pictures)
        print(f"{len(pictures)} images, {len(content)} bytes, {8 * len(content) / pixels:.3f} bits per pixel in {out}")
        return 0


@dataclass
class Decompress:
    """Write the images of a compressed file as PNG."""

    file: Annotated[Path, tyro.conf.Positional]
    """A file that minigen compress wrote."""
    model: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """The folder of the run it was compressed with."""
    out: Annotated[Path | None, Chosen] = None
    """The folder for the images, 0001.png and so on. (default: the file's name without .mgvq)"""

    def __call__(self) -> int:
        from minigen.codec import decompress
        from minigen.codec.picture import write
        from minigen.train.checkpoint import write_atomically

        codec = _codec(self.model)
        try:
            content = self.file.read_bytes()
        except OSError as e:
            raise UserError(f"cannot read {self.file}: {e.strerror or e}") from e
        pictures = decompress(codec, content, str(self.file))
        out = self.out or self.file.with_name(self.file.stem)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise UserError(f"cannot write in {out}: {e.strerror or e}") from e
        for i, picture in enumerate(pictures):
            write_atomically(out / f"{i + 1:04d}.png", write(picture, "PNG"))
        print(f"{len(pictures)} images in {out}")
        return 0


def _codec(folder: Path) -> Any:
    from minigen.codec import Codec
    from minigen.train import RECIPES, run

    config, trainer, _ = run.load(folder, RECIPES)
    if config.name != "vq-prior":
        raise UserError(f"{folder} is a run of {config.name}; compressing takes one of vq-prior")
    return Codec(trainer)


def _read(path: Path, channels: int) -> Any:
    """An image file as (H, W, c) uint8."""
    from PIL import Image

    from minigen.codec.picture import read

    try:
        return read(path, channels)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        raise UserError(f"cannot read {path} as an image: {getattr(e, 'strerror', None) or e}") from e
