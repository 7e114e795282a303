"""Folders and archives of images, and the cache of decoded images."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minigen import data
from minigen.data import cifar10, decode, decoded, folder, resize
from minigen.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
REAL_CIFAR10 = ROOT.parent / "shared" / "data" / "cifar10"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Every test has a cache folder of its own."""
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MINIGEN_DATA", str(place))
    return place


def fails(call, *parts):
    """`call` must raise a UserError of one line that contains every part."""
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message, f"{part!r} is not in {message!r}"
    return message


def tar(path, root, members=None):
    with tarfile.open(path, "w:gz") as archive:
        for name in members or [""]:
            archive.add(root / name, arcname=name or root.name)
    return path


# Folders of images ------------------------------------------------------------------------------------------


def picture(path, color=(200, 10, 30), size=(8, 8), mode="RGB", **save):
    """Write an image of one colour; size is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path, **save)


def pictures(place, names, **kwargs):
    for number, name in enumerate(names):
        picture(place / name, color=(number, 255 - number, 7), **kwargs)


def reds(images):
    return images[:, 0, 0, 0].tolist()


def test_a_flat_folder_is_read_in_natural_order(tmp_path):
    pictures(tmp_path, [f"im{i}.png" for i in range(25)])
    ds = data.load(tmp_path)
    assert ds.labels is None and ds.classes == () and ds.shape == (3, 8, 8) and ds.notices == ()
    assert reds(ds.test_images) == [9, 19]
    assert reds(ds.images) == [i for i in range(25) if i not in (9, 19)]


def test_images_are_decoded_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "CHUNK", 4)
    pictures(tmp_path, [f"{i}.png" for i in range(9)])
    assert reds(data.load(tmp_path).images) == list(range(9))


def test_subfolders_are_classes(tmp_path):
    for kind in ("dog", "cat", "10", "9"):
        pictures(tmp_path / kind, [f"{i}.png" for i in range(5)])
    picture(tmp_path / ".hidden" / "x.png")
    picture(tmp_path / "__MACOSX" / "x.png")
    ds = data.load(tmp_path)
    assert ds.classes == ("9", "10", "cat", "dog")
    assert ds.labels.tolist() == [0] * 5 + [1] * 4 + [2] * 5 + [3] * 4 and ds.test_labels.tolist() == [1, 3]


@pytest.mark.parametrize("held_out", ["test", "val", "Validation"])
@pytest.mark.parametrize("around", ["", "everything/"])
def test_train_and_test_folders_are_the_split(tmp_path, held_out, around):
    for part, count in (("train", 3), (held_out, 2)):
        for kind in ("a", "b"):
            pictures(tmp_path / around / part / kind, [f"{i}.png" for i in range(count)])
    ds = data.load(tmp_path)
    assert ds.labels.tolist() == [0, 0, 0, 1, 1, 1] and ds.test_labels.tolist() == [0, 0, 1, 1]
    assert ds.classes == ("a", "b")


def test_what_gives_no_labels(tmp_path):
    pictures(tmp_path / "one" / "cat", [f"{i}.png" for i in range(12)])
    assert data.load(tmp_path / "one").labels is None
    for part in ("train", "test"):
        pictures(tmp_path / "split" / part / "cat", ["1.png"])
    assert data.load(tmp_path / "split").classes == ()
    pictures(tmp_path / "mixed" / "cat", ["1.png", "2.png"])
    pictures(tmp_path / "mixed", ["3.png"])
    ds = data.load(tmp_path / "mixed")
    assert ds.labels is None and any("no labels" in notice for notice in ds.notices)
    assert len(ds.test_images) == 0 and any("fewer than 10" in notice for notice in ds.notices)


def test_grey_images_have_one_channel(tmp_path):
    picture(tmp_path / "l" / "1.png", 77, mode="L")
    picture(tmp_path / "l" / "2.jpg", 77, mode="L")
    ds = data.load(tmp_path / "l")
    assert ds.shape == (1, 8, 8) and set(np.unique(ds.images)) == {77}
    picture(tmp_path / "rgb" / "1.png", (9, 9, 9))  # grey, but stored in colour
    picture(tmp_path / "rgb" / "2.png", 8, mode="L")
    assert data.load(tmp_path / "rgb").shape == (1, 8, 8)
    picture(tmp_path / "rgb" / "3.png", (9, 9, 10))
    ds = data.load(tmp_path / "rgb")
    assert ds.shape == (3, 8, 8) and ds.images[:, :, 0, 0].tolist() == [[9, 9, 9], [8, 8, 8], [9, 9, 10]]


def test_palettes_transparency_16_bits_and_rotated_photographs(tmp_path):
    Image.fromarray(np.full((8, 8), 300 * 256, np.uint32).astype(np.uint16) + 0x8000).save(tmp_path / "1.png")
    picture(tmp_path / "2.png", (0, 0, 0, 0), mode="RGBA")
    Image.new("RGB", (8, 8), (1, 2, 3)).quantize(2).save(tmp_path / "3.png")
    camera = Image.new("RGB", (8, 16), (255, 0, 0))
    camera.paste((0, 0, 255), (0, 8, 8, 16))  # blue below red
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    camera.save(tmp_path / "4.jpg", exif=exif, quality=95)
    ds = data.load(tmp_path, size=8)
    assert ds.images[0, :, 0, 0].tolist() == [(300 % 256) + 0x80] * 3
    assert ds.images[1, :, 0, 0].tolist() == [255] * 3
    assert ds.images[2, :, 0, 0].tolist() == [1, 2, 3]
    left, right = ds.images[3, :, 4, 0], ds.images[3, :, 4, -1]
    assert left[2] > 200 > 50 > left[0] and right[0] > 200 > 50 > right[2]
    assert any("1 images can be transparent" in notice for notice in ds.notices)
    picture(tmp_path / "held" / "1.jpg", size=(8, 16), exif=exif)
    assert data.load(tmp_path / "held").shape == (3, 8, 16)


def test_a_large_photograph_is_decoded_small_but_alike(tmp_path):
    """Pillow skips JPEG detail that the target cannot show; stripes two pixels wide must survive."""
    stripes = np.broadcast_to(np.arange(128) // 8 % 2 * 200 + 30, (128, 128)).astype(np.uint8)
    wave = np.stack([stripes, stripes.T, stripes], axis=-1)
    Image.fromarray(wave).save(tmp_path / "1.jpg", quality=95)
    ds = data.load(tmp_path, size=32)
    expected = resize.fit_array(wave.transpose(2, 0, 1)[None], (32, 32))
    assert np.abs(ds.images.astype(int) - expected).max() < 25


def test_sizes_that_differ_are_resized_with_a_notice(tmp_path):
    pictures(tmp_path, ["1.png", "2.png"], size=(12, 16))
    pictures(tmp_path, ["3.png"], size=(40, 20))
    ds = data.load(tmp_path)
    assert ds.shape == (3, 16, 12)
    assert "1 of 3 images cropped and resized from 2 sizes from 16x12 to 20x40 to 16x12" in ds.notices
    ds = data.load(tmp_path, size=20)
    assert ds.shape == (3, 20, 20) and reds(ds.images) == [0, 1, 0]


def test_a_size_that_is_not_a_multiple_of_4_is_rounded(tmp_path):
    pictures(tmp_path, ["1.png"], size=(30, 33))
    ds = data.load(tmp_path)
    assert ds.shape == (3, 32, 32) and any(
        "1 of 1 images" in notice and "33x30 to 32x32" in notice for notice in ds.notices
    )


def test_other_files_are_left_out_with_a_notice(tmp_path):
    pictures(tmp_path, [f"{i}.PNG" for i in range(10)])
    (tmp_path / "readme.txt").write_text("hello")
    assert any(notice.startswith("1 files that are not") for notice in data.load(tmp_path).notices)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("damage", ["empty", "text", "cut"])
def test_a_damaged_image_is_named(tmp_path, suffix, damage):
    pictures(tmp_path / "cat", [f"{i}.{suffix}" for i in range(12)])
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    bad = tmp_path / "cat" / f"7.{suffix}"
    Image.fromarray(noise).resize((8, 8)).save(bad)
    content = bad.read_bytes()
    bad.write_bytes({"empty": b"", "text": b"hello", "cut": content[: len(content) * 2 // 3]}[damage])
    fails(lambda: data.load(tmp_path), bad, "cannot read this image")


def test_empty_and_missing_folders(tmp_path):
    fails(lambda: data.load(tmp_path), tmp_path, "no images found")
    fails(lambda: data.load(tmp_path / "nowhere"), tmp_path / "nowhere", "no such file or folder")
    (tmp_path / "x.txt").write_text("")
    fails(lambda: data.load(tmp_path / "x.txt"), "give a folder")


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "MOST_BYTES", 1000)
    pictures(tmp_path, [f"{i}.png" for i in range(10)])
    fails(lambda: data.load(tmp_path), "10 images of 8x8", "choose a size")


def test_an_archive_of_a_folder(tmp_path):
    for kind in ("a", "b"):
        pictures(tmp_path / "pets" / kind, [f"{i}.png" for i in range(10)])
    (tmp_path / "home").mkdir()
    archive = tar(tmp_path / "home" / "pets.tar.gz", tmp_path / "pets")
    direct, within, plain = data.load(archive), data.load(tmp_path / "home"), data.load(tmp_path / "pets")
    for ds in (direct, within):
        np.testing.assert_array_equal(ds.images, plain.images)
        np.testing.assert_array_equal(ds.labels, plain.labels)
        assert ds.classes == ("a", "b")
    whole = archive.read_bytes()
    for lost in (1, 20, 200, len(whole) // 2):  # even where only the padding after the last image is missing
        archive.write_bytes(whole[:-lost])
        fails(lambda: data.load(archive), archive, "damaged archive")


@settings(max_examples=100)
@given(st.lists(st.text(st.sampled_from("ab0123456789./"), max_size=6), unique=True))
def test_natural_order_is_a_total_order_that_sorts_numbers_by_value(names):
    ordered = sorted(names, key=folder._natural)
    backwards = names[::-1]
    assert ordered == sorted(backwards, key=folder._natural)
    numbers = [int(name) for name in ordered if name.isdigit()]
    assert numbers == sorted(numbers)


# The cache of decoded images --------------------------------------------------------------------------------


def test_decoded_images_are_used_again_until_a_file_changes(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(decoded, "FEWEST", 1)
    decodes = []
    real = folder.decode
    monkeypatch.setattr(folder, "decode", lambda *args: decodes.append(1) or real(*args))
    for kind in ("a", "b"):
        pictures(tmp_path / kind, [f"{i}.png" for i in range(10)])
    first, again = data.load(tmp_path), data.load(tmp_path)
    assert len(decodes) == 1
    for name in ("images", "labels", "test_images", "test_labels"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert (first.classes, first.notices, first.name) == (again.classes, again.notices, again.name)
    data.load(tmp_path, size=16)
    assert len(decodes) == 2 and len(list((cache / "decoded").iterdir())) == 2
    picture(tmp_path / "a" / "0.png", (250, 0, 0))
    assert 250 in reds(data.load(tmp_path).images)
    assert len(decodes) == 3 and len(list((cache / "decoded").iterdir())) == 2  # the stale file is gone


def test_a_small_folder_is_not_cached(tmp_path, cache):
    pictures(tmp_path, [f"{i}.png" for i in range(10)])
    data.load(tmp_path)
    assert list(cache.iterdir()) == []


def test_a_damaged_or_unwritable_cache_costs_nothing(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(decoded, "FEWEST", 1)
    pictures(tmp_path, [f"{i}.png" for i in range(10)])
    data.load(tmp_path)
    (saved,) = (cache / "decoded").iterdir()
    saved.write_bytes(saved.read_bytes()[:-30])
    assert reds(data.load(tmp_path).images) == list(range(9))
    saved.write_bytes(b"nonsense")
    assert reds(data.load(tmp_path).images) == list(range(9))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path / "file"))
    assert reds(data.load(tmp_path).images) == list(range(9))


@pytest.mark.skipif(not REAL_CIFAR10.is_dir(), reason=f"no CIFAR-10 in {REAL_CIFAR10}")
def test_real_cifar10_as_a_folder_of_jpegs(tmp_path):
    """Every hundredth image of the archive: reading all 60,000 takes several seconds."""
    (source,) = REAL_CIFAR10.glob("*.tar.gz")
    with tarfile.open(source, "r|gz") as archive, tarfile.open(tmp_path / "some.tar.gz", "w:gz") as some:
        for member in archive:
            if member.isfile() and member.name.endswith("00.jpg"):
                some.addfile(member, io.BytesIO(archive.extractfile(member).read()))
    ds = data.load(tmp_path)
    assert ds.classes == cifar10.CLASSES
    assert ds.images.shape == (500, 3, 32, 32) and ds.test_images.shape == (100, 3, 32, 32)
    assert np.bincount(ds.labels).tolist() == [50] * 10 and np.bincount(ds.test_labels).tolist() == [10] * 10
    mean = ds.images.mean(axis=(0, 2, 3)) / 255
    np.testing.assert_allclose(
        mean, [0.4914, 0.4822, 0.4465], atol=0.03
    )  # CIFAR-10's published channel means
