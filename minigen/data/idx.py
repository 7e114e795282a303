"""IDX files, the format of MNIST: a big-endian header, then the values, last axis fastest.

    byte 0, 1   zero
    byte 2      type of the values; 0x08 = unsigned byte, the only one read here
    byte 3      number of axes d
    then        d sizes, 4 bytes each; then the values

So images (N, H, W) begin with 0x00000803 and labels (N,) with 0x00000801.
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import numpy as np

from minigen.errors import UserError

GZIP_MAGIC = b"\x1f\x8b"


def find_idx(folder: Path, stem: str) -> Path | None:
    """The file of this stem in `folder`, .gz before plain, `-idx3-` before `.idx3-`; None without one."""
    for name in (stem, stem.replace("-idx", ".idx")):
        for suffix in (".gz", ""):
            path = folder / (name + suffix)
            if path.is_file():
                return path
    return None


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Read one IDX file of unsigned bytes with `ndim` axes, gzipped (.gz) or plain -> uint8 array.

    Raises UserError when the file is unreadable, not what its name says, cut off, or too long.
    """
    data, complete = read_bytes(path)
    magic = 0x0800 | ndim
    header = 4 + 4 * ndim
    if len(data) < header:
        raise UserError(f"{path}: cut off: an IDX header takes {header} bytes, found {len(data)}")
    (found,) = struct.unpack(">I", data[:4])
    if found != magic:
        raise UserError(
            f"{path}: wrong magic number 0x{found:08x}, expected 0x{magic:08x} (bytes, {ndim} axes)"
        )
    shape = struct.unpack(f">{ndim}I", data[4:header])
    expected = header + math.prod(shape)
    if len(data) < expected:
        raise UserError(f"{path}: cut off: expected {expected} bytes for shape {shape}, found {len(data)}")
    if not complete:
        raise UserError(f"{path}: cut off: the gzip stream has no end, so its checksum cannot be verified")
    if len(data) > expected:
        raise UserError(f"{path}: too long: expected {expected} bytes for shape {shape}, found {len(data)}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def read_bytes(path: Path) -> tuple[bytes, bool]:
    """The bytes of a file, unzipped if it begins like gzip; and whether the gzip stream had its end.

    Raises UserError when the file is unreadable, damaged, or named .gz without being one.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    is_gzip = data.startswith(GZIP_MAGIC)
    if path.suffix != ".gz" and not is_gzip:
        return data, True
    if not is_gzip:
        plain = data.startswith(b"\0\0\x08")
        hint = "; it looks like a plain IDX file: remove .gz from its name" if plain else ""
        raise UserError(f"{path}: named .gz but not a gzip file{hint}")
    return _gunzip(path, data)


def _gunzip(path: Path, data: bytes) -> tuple[bytes, bool]:
    """Unzip as far as the data goes, so that the caller can say how much is missing."""
    parts: list[bytes] = []
    while data:
        stream = zlib.decompressobj(wbits=31)
        try:
            parts.append(stream.decompress(data))
        except zlib.error as error:
            raise UserError(f"{path}: damaged gzip data ({error})") from error
        if not stream.eof:
            return b"".join(parts), False
        data = stream.unused_data.lstrip(b"\0")
    return b"".join(parts), True
