"""Data sets, loaders, and `load`: what they return and what they refuse."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from minigen import data
from minigen.data import digits, resize
from minigen.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def fails(call, *parts):
    """`call` must raise a UserError of one line that contains every part."""
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message, f"{part!r} is not in {message!r}"
    return message


# The scale --------------------------------------------------------------------------------------------------


def test_every_byte_survives_the_trip_to_float():
    levels = np.arange(256, dtype=np.uint8)
    x = data.to_float(levels)
    assert x.dtype == np.float32
    assert x[0] == -1 and x[255] == 1
    np.testing.assert_allclose(x, levels / 127.5 - 1, atol=1e-7)
    np.testing.assert_array_equal(data.to_uint8(x), levels)


@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=4), elements=st.floats(-3, 3, width=32)))
def test_to_uint8_rounds_and_clips(x):
    bytes_ = data.to_uint8(x)
    assert bytes_.dtype == np.uint8 and bytes_.shape == x.shape
    error = np.abs(bytes_ / 127.5 - 1 - np.clip(x, -1, 1))
    assert error.max(initial=0) <= 0.5 / 127.5 + 1e-6


# Dataset ----------------------------------------------------------------------------------------------------


def dataset(images, labels=None, classes=(), test=None, test_labels=None):
    return data.Dataset(
        "mine", images, labels, classes, images[:0] if test is None else test, test_labels, ""
    )


def test_dataset_accepts_images_and_points():
    pictures = dataset(np.zeros((2, 3, 8, 12), np.uint8))
    assert pictures.kind == "images" and pictures.shape == (3, 8, 12)
    points = dataset(np.zeros((2, 2), np.float32))
    assert points.kind == "points" and points.shape == (2,)


@pytest.mark.parametrize(
    "shape, part",
    [((2, 1, 9, 8), "9x8"), ((2, 1, 8, 0), "8x0"), ((2, 2, 8, 8), "1 or 3 channels"), ((0, 1, 8, 8), "no")],
)
def test_dataset_refuses_shapes(shape, part):
    fails(lambda: dataset(np.zeros(shape, np.uint8)), "mine", part)


def test_dataset_refuses_wrong_labels():
    images = np.zeros((3, 1, 4, 4), np.uint8)
    two = np.zeros(2, np.int64)
    fails(lambda: dataset(images, two, ("a",), test_labels=two[:0]), "3 training images but 2 labels")
    high = np.array([0, 1, 2])
    fails(lambda: dataset(images, high, ("a", "b"), test_labels=two[:0]), "from 0 to 2, expected 0 to 1")
    with pytest.raises(TypeError, match="uint8"):
        dataset(images.astype(np.float32))
    with pytest.raises(TypeError, match="neither"):
        dataset(images, high, ("a", "b", "c"))


# Loader -----------------------------------------------------------------------------------------------------


def numbered(count):
    """One-pixel-coded examples: image i holds i in its bytes, label i."""
    images = np.zeros((count, 1, 4, 4), np.uint8)
    images[:, 0, 0, 0] = np.arange(count) % 256
    return images, np.arange(count)


def test_an_epoch_draws_each_example_at_most_once_and_drops_the_short_batch():
    images, labels = numbered(23)
    loader = data.Loader(images, labels, batch_size=5, seed=3)
    assert loader.batches_per_epoch == 4
    for epoch in range(3):
        drawn = []
        for _ in range(4):
            x, y = loader.next()
            assert x.shape == (5, 1, 4, 4) and x.dtype == np.float32 and y.dtype == np.int64
            np.testing.assert_array_equal(x, data.to_float(images[y]))
            drawn += y.tolist()
        assert len(set(drawn)) == 20 and loader.epoch == epoch


def test_data_of_whole_batches_is_drawn_completely():
    images, labels = numbered(20)
    loader = data.Loader(images, labels, batch_size=5)
    for _ in range(2):
        assert sorted(np.concatenate([loader.next()[1] for _ in range(4)])) == list(range(20))


def orders(seed, count=40, batches=30):
    images, labels = numbered(count)
    loader = data.Loader(images, labels, 7, seed)
    return [loader.next()[1].tolist() for _ in range(batches)]


def test_the_order_depends_on_seed_and_epoch_and_nothing_else():
    assert orders(1) == orders(1)
    assert orders(1) != orders(2)
    first, second = orders(1)[:5], orders(1)[5:10]
    assert first != second
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([1, 1])))
    assert [label for batch in second for label in batch] == generator.permutation(40)[:35].tolist()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**40), st.integers(0, 60), st.integers(1, 10))
def test_a_resumed_loader_continues_bit_for_bit(count, batch, seed, before, after):
    batch = min(batch, count)
    images, labels = numbered(count)
    whole = data.Loader(images, labels, batch, seed)
    for _ in range(before):
        whole.next()
    state = whole.state_dict()
    resumed = data.Loader(images, labels, batch, seed)
    resumed.load_state_dict(state)
    for _ in range(after):
        (x, y), (x2, y2) = whole.next(), resumed.next()
        np.testing.assert_array_equal(x, x2)
        np.testing.assert_array_equal(y, y2)


def test_loader_passes_points_through_and_allows_no_labels():
    points = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    x, y = data.Loader(points, None, 9).next()
    assert y is None and x.dtype == np.float32
    assert sorted(map(tuple, x)) == sorted(map(tuple, points))


def test_loader_refuses_bad_input():
    images, labels = numbered(10)
    fails(lambda: data.Loader(images, labels, 64), "10", "64")
    fails(lambda: data.Loader(images, labels, 0), "batch size", "0")
    fails(lambda: data.Loader(images, labels, 4, seed=-1), "seed", "-1")
    loader = data.Loader(images, labels, 4)
    for epoch, position, words in ((0, 11, ("example 11", "10")), (-1, 0, ("epoch -1",))):
        state = {"position": np.array([epoch, position])}
        fails(lambda state=state: loader.load_state_dict(state), *words)


# digits -----------------------------------------------------------------------------------------------------


def test_digits_are_the_published_ones():
    ds = data.load("digits")
    assert ds.images.shape == (1500, 1, 8, 8) and ds.test_images.shape == (297, 1, 8, 8)
    both = np.concatenate([ds.labels, ds.test_labels])
    assert np.bincount(both).tolist() == [
        178,
        182,
        177,
        183,
        181,
        182,
        181,
        179,
        174,
        180,
    ]  # UCI's class counts
    assert ds.images.dtype == np.uint8 and ds.labels.dtype == np.int64
    assert ds.images[0, 0, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]  # 0 0 5 13 9 1 0 0, times 255/16
    assert len(np.unique(ds.images)) == 17 and ds.images.max() == 255


def test_digits_equal_scikit_learns():
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    theirs = datasets.load_digits()
    ds = data.load("digits")
    ours = np.concatenate([ds.images, ds.test_images])[:, 0]
    np.testing.assert_array_equal(ours, np.rint(theirs.images * 255 / 16))
    np.testing.assert_array_equal(np.concatenate([ds.labels, ds.test_labels]), theirs.target)


def test_digits_ship_small_and_with_their_attribution():
    place = Path(digits.__file__).parent
    assert (place / "digits.npz").stat().st_size < 100_000
    text = (place / "digits.txt").read_text()
    for part in ("Alpaydin", "Kaynak", "1998", "10.24432/C50P49", "CC BY 4.0"):
        assert part in text and part in data.load("digits").source


# Sizes ------------------------------------------------------------------------------------------------------


def test_size_resizes_and_says_so():
    ds = data.load("digits", size=16)
    assert ds.images.shape == (1500, 1, 16, 16) and ds.test_images.shape == (297, 1, 16, 16)
    assert ds.notices == ("images resized from 8x8 to 16x16",)
    assert data.load("digits", size=8).notices == ()
    small = data.load("digits").images.mean()
    assert abs(ds.images.mean() - small) < 5  # the same pictures, only larger


@pytest.mark.parametrize("size", [0, 2, 30, -4, 8192])
def test_size_must_be_a_multiple_of_4(size):
    fails(lambda: data.load("digits", size=size), "multiple of 4", size)


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_round_to_4_is_the_nearest(height, width):
    for old, new in zip((height, width), resize.round_to_4(height, width), strict=True):
        assert new % 4 == 0 and new >= 4
        assert abs(new - old) <= 2 or old < 4


def test_choose_size():
    assert resize.choose_size([(48, 48)] * 3) == (48, 48)
    assert resize.choose_size([(30, 33)]) == (32, 32)
    assert resize.choose_size([(256, 256)] * 2) == (256, 256)  # one size: the user prepared it
    assert resize.choose_size([(480, 640), (480, 640), (9, 9)]) == (48, 64)
    assert resize.choose_size([(8, 8), (12, 12)]) == (8, 8)


def test_a_picture_is_cropped_not_squeezed():
    wide = np.zeros((1, 3, 8, 24), np.uint8)
    wide[..., 8:16] = 255  # a white square in the middle third
    assert (resize.fit_array(wide, (8, 8)) == 255).all()


# load -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong, right", [("minst", "mnist"), ("MNIST", "mnist"), ("fasion", "fashion"), ("digit", "digits")]
)
def test_a_misspelt_name_gets_a_suggestion(wrong, right):
    message = fails(lambda: data.load(wrong), repr(wrong), f"did you mean {right}?")
    assert all(name in message for name in data.NAMES)


def test_a_hopeless_name_gets_the_list_only():
    message = fails(lambda: data.load("zzzz"), *data.NAMES)
    assert "did you mean" not in message


def test_a_name_wins_over_a_folder_and_a_path_over_the_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "digits" / "1.png")
    assert data.load("digits").shape == (1, 8, 8)
    assert data.load("./digits").shape == (3, 8, 8)
    assert data.load(Path("digits")).shape == (3, 8, 8)


def test_importing_the_package_is_light():
    heavy = ("PIL", "urllib.request", "tarfile")
    code = f"import sys, minigen.data; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
