"""Text: what is read, how it is split, and streams whose batches join."""

from __future__ import annotations

import os
import zlib

import numpy as np
import pytest

from minigen.data import Streams, Text, Vocabulary, load_text
from minigen.errors import UserError

# --- reading


def test_the_default_text_is_pythons_help():
    from pydoc_data.topics import topics

    text = load_text()
    assert text.content == "\n".join(topics[name] for name in sorted(topics)) and len(text.content) > 100_000
    assert text.name == "pydoc-topics" and "PSF" in text.source


def test_a_file_is_read_as_it_is_but_for_line_ends(tmp_path):
    path = tmp_path / "some novel.txt"
    path.write_bytes("\ufeffone\r\ntwo\rthree\n\r\nfour é 🙂 and more".encode())
    text = load_text(path)
    assert text.content == "one\ntwo\nthree\n\nfour é 🙂 and more"
    assert text.name == "some novel" and text.source == str(path)
    assert text.crc32 == zlib.crc32(text.content.encode())


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.txt").write_text("ab" * 20)
    assert load_text("~/a.txt").content == "ab" * 20


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        (b"caf\xe9 au lait", r"not UTF-8 text \(byte 0xe9 at offset 3\)"),
        (b"\x89PNG\r\n\x1a\n", r"not UTF-8 text \(byte 0x89 at offset 0\)"),
        (b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "one character over and over"),
        (b"abcdefgh", "8 characters are too few"),
    ],
)
def test_what_cannot_be_learned_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "nothing.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as e:
        load_text(path)
    assert "\n" not in str(e.value) and str(path) in str(e.value)


def test_folders_and_forbidden_files(tmp_path):
    with pytest.raises(UserError, match="is a folder; give a file of text"):
        load_text(tmp_path)
    path = tmp_path / "secret.txt"
    path.write_text("ab" * 20)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(UserError, match=r"cannot read .*secret\.txt: Permission denied"):
        load_text(path)


# --- vocabulary and split


def test_the_vocabulary_is_that_of_the_whole_text_in_order():
    text = Text("t", "b" * 50 + "a" * 45 + "🙂é\nc.")
    assert text.vocabulary.characters == "\n.abcé🙂" == "".join(sorted(set(text.content)))
    assert len(text.train) == 90 and set(text.train) == {2, 3}
    assert text.held_out == text.content[90:] == text.vocabulary.decode(text.test)
    assert text.vocabulary.decode(text.train) == text.content[:90]


@pytest.mark.parametrize("size", [2, 256, 257, 3000])
def test_any_number_of_characters(size):
    characters = "".join(map(chr, range(0x4E00, 0x4E00 + size)))
    vocabulary = Vocabulary.of(characters[::-1] * 2)
    assert vocabulary.characters == characters and len(vocabulary) == size
    index = vocabulary.encode(characters)
    assert index.tolist() == list(range(size)) and index.dtype == (np.uint8 if size <= 256 else np.uint16)
    assert vocabulary.encode("").shape == (0,) and vocabulary.decode(np.array([], np.int64)) == ""


def test_unknown_characters_are_named():
    vocabulary = Vocabulary.of("abc")
    for text, names in (("abz", "'z'"), ("\n~", r"'\\n' '~'"), ("0123456789", "'0' '1' '2' '3' '4' '5' '6' '7' and 2 more")):
        with pytest.raises(UserError, match=f"not in the vocabulary: {names}$"):
            vocabulary.encode(text)


def test_a_difference_in_words():
    abc = Vocabulary("abc")
    assert abc.difference(Vocabulary("abc")) == ""
    assert abc.difference(Vocabulary("abcd")) == "it adds 'd'"
    assert abc.difference(Vocabulary("bcé")) == "it adds 'é' and it lacks 'a'"


# --- streams

SIZES = [(50, 4, 3), (50, 1, 49), (1000, 7, 13), (60, 8, 7), (200, 3, 5)]


@pytest.mark.parametrize(("n", "batch", "length"), SIZES)
def test_each_stream_goes_on_where_it_was_left(n, batch, length):
    streams = Streams(np.arange(n), batch, length)
    for k in range(batch):
        expected = [(k * n // batch + i) % n for i in range(40 * length + 1)]
        read = np.concatenate([streams.at(t)[0][:, k] for t in range(40)])
        ahead = np.concatenate([streams.at(t)[1][:, k] for t in range(40)])
        np.testing.assert_array_equal(read, expected[:-1])
        np.testing.assert_array_equal(ahead, expected[1:])


@pytest.mark.parametrize(("n", "batch", "length"), SIZES)
def test_a_pass_reads_every_character(n, batch, length):
    streams = Streams(np.arange(n), batch, length)
    enough = -(-(n // batch + 1) // length)  # batches until the streams' pieces meet
    assert set(np.concatenate([streams.at(t)[0].ravel() for t in range(enough)])) == set(range(n))
    assert streams.batches_per_pass <= enough <= streams.batches_per_pass + 2 + n // (batch * length)


def test_a_batch_is_a_function_of_its_number():
    streams = Streams(np.arange(200, dtype=np.uint8), 3, 5)
    late = streams.at(17)
    streams.at(2)
    for a, b in zip(late, Streams(np.arange(200, dtype=np.uint8), 3, 5).at(17), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == np.int64 and a.shape == (5, 3)


def test_a_text_shorter_than_a_batch():
    Streams(np.arange(13), 4, 3)
    with pytest.raises(UserError, match="has 12 training characters, fewer than one batch of 4 x 3 and a target"):
        Streams(np.arange(12), 4, 3)
