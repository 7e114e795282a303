"""N-gram presence against a count that looks every piece up in the reference itself."""

from __future__ import annotations

import numpy as np
import pytest

from minigen.metrics import distinct, presence


def by_hand(samples, reference, n):
    found = present = 0
    for sample in samples:
        for start in range(len(sample)):
            gram = sample[start : start + n]
            if len(gram) == n:
                found += 1
                present += reference.find(gram) >= 0
    return present / found


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("alphabet", ["ab", "abcde \n", "aé∑🙂 "])
def test_against_a_brute_force_count(n, alphabet):
    rng = np.random.default_rng(n)

    def text(length):
        return "".join(rng.choice(list(alphabet), length))

    reference, samples = text(40), [text(length) for length in (0, 3, 7, 30, 12)]
    assert presence(samples, reference, n) == by_hand(samples, reference, n)
    grams = [s[i : i + n] for s in samples for i in range(len(s) - n + 1)]
    assert distinct(samples, n) == len(set(grams)) / len(grams)


def test_by_hand():
    assert presence(["abab"], "aba", 2) == 1
    assert presence(["abc"], "ab ca", 2) == 0.5
    assert presence(["abc", "abd"], "abc", 3) == 0.5
    assert distinct(["aaaa"], 2) == 1 / 3 and distinct(["abc", "abc"], 3) == 0.5


def test_pieces_do_not_cross_from_one_sample_to_the_next():
    assert presence(["xa", "bx"], "ab", 2) == 0


def test_what_cannot_be_counted_is_refused():
    for count in (lambda: presence(["abc"], "abc", 4), lambda: presence([], "abc", 1), lambda: distinct(["a"], 2)):
        with pytest.raises(ValueError, match="no sample has"):
            count()
    with pytest.raises(ValueError, match="the reference has 2 characters, fewer than 3"):
        presence(["abc"], "ab", 3)
    with pytest.raises(ValueError, match="n must be at least 1, not 0"):
        presence(["abc"], "abc", 0)
