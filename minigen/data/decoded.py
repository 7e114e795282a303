"""Decoded image folders in the cache, so that 50,000 JPEGs are decoded once and not at every start.

A cached file is valid for one list of (path, size, time of change) of the originals and one requested image
size. Its loss, or a cache folder that cannot be written, costs time and nothing else.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minigen.data.cache import cache_dir, whole_file
from minigen.data.dataset import Dataset
from minigen.data.decode import Entry
from minigen.data.resize import Size
from minigen.errors import UserError

FEWEST = 1000  # images; fewer are decoded faster than they are worth keeping
FORMAT = 1  # raise it when decoding changes


def fingerprint(path: Path, files: Sequence[Entry] | None, size: Size | None) -> str:
    """A file name for the cache: `place`-`state`, two hashes. `files` is None for an archive."""
    place = hashlib.sha256(f"{path.resolve()} {size}".encode(errors="surrogateescape")).hexdigest()[:16]
    state = hashlib.sha256(f"{FORMAT}".encode())
    for name, file in [("", path)] if files is None else sorted((file.name, file.data) for file in files):
        assert isinstance(file, Path)
        try:
            stat = file.stat()
        except OSError as error:
            raise UserError(f"{file}: cannot be read: {error.strerror or error}") from error
        state.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return f"{place}-{state.hexdigest()[:16]}.npz"


def load(path: Path, name: str) -> Dataset | None:
    """The data set saved under this name; None if there is none, or it is damaged."""
    try:
        with np.load(_folder() / name, allow_pickle=False) as file:
            arrays = dict(file)
        return Dataset(
            name=path.resolve().name,
            images=arrays["images"],
            labels=arrays.get("labels"),
            classes=tuple(map(str, arrays["classes"])),
            test_images=arrays["test_images"],
            test_labels=arrays.get("test_labels"),
            source=f"images in {path}",
            notices=tuple(map(str, arrays["notices"])),
        )
    except (OSError, EOFError, KeyError, ValueError, TypeError, UserError, zipfile.BadZipFile, zlib.error):
        return None


def save(dataset: Dataset, path: Path, name: str) -> None:
    """Keep a large data set, in place of any earlier state of the same folder at the same size."""
    if len(dataset.images) + len(dataset.test_images) < FEWEST:
        return
    arrays = {"images": dataset.images, "test_images": dataset.test_images}
    if dataset.labels is not None and dataset.test_labels is not None:
        arrays |= {"labels": dataset.labels, "test_labels": dataset.test_labels}
    texts = {"classes": np.array(dataset.classes, str), "notices": np.array(dataset.notices, str)}
    target = _folder() / name
    try:
        with whole_file(target) as file:
            np.savez(file, **arrays, **texts)  # type: ignore[arg-type]
        for old in target.parent.glob(f"{name.partition('-')[0]}-*.npz"):
            if old != target:
                old.unlink(missing_ok=True)
    except OSError:
        return


def _folder() -> Path:
    return cache_dir() / "decoded"
