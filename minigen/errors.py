"""The one exception a user is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The message is one line that says what is wrong and what to do; the CLI prints it and exits with 2."""


def suggest(word: str, known: Iterable[str]) -> str:
    """What was probably meant by `word`; to be put after "unknown ..."."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; choose from {', '.join(known)}"
