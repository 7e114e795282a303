"""IDX files, MNIST, CIFAR-10 batches: read right, and refused with a message that helps."""

from __future__ import annotations

import gzip
import hashlib
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minigen import data
from minigen.data import cifar10, idx, mnist
from minigen.data.verify import verify
from minigen.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
REAL_MNIST = ROOT.parent / "shared" / "data" / "mnist"


def fails(call, *parts):
    """`call` must raise a UserError of one line that contains every part."""
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message, f"{part!r} is not in {message!r}"
    return message


# IDX and MNIST ----------------------------------------------------------------------------------------------


def idx_bytes(array, kind=8):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.tobytes()


def write_mnist(place, count=20, test=6, side=28, gz=True, labels=None):
    rng = np.random.default_rng(0)
    place.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for part, number in (("train", count), ("t10k", test)):
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (number, side, side), np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = rng.integers(0, 10, labels or number, np.uint8)
    for name, array in arrays.items():
        raw = idx_bytes(array)
        (place / (name + ".gz" * gz)).write_bytes(gzip.compress(raw, mtime=0) if gz else raw)
    return arrays


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9)), st.booleans())
def test_idx_returns_what_was_written(tmp_path_factory, array, gz):
    path = tmp_path_factory.mktemp("idx") / ("x.gz" if gz else "x")
    path.write_bytes(gzip.compress(idx_bytes(array), mtime=0) if gz else idx_bytes(array))
    read = idx.read_idx(path, array.ndim)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array)


LABELS = idx_bytes(np.arange(100, dtype=np.uint8))  # 108 bytes


@pytest.mark.parametrize(
    "name, content, parts",
    [
        ("x.gz", LABELS, ["named .gz but not a gzip file", "remove .gz"]),
        ("x.gz", b"<html>", ["named .gz but not a gzip file"]),
        ("x", LABELS[:50], ["cut off", "expected 108 bytes", "found 50"]),
        ("x", LABELS[:3], ["cut off", "header takes 8 bytes", "found 3"]),
        ("x", LABELS + b"!", ["too long", "108", "109"]),
        ("x.gz", gzip.compress(LABELS[:50], mtime=0), ["cut off", "expected 108 bytes", "found 50"]),
        ("x.gz", gzip.compress(LABELS, mtime=0)[:-9], ["cut off"]),
        ("x.gz", gzip.compress(LABELS, mtime=0)[:-5] + b"AAAAA", ["damaged gzip data"]),
        ("x", idx_bytes(np.zeros((2, 2, 2), np.uint8)), ["magic number 0x00000803", "expected 0x00000801"]),
        ("x", idx_bytes(np.zeros(4, np.uint8), kind=13), ["magic number 0x00000d01"]),
    ],
)
def test_bad_idx_files(tmp_path, name, content, parts):
    (tmp_path / name).write_bytes(content)
    fails(lambda: idx.read_idx(tmp_path / name, 1), tmp_path / name, *parts)


def test_a_gzip_file_of_two_members(tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(LABELS[:50], mtime=0) + gzip.compress(LABELS[50:]))
    np.testing.assert_array_equal(idx.read_idx(tmp_path / "x.gz", 1), np.arange(100))


def test_a_truncated_gzip_says_how_much_is_missing(tmp_path):
    noise = idx_bytes(np.random.default_rng(0).integers(0, 256, 10_000, np.uint8))
    (tmp_path / "x.gz").write_bytes(gzip.compress(noise, mtime=0)[:5000])
    message = fails(lambda: idx.read_idx(tmp_path / "x.gz", 1), "cut off", "expected 10008 bytes")
    assert 0 < int(message.split("found ")[1]) < 5000


