"""Captions: what a person would type to ask for a class, slips of the finger included.

    class "3"        three   3   a three   the digit three
    class "truck"    truck   a truck   picture of a truck

Captions are in small letters, with single spaces; an underscore is a space. The vocabulary is a-z, the digits, the space and
what else the names of the classes hold. A misspelling is one slip in a word of three letters or more: a letter dropped, doubled
or replaced, or two neighbours swapped. Most misspellings are of these kinds (Damerau 1964, who counts any letter put in).

    >>> captions = Captions(("0", "1", "2", "3"))
    >>> captions.of[3]
    ('three', '3', 'a three', 'the digit three')
    >>> rng = np.random.default_rng(2)
    >>> [misspell("three", rng) for _ in range(4)]
    ['threee', 'tthree', 'there', 'thee']
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigen.data.text import Vocabulary
from minigen.errors import UserError

Array = np.ndarray[Any, Any]
DIGITS = {
    "0": "zero", "1": "one", "2": "two", "3": "three", "4": "four", "5": "five", "6": "six", "7": "seven", "8": "eight",
    "9": "nine",
}  # fmt: skip
LETTERS = string.ascii_lowercase
SLIPS = ("drop", "double", "replace", "swap")
WORD = re.compile(r"[^\W\d_]{3,}")  # shorter ones would turn into one another


def normal(text: str) -> str:
    """As the net reads it: small letters, single spaces, none at the ends."""
    return " ".join(text.replace("_", " ").lower().split())


def misspell(text: str, rng: np.random.Generator, letters: str = LETTERS) -> str:
    """One slip away from `text`; the text itself if it has no word of three letters. A swap of nothing to swap is a double."""
    places = [i for word in WORD.finditer(text) for i in range(*word.span())]
    if not places:
        return text
    i = places[rng.integers(len(places))]
    kind, c, following = SLIPS[rng.integers(len(SLIPS))], text[i], text[i + 1 : i + 2]
    if kind == "swap" and (i + 1 not in places or following == c):
        kind = "double"
    others = letters.replace(c, "")
    if kind == "replace":
        new = others[rng.integers(len(others))]
    else:
        new = {"drop": "", "double": c + c, "swap": following + c}[kind]
    return text[:i] + new + text[i + (2 if kind == "swap" else 1) :]


class Captions:
    """The captions `of` each class, the plainest first. Raises UserError if two classes would have the same one."""

    def __init__(self, classes: Sequence[str]) -> None:
        plain = [DIGITS.get(name, normal(name)) for name in classes]
        self._label: dict[str, int] = {}  # of each caption
        for label, text in enumerate(plain):
            if not text or text in self._label:
                other = f" and {classes[self._label[text]]!r} have the same caption" if text else " is no name for a caption"
                raise UserError(f"captions are made of the names of classes: {classes[label]!r}{other}")
            self._label[text] = label
        both = list(enumerate(zip(classes, plain, strict=True)))
        # What stands for one class already, "a truck" where a class is called so, is not another's too.
        self.of = [tuple(t for t in _ways(*names) if self._label.setdefault(t, label) == label) for label, names in both]
        self.vocabulary = Vocabulary.of(LETTERS + string.digits + " " + "".join(self._label))
        self._letters = "".join(c for c in self.vocabulary.characters if c.isalpha())

    def plain(self, labels: Any) -> list[str]:
        """The plainest caption of each label."""
        return [self.of[label][0] for label in labels]

    def draw(self, rng: np.random.Generator, labels: Any, misspelled: float = 0.0) -> list[str]:
        """One of the captions of each label; that share of them with a slip."""
        found = []
        for label in labels:
            text = self.of[label][rng.integers(len(self.of[label]))]
            found.append(self.slip(rng, label, text) if rng.random() < misspelled else text)
        return found

    def slip(self, rng: np.random.Generator, label: int, text: str) -> str:
        """The text misspelled, unless that spells another class: "cat" may not become "car" where both are classes."""
        found = misspell(text, rng, self._letters)
        return found if self._label.get(found, label) == label else text

    @property
    def longest(self) -> int:
        """Characters of the longest caption, with a slip that adds one."""
        return 1 + max(len(text) for texts in self.of for text in texts)

    def encode(self, texts: Sequence[str], least: int = 1) -> tuple[Array, Array]:
        """Texts -> indices (T, N) of their characters, and a mask (T, N), False where a text has ended. An empty one is none.

        T is the length of the longest of them, and no less than `least`. Raises UserError that names a text and its characters
        that are not in the vocabulary.
        """
        known = [self._known(normal(text)) for text in texts]
        mask = np.arange(max([least, *map(len, known)]))[:, None] < [len(k) for k in known]
        index = np.zeros(mask.shape, np.int64)
        for column, k in enumerate(known):
            index[: len(k), column] = k
        return index, mask

    def _known(self, text: str) -> Array:
        try:
            return self.vocabulary.encode(text)
        except UserError as e:
            raise UserError(f"the caption {text!r} has characters that are {e}") from e


def _ways(name: str, plain: str) -> tuple[str, ...]:
    """How a class is asked for, the plainest first."""
    if name in DIGITS:
        return plain, name, _with_article(plain), f"the digit {plain}"
    return plain, _with_article(plain), f"picture of {_with_article(plain)}"


def _with_article(noun: str) -> str:
    vowel = noun[0] in "aeiou" and not noun.startswith(("one", "uni", "eu"))
    return f"{'an' if vowel else 'a'} {noun}"
