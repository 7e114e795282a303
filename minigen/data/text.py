"""Text as a sequence of characters: a vocabulary, a fixed split, and streams that can be resumed.

    load_text("novel.txt")    a file of UTF-8
    load_text()               the help topics that Python itself carries, `pydoc_data.topics`: about 460,000 characters

The first 90 % of the characters are for training, the last 10 % are held out. The vocabulary is that of the whole text, so
that every held-out character has a probability. Line ends become \\n, and a byte order mark is dropped.

    >>> text = Text("rhyme", "row row row your boat gently down the stream. " * 10)
    >>> text.vocabulary.characters, len(text.train), len(text.test)
    (' .abdeghlmnorstuwy', 414, 46)
    >>> text.vocabulary.decode(text.train[:11])
    'row row row'
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from minigen.errors import UserError


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


@dataclass(frozen=True)
class Vocabulary:
    """The characters a model knows, in the order of their code points; a character's index is its place in it."""

    characters: str

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        return cls("".join(map(chr, np.unique(_code_points(text)))))

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        """Indices (len(text),) of the smallest unsigned type. Raises UserError that names characters it does not know."""
        known, points = _code_points(self.characters), _code_points(text)
        index = np.searchsorted(known, points).clip(max=max(len(known) - 1, 0))
        if not np.array_equal(known[index], points):
            raise UserError(f"not in the vocabulary: {_show(set(text) - set(self.characters))}")
        return index.astype(np.min_scalar_type(max(len(known) - 1, 0)))

    def decode(self, indices: np.ndarray) -> str:
        return _code_points(self.characters)[indices].tobytes().decode("utf-32-le")

    def difference(self, other: Vocabulary) -> str:
        """In words, what `other` has that this one has not, and the reverse; "" if they are the same."""
        new, gone = set(other.characters) - set(self.characters), set(self.characters) - set(other.characters)
        parts = [f"{verb} {_show(found)}" for verb, found in (("it adds", new), ("it lacks", gone)) if found]
        return " and ".join(parts)


def _show(characters: set[str], most: int = 8) -> str:
    shown = " ".join(repr(c) for c in sorted(characters)[:most])
    return shown + (f" and {len(characters) - most} more" if len(characters) > most else "")


@dataclass(frozen=True, eq=False)
class Text:
    """A text in memory. Raises UserError if nothing can be learned from it."""

    name: str
    content: str = field(repr=False)
    source: str = ""
    notices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.content:
            raise UserError(f"{self.source or self.name}: the file is empty")
        if len(self.vocabulary) < 2:
            raise UserError(f"{self.source or self.name}: one character over and over, there is nothing to learn")
        if len(self.content) < 20:
            raise UserError(f"{self.source or self.name}: {len(self.content)} characters are too few to hold any out")

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.of(self.content)

    @cached_property
    def _indices(self) -> np.ndarray:
        return self.vocabulary.encode(self.content)

    @property
    def _cut(self) -> int:
        return len(self.content) * 9 // 10

    @property
    def train(self) -> np.ndarray:
        """Indices of the first 90 %."""
        return self._indices[: self._cut]

    @property
    def test(self) -> np.ndarray:
        """Indices of the last 10 %."""
        return self._indices[self._cut :]

    @property
    def held_out(self) -> str:
        """The last 10 % as it reads."""
        return self.content[self._cut :]

    @property
    def crc32(self) -> int:
        return zlib.crc32(self.content.encode())


def load_text(path: str | os.PathLike[str] | None = None) -> Text:
    """Read a file of UTF-8, or without a path Python's help topics.

    Raises UserError: no such file, a folder, not readable, not UTF-8, empty.
    """
    if path is None:
        return _topics()
    file = Path(path).expanduser()
    try:
        content = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{file}: is a folder; give a file of text") from None
    except UnicodeDecodeError as e:
        raise UserError(f"{file}: not UTF-8 text (byte 0x{e.object[e.start]:02x} at offset {e.start})") from None
    except (OSError, ValueError) as e:
        raise UserError(f"cannot read {file}: {getattr(e, 'strerror', None) or e}") from e
    return Text(file.stem, content.replace("\r\n", "\n").replace("\r", "\n"), str(file))


def _topics() -> Text:
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise UserError("this Python comes without pydoc_data.topics, the default text; give a file") from None
    content = "\n".join(topics[name] for name in sorted(topics))
    return Text("pydoc-topics", content, "the help topics of this Python, PSF licence")


class Streams:
    """Training text as `batch_size` streams that are read side by side, `length` characters at a time.

    The n characters form a ring. Stream k begins at k n / B, and batch t takes up each stream where batch t - 1 left it:

        x_t[i, k] = text[(k n // B + t T + i) mod n]          the targets y_t are the characters one further

    so a recurrent state carried from batch to batch has always read what stands before. A batch is a function of its number
    alone: that is all a resumed run has to know. Where the ring closes, once in a pass, the text jumps from its end to its
    beginning.

    Raises UserError if the text is shorter than one batch.
    """

    def __init__(self, indices: np.ndarray, batch_size: int, length: int) -> None:
        if len(indices) <= batch_size * length:
            raise UserError(
                f"the text has {len(indices)} training characters, fewer than one batch of {batch_size} x {length} and a target"
            )
        self.indices, self.length = indices, length
        self.starts = np.arange(batch_size) * len(indices) // batch_size

    @property
    def batches_per_pass(self) -> int:
        """Batches after which every character has been read about once."""
        return len(self.indices) // (len(self.starts) * self.length)

    def at(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch number `step`, counted from 0: inputs and targets, int64 (T, B)."""
        at = (self.starts + step * self.length + np.arange(self.length + 1)[:, None]) % len(self.indices)
        both = self.indices[at].astype(np.int64)
        return both[:-1], both[1:]