@pytest.mark.parametrize("gz", [True, False])
def test_a_folder_of_idx_files(tmp_path, gz):
    arrays = write_mnist(tmp_path / "letters", gz=gz)
    ds = data.load(str(tmp_path / "letters"))
    assert ds.name == "letters" and ds.images.shape == (20, 1, 28, 28) and ds.notices == ()
    np.testing.assert_array_equal(ds.images[:, 0], arrays["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(ds.test_labels, arrays["t10k-labels-idx1-ubyte"])
    assert ds.classes == tuple("0123456789")


def test_the_folder_layouts_of_others(tmp_path):
    write_mnist(tmp_path / "FashionMNIST" / "raw", gz=False)
    assert data.load(tmp_path / "FashionMNIST").classes == mnist.CLOTHES
    write_mnist(tmp_path / "dots")
    for path in (tmp_path / "dots").iterdir():
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert data.load(tmp_path / "dots").images.shape == (20, 1, 28, 28)


def test_idx_images_of_another_size_are_resized_with_a_notice(tmp_path):
    write_mnist(tmp_path, side=30)
    ds = data.load(tmp_path)
    assert ds.shape == (1, 32, 32) and ds.notices == ("images resized from 30x30 to 32x32",)


def test_mnist_folder_errors(tmp_path):
    write_mnist(tmp_path / "few", labels=15)
    fails(lambda: data.load(tmp_path / "few"), "train-labels", "15 labels for 20 images")
    write_mnist(tmp_path / "gone")
    (tmp_path / "gone" / "t10k-labels-idx1-ubyte.gz").unlink()
    fails(lambda: data.load(tmp_path / "gone"), tmp_path / "gone", "missing t10k-labels-idx1-ubyte")


# CIFAR-10 ---------------------------------------------------------------------------------------------------


def write_cifar10(place, monkeypatch, records=4):
    monkeypatch.setattr(cifar10, "RECORDS", records)
    place.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    blocks = {}
    for name in cifar10.FILES:
        block = rng.integers(0, 256, (records, 3073), np.uint8)
        block[:, 0] %= 10
        blocks[name] = block
        (place / name).write_bytes(block.tobytes())
    return blocks


def tar(path, root, members=None):
    with tarfile.open(path, "w:gz") as archive:
        for name in members or [""]:
            archive.add(root / name, arcname=name or root.name)
    return path


@pytest.mark.parametrize("kind", ["folder", "subfolder", "archive in folder", "archive"])
def test_cifar10_is_found_and_read(tmp_path, monkeypatch, kind):
    batches = tmp_path / "x" / "cifar-10-batches-bin"
    blocks = write_cifar10(batches, monkeypatch)
    spec = {"folder": batches, "subfolder": tmp_path / "x"}.get(kind)
    if spec is None:
        (tmp_path / "y").mkdir()
        archive = tar(tmp_path / "y" / "cifar-10-binary.tar.gz", batches)
        spec = archive if kind == "archive" else tmp_path / "y"
    ds = data.load(spec)
    assert ds.images.shape == (20, 3, 32, 32) and ds.test_images.shape == (4, 3, 32, 32)
    third = blocks["data_batch_3.bin"]
    np.testing.assert_array_equal(ds.labels[8:12], third[:, 0])
    np.testing.assert_array_equal(
        ds.images[8, 1, 0, :5], third[0, 1 + 1024 : 1 + 1024 + 5]
    )  # green, first row
    assert ds.classes[ds.labels[0]] in cifar10.CLASSES


def test_cifar10_errors(tmp_path, monkeypatch):
    write_cifar10(tmp_path, monkeypatch)
    path = tmp_path / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-1])
    fails(lambda: data.load(tmp_path), path, "cut off", 4 * 3073, 4 * 3073 - 1)
    path.write_bytes(bytes([11]) * (4 * 3073))
    fails(lambda: data.load(tmp_path), "labels run from 0 to 11")
    path.unlink()
    fails(lambda: data.load(tmp_path), "missing data_batch_2.bin")
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"not a tar")
    fails(lambda: data.load(tmp_path / "cifar-10-binary.tar.gz"), "damaged archive")


@pytest.mark.skipif(not REAL_MNIST.is_dir(), reason=f"no MNIST in {REAL_MNIST}")
def test_real_mnist():
    ds = data.load(REAL_MNIST)
    assert ds.images.shape == (60000, 1, 28, 28) and ds.test_images.shape == (10000, 1, 28, 28)
    assert ds.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.bincount(ds.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert abs(ds.images.mean() / 255 - 0.1307) < 1e-4
    checks = verify("mnist", REAL_MNIST)
    assert len(checks) == 4 and all(check.ok for check in checks), checks
    md5 = hashlib.md5(idx_bytes(ds.images[:, 0])).hexdigest()
    assert md5 == "6bbc9ace898e44ae57da46a324031adb"
