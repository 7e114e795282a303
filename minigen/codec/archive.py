"""The bytes of a compressed file.

    "MGVQ" 1                  what it is, and the version of the format
    8 bytes                   of the SHA-256 of the model's weights
    runs                      a count, and for each run of images of one size: how many, height, width
    codes                     the range coder's bytes
    4 bytes                   CRC-32 of everything before

Numbers are in groups of seven bits, the lowest first, the eighth bit set on all but the last (LEB128).
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence

from minigen.errors import UserError

MAGIC = b"MGVQ\x01"
HASH = 8
MOST_PIXELS = 1 << 30  # in all images: a header that asks for more is not believed
Size = tuple[int, int]


def pack(model: bytes, sizes: Sequence[Size], payload: bytes) -> bytes:
    """A file's bytes: images of these (height, width), coded in `payload` under the model of this hash."""
    runs = [(len(list(group)), *size) for size, group in itertools.groupby(sizes)]
    header = b"".join(map(_number, [len(runs), *itertools.chain.from_iterable(runs)]))
    body = MAGIC + model[:HASH] + header + payload
    return body + zlib.crc32(body).to_bytes(4, "big")


def unpack(content: bytes, model: bytes, name: str = "the file") -> tuple[list[Size], bytes]:
    """The sizes and the payload. Raises UserError: not such a file, damaged, or made with another model."""
    if not content.startswith(MAGIC[:4]):
        raise UserError(f"{name} was not written by minigen compress")
    if content[:5] != MAGIC:
        raise UserError(f"{name} is of another version of the format, or damaged")
    body, check = content[:-4], int.from_bytes(content[-4:], "big")
    if len(body) < len(MAGIC) + HASH or zlib.crc32(body) != check:
        raise UserError(f"{name} is damaged: its checksum does not match")
    if body[len(MAGIC) : len(MAGIC) + HASH] != model[:HASH]:
        raise UserError(f"{name} was compressed with another model")
    at = len(MAGIC) + HASH
    sizes: list[Size] = []
    pixels = 0
    count, at = _read(body, at, name)
    for _ in range(count):
        images, at = _read(body, at, name)
        height, at = _read(body, at, name)
        width, at = _read(body, at, name)
        pixels += images * height * width
        if images * height * width == 0 or pixels > MOST_PIXELS:
            raise UserError(f"{name} is damaged: it tells of images that cannot be")
        sizes += [(height, width)] * images
    return sizes, body[at:]


def _number(n: int) -> bytes:
    groups = bytearray()
    while n > 127:
        groups.append(n & 127 | 128)
        n >>= 7
    return bytes([*groups, n])


def _read(body: bytes, at: int, name: str) -> tuple[int, int]:
    """A number, and where the next one begins."""
    value = 0
    for i in range(5):
        if at + i >= len(body):
            break
        value |= (body[at + i] & 127) << (7 * i)
        if body[at + i] < 128:
            return value, at + i + 1
    raise UserError(f"{name} is damaged: its header ends too early")
