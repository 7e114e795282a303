"""A range coder: symbols to bytes at their information content (Martin 1979; with the carry as in Subbotin 1999's and LZMA's).

The encoder holds an interval [low, low + range) of integers, at first all of [0, 2^32). A symbol with cumulative frequencies
start .. start + size out of 2^16 narrows it to that part. When the interval is shorter than 2^24 its leading byte is settled,
up to a carry, and is shifted out. The decoder holds where in the interval the file's number lies, and finds the symbol whose
part it is.

    >>> encoder = Encoder()
    >>> for start, size in [(0, 60000), (0, 60000), (60000, 5536)]:
    ...     encoder.put(start, size)
    >>> data = encoder.finish()
    >>> decoder = Decoder(data)
    >>> for size in (60000, 60000, 5536):
    ...     at = decoder.where()
    ...     decoder.take(0 if at < 60000 else 60000, size)
    ...     print(at < 60000)
    True
    True
    False
"""

from __future__ import annotations

BITS = 16
TOTAL = 1 << BITS
TOP, SHORT = 1 << 32, 1 << 24


class Encoder:
    def __init__(self) -> None:
        self.low, self.range = 0, TOP - 1
        self.held, self.count = 0, 0  # the last byte, and how many 0xff follow it: a carry would change all of them
        self.out = bytearray()
        self.first = True

    def put(self, start: int, size: int) -> None:
        """Encode the symbol with these cumulative frequencies; 0 <= start, 0 < size, start + size <= 2^16."""
        part = self.range >> BITS
        self.low += start * part
        self.range = size * part
        while self.range < SHORT:
            self.range <<= 8
            self._shift()

    def _shift(self) -> None:
        if self.low < TOP - SHORT or self.low >= TOP:
            carry = self.low >> 32
            if not self.first:
                self.out.append((self.held + carry) & 255)
            self.out += bytes([(255 + carry) & 255]) * self.count
            self.held, self.count, self.first = (self.low >> 24) & 255, 0, False
        else:
            self.count += 1
        self.low = (self.low << 8) & (TOP - 1)

    def finish(self) -> bytes:
        """All bytes: the shortest number in the interval, without trailing zeros, which the decoder reads past the end."""
        self.low = (self.low + SHORT - 1) // SHORT * SHORT  # the interval is at least as long
        for _ in range(5):
            self._shift()
        return bytes(self.out).rstrip(b"\0")


class Decoder:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 4
        self.range = TOP - 1
        self.code = int.from_bytes(data[:4].ljust(4, b"\0"), "big")

    def where(self) -> int:
        """The frequency count at which the file's number lies, in 0 .. 2^16 - 1; the symbol is the one whose part it is."""
        return min(self.code // (self.range >> BITS), TOTAL - 1)

    def take(self, start: int, size: int) -> None:
        """Go on after the symbol with these cumulative frequencies."""
        part = self.range >> BITS
        self.code -= start * part
        self.range = size * part
        while self.range < SHORT:
            byte = self.data[self.at] if self.at < len(self.data) else 0
            self.code = ((self.code << 8) | byte) & (TOP - 1)
            self.range <<= 8
            self.at += 1
