"""Character n-grams: is what a model writes made of pieces that real text has?

    presence    of all n-grams in the samples, the share that occurs in a reference text the model has not seen
    distinct    of all n-grams in the samples, the share that is left when repetitions are struck out

Presence is a precision: it rises as spelling and spacing become real. (Press et al. 2017 count it for n-grams of words.) A
model that wrote "the the the" would score 1, so it is read beside distinct (Li et al. 2016) and beside the likelihood of the
reference. N-grams never cross from one sample into the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def ngrams(text: str, n: int) -> Iterator[str]:
    """All len(text) - n + 1 pieces of n characters, in order, with repetitions."""
    return (text[i : i + n] for i in range(len(text) - n + 1))


def _all(samples: Sequence[str], n: int) -> list[str]:
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    found = [gram for sample in samples for gram in ngrams(sample, n)]
    if not found:
        raise ValueError(f"no sample has {n} characters")
    return found


def presence(samples: Sequence[str], reference: str, n: int) -> float:
    """The share of the samples' n-grams that occur in `reference`, in [0, 1]."""
    found = _all(samples, n)
    if len(reference) < n:
        raise ValueError(f"the reference has {len(reference)} characters, fewer than {n}")
    known = set(ngrams(reference, n))
    return sum(gram in known for gram in found) / len(found)


def distinct(samples: Sequence[str], n: int) -> float:
    """Different n-grams over all n-grams, in (0, 1]. Comparable only between samples of the same total length."""
    found = _all(samples, n)
    return len(set(found)) / len(found)
