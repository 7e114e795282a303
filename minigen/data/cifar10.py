"""CIFAR-10 from the binary version: six files of 10,000 records.

A record is 1 label byte, then 3,072 pixel bytes: the red, the green and the blue plane, each 32x32, in rows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minigen.data.archive import read_archive
from minigen.data.dataset import Dataset
from minigen.data.resize import Size, fit_split
from minigen.errors import UserError

TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST_FILE = "test_batch.bin"
FILES = (*TRAIN_FILES, TEST_FILE)
SUBFOLDER = "cifar-10-batches-bin"
ARCHIVE = "cifar-10-binary.tar.gz"

RECORDS = 10_000
RECORD_BYTES = 1 + 3 * 32 * 32

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SOURCE = "Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images (CIFAR-10)"


def find_cifar10(folder: Path) -> Path | None:
    """Where the batches are: `folder`, its cifar-10-batches-bin, its cifar-10-binary.tar.gz, or None."""
    for place in (folder, folder / SUBFOLDER):
        if any((place / name).is_file() for name in FILES):
            return place
    archive = folder / ARCHIVE
    return archive if archive.is_file() else None


def load_cifar10(path: Path, name: str = "cifar10", size: Size | None = None) -> Dataset:
    """Read the batches from a folder, or from the archive -> uint8 (50000, 3, 32, 32) and (10000, 3, 32, 32).

    Raises UserError when a batch is missing, cut off, or holds a label above 9.
    """
    if path.is_file():
        batches = unpack(path)
        where = str(path)
    else:
        place = find_cifar10(path)
        if place is not None and place.is_file():
            return load_cifar10(place, name, size)
        where = str(place or path)
        batches = read_folder(place or path)
    missing = [file for file in FILES if file not in batches]
    if missing:
        raise UserError(f"{where}: missing {', '.join(missing)}")
    parts = [_records(f"{where}/{file}", batches[file]) for file in FILES]
    train = np.concatenate([images for images, _ in parts[:-1]])
    labels = np.concatenate([numbers for _, numbers in parts[:-1]])
    test, test_labels = parts[-1]
    train, test, notices = fit_split(train, test, size)
    return Dataset(name, train, labels, CLASSES, test, test_labels, SOURCE, notices)


def unpack(path: Path) -> dict[str, bytes]:
    """The batches found in a .tar.gz, by file name. Raises UserError when the archive is damaged."""
    batches = read_archive(path, lambda name: Path(name).name in FILES)
    return {Path(name).name: data for name, data in batches.items()}


def read_folder(folder: Path) -> dict[str, bytes]:
    """The batches found in a folder, by file name. Raises UserError when one cannot be read."""
    batches: dict[str, bytes] = {}
    for file in FILES:
        try:
            batches[file] = (folder / file).read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UserError(f"{folder / file}: cannot be read: {error.strerror or error}") from error
    return batches


def _records(file: str, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """One batch -> images uint8 (10000, 3, 32, 32), labels int64 (10000,)."""
    expected = RECORDS * RECORD_BYTES
    if len(data) != expected:
        problem = "cut off" if len(data) < expected else "too long"
        raise UserError(f"{file}: {problem}: expected {expected} bytes, found {len(data)}")
    records = np.frombuffer(data, np.uint8).reshape(RECORDS, RECORD_BYTES)
    return records[:, 1:].reshape(RECORDS, 3, 32, 32), records[:, 0].astype(np.int64)
