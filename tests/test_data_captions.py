"""Captions: what each class is called, slips that are one edit away and never another class, and what the net reads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigen.data.captions import LETTERS, Captions, misspell, normal
from minigen.errors import UserError

DIGITS = Captions(tuple("0123456789"))


def distance(a: str, b: str) -> int:
    """Damerau's, by its recurrence: letters left out, put in or changed, and neighbours exchanged."""
    d = np.zeros((len(a) + 1, len(b) + 1), int)
    d[:, 0], d[0] = range(len(a) + 1), range(len(b) + 1)
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            d[i, j] = min(d[i - 1, j] + 1, d[i, j - 1] + 1, d[i - 1, j - 1] + (a[i - 1] != b[j - 1]))
            if i > 1 and j > 1 and a[i - 2 : i] == b[j - 2 : j][::-1]:
                d[i, j] = min(d[i, j], d[i - 2, j - 2] + 1)
    return int(d[-1, -1])


def test_digits_are_words_too():
    assert DIGITS.of[3] == ("three", "3", "a three", "the digit three")
    assert DIGITS.of[8][2] == "an eight" and DIGITS.of[1][2] == "a one"
    assert DIGITS.plain([0, 9, 0]) == ["zero", "nine", "zero"]
    assert DIGITS.vocabulary.characters == " 0123456789" + LETTERS


def test_other_classes_are_called_by_their_names():
    c = Captions(("truck", "Airplane", "golden_retriever", "T-shirt/top", "10"))
    assert c.of[0] == ("truck", "a truck", "picture of a truck")
    assert c.of[1] == ("airplane", "an airplane", "picture of an airplane")
    assert [t[0] for t in c.of[2:]] == ["golden retriever", "t-shirt/top", "10"]
    assert set(c.vocabulary.characters) == set(" -/0123456789" + LETTERS)
    assert c.plain([3]) == ["t-shirt/top"]


@pytest.mark.parametrize(
    ("classes", "message"),
    [(("a", "A"), "'A' and 'a' have the same caption"), (("zero", "0"), "'0' and 'zero' have"), (("x", "_"), "'_' is no name")],
)
def test_classes_that_cannot_be_told_apart_are_refused(classes, message):
    with pytest.raises(UserError, match=message):
        Captions(classes)


def test_a_caption_stands_for_one_class():
    c = Captions(("truck", "a truck"))
    assert c.of == [("truck", "picture of a truck"), ("a truck", "an a truck", "picture of an a truck")]


@settings(max_examples=300, deadline=None)
@given(st.text("abet 3'é_", min_size=1, max_size=12), st.integers(0, 2**32))
def test_every_misspelling_is_one_edit_away(text, seed):
    found = misspell(text, np.random.default_rng(seed))
    letters = "".join(c if c.isalpha() else " " for c in text).split()
    assert distance(text, found) == any(len(word) >= 3 for word in letters)


def test_all_four_slips_are_made():
    rng = np.random.default_rng(0)
    seen = {misspell("seven", rng) for _ in range(8000)}
    assert {"sven", "seveen", "sevn", "esven", "seevn", "sseven", "sevenn"} <= seen
    dropped, put_in = {s for s in seen if len(s) == 4}, {s for s in seen if len(s) == 6}
    assert len(dropped) == len(put_in) == 5
    swapped = {s for s in seen if len(s) == 5 and sorted(s) == sorted("seven")}
    assert len(swapped) == 4
    assert len(seen - dropped - put_in - swapped) == 5 * 25


def test_a_slip_never_spells_another_class():
    c = Captions(("cat", "car", "cart"))
    rng = np.random.default_rng(0)
    seen = {text: label for label in range(3) for text in c.draw(rng, np.full(3000, label), 1.0)}
    for label in range(3):
        assert all(seen[text] == label for text in c.of[label] if text in seen)
        assert any(text in seen for text in c.of[label])  # where the slip was refused


def test_captions_are_drawn_from_their_generator_and_their_share_is_misspelled():
    labels = np.arange(4000) % 10
    one, two = (DIGITS.draw(np.random.default_rng(1), labels, 0.25) for _ in range(2))
    assert one == two != DIGITS.draw(np.random.default_rng(2), labels, 0.25)
    wrong = [text not in DIGITS.of[label] for text, label in zip(one, labels, strict=True)]
    assert np.mean(wrong) == pytest.approx(0.25 * 3 / 4, abs=0.03)  # "3" has no letter to get wrong
    right = DIGITS.draw(np.random.default_rng(1), labels)
    for label, texts in enumerate(DIGITS.of):
        assert set(texts) == {t for t, k in zip(right, labels, strict=True) if k == label}


def test_what_the_net_reads():
    index, mask = DIGITS.encode(["three", "", "  A\tThree "])
    assert index.shape == mask.shape == (7, 3) and mask.sum(0).tolist() == [5, 0, 7]
    read = DIGITS.vocabulary.decode
    assert [read(index[mask[:, i], i]) for i in range(3)] == ["three", "", "a three"]
    assert (index[~mask] == 0).all()
    assert DIGITS.encode([""])[0].shape == (1, 1) and normal(" Golden_Retriever ") == "golden retriever"
    with pytest.raises(UserError, match="the caption 'três!' has characters that are not in the vocabulary: '!' 'ê'"):
        DIGITS.encode(["three", "Três!"])
