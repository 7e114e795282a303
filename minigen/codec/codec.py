"""Compressing with a trained `vq-prior` run: tiles, codes, bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minigen import nn
from minigen.codec import archive
from minigen.codec.fixed import FixedDecoder, FixedPrior
from minigen.codec.range_coder import TOTAL, Decoder, Encoder
from minigen.data import to_uint8
from minigen.errors import UserError

Array = np.ndarray[Any, Any]
AT_ONCE = 256  # tiles coded side by side


class Codec:
    """A prior's trainer as a codec of images (H, W, c) uint8 of any size."""

    def __init__(self, trainer: Any) -> None:
        self.channels, *self.tile = trainer.info.shape
        self.vqvae, self.model = trainer.vqvae, trainer.model
        self.grid = self.tile[0] // 4, self.tile[1] // 4
        if self.model.embedding.weight.shape[0] - 1 > TOTAL // 16:
            raise UserError(f"the codec codes at most {TOTAL // 16} codes")
        try:
            self.prior = FixedPrior(self.model, TOTAL)
        except ValueError as e:
            raise UserError(f"this run cannot compress: {e}") from e
        self.decoder = FixedDecoder(self.vqvae.model.decoder, self.vqvae.model.quantizer.codes().data)
        codes = self.vqvae.model.quantizer.codes()
        self.hash = _hash({"prior": self.model, "decoder": self.vqvae.model.decoder, "codes": codes})

    # --- images and codes ---------------------------------------------------------------------------------------------

    def encode(self, images: Sequence[Array]) -> Array:
        """Images (H, W, c) -> codes (tiles, h, w), tile by tile from the top left, image after image."""
        tiles = [tile for image in images for tile in self._tiles(image)]
        return self.vqvae.encode(np.stack(tiles).transpose(0, 3, 1, 2)) if tiles else np.zeros((0, *self.grid), np.int64)

    def reconstruct(self, codes: Array, sizes: Sequence[archive.Size]) -> list[Array]:
        """Codes (tiles, h, w) -> images (H, W, c) of these sizes, the same on every machine."""
        tiles = [to_uint8(self.decoder(codes[i : i + AT_ONCE])) for i in range(0, len(codes), AT_ONCE)]
        flat = np.concatenate(tiles).transpose(0, 2, 3, 1) if tiles else np.zeros((0, *self.tile, self.channels), np.uint8)
        images, at = [], 0
        for height, width in sizes:
            down, across = self._count(height, width)
            part = flat[at : at + down * across].reshape(down, across, *self.tile, self.channels)
            whole = part.transpose(0, 2, 1, 3, 4).reshape(down * self.tile[0], across * self.tile[1], self.channels)
            images.append(whole[:height, :width])
            at += down * across
        return images

    def _count(self, height: int, width: int) -> tuple[int, int]:
        return -(-height // self.tile[0]), -(-width // self.tile[1])

    def _tiles(self, image: Array) -> Iterator[Array]:
        """Tiles of an image, which is continued at its right and lower edge as far as the last tile needs."""
        height, width, channels = image.shape
        if channels != self.channels:
            raise UserError(f"the model compresses images of {self.channels} channels, not {channels}")
        if not height * width:
            raise UserError("an image without pixels cannot be compressed")
        down, across = self._count(height, width)
        more = (0, down * self.tile[0] - height), (0, across * self.tile[1] - width), (0, 0)
        whole = np.pad(image, more, mode="edge")
        for y in range(down):
            for x in range(across):
                yield whole[y * self.tile[0] : (y + 1) * self.tile[0], x * self.tile[1] : (x + 1) * self.tile[1]]

    # --- codes and bytes ----------------------------------------------------------------------------------------------

    def put(self, codes: Array) -> bytes:
        """Codes (tiles, h, w) -> bytes. Tiles go side by side, step by step: the prior runs on all of them at once."""
        encoder = Encoder()
        for part in np.split(codes, range(AT_ONCE, len(codes), AT_ONCE)):
            flat, rows = part.reshape(len(part), -1), np.arange(len(part))
            seen, state = self._unseen(len(part)), self.prior.begin(len(part))
            for t in range(self.prior.steps):
                sizes, state = self.prior.frequencies(t, seen, state)
                own = sizes[rows, flat[:, t]]
                starts = sizes.cumsum(1)[rows, flat[:, t]] - own
                for start, size in zip(starts.tolist(), own.tolist(), strict=True):
                    encoder.put(start, size)
                seen[:, t] = flat[:, t]
        return encoder.finish()

    def take(self, payload: bytes, count: int) -> Array:
        """Bytes -> codes (count, h, w)."""
        decoder, parts = Decoder(payload), []
        for at in range(0, count, AT_ONCE):
            n = min(AT_ONCE, count - at)
            seen, state = self._unseen(n), self.prior.begin(n)
            for t in range(self.prior.steps):
                sizes, state = self.prior.frequencies(t, seen, state)
                ends = sizes.cumsum(1)
                for i in range(n):
                    k = int(ends[i].searchsorted(decoder.where(), "right"))
                    size = int(sizes[i, k])
                    decoder.take(int(ends[i, k]) - size, size)
                    seen[i, t] = k
            parts.append(seen[:, :-1])
        return np.concatenate(parts).reshape(-1, *self.grid) if parts else np.zeros((0, *self.grid), np.int64)

    def _unseen(self, n: int) -> Array:
        seen = np.zeros((n, self.prior.steps + 1), np.int64)
        seen[:, -1] = self.prior.num_codes
        return seen

    def tiles(self, sizes: Sequence[archive.Size]) -> int:
        return sum(down * across for down, across in (self._count(*s) for s in sizes))


def compress(codec: Codec, images: Sequence[Array]) -> bytes:
    """A file's bytes for images (H, W, c) uint8."""
    sizes = [(int(i.shape[0]), int(i.shape[1])) for i in images]
    return archive.pack(codec.hash, sizes, codec.put(codec.encode(images)))


def decompress(codec: Codec, content: bytes, name: str = "the file") -> list[Array]:
    """The images (H, W, c) uint8 of a file's bytes. Raises UserError if it is damaged or of another model."""
    sizes, payload = archive.unpack(content, codec.hash, name)
    return codec.reconstruct(codec.take(payload, codec.tiles(sizes)), sizes)


def _hash(parts: dict[str, Any]) -> bytes:
    """SHA-256 over names, shapes and values in little-endian float32."""
    found = hashlib.sha256()
    for part, model in parts.items():
        arrays = {"": model.data} if hasattr(model, "op") else nn.state_dict(model)
        for name, a in sorted(arrays.items()):
            found.update(f"{part}.{name} {a.shape}\n".encode() + np.ascontiguousarray(a, "<f4").tobytes())
    return found.digest()
