"""Any folder of images, or a .tar.gz of one.

    FOLDER/*.png                              no labels
    FOLDER/cat/*.png, FOLDER/dog/*.png        the subfolders are the labels
    FOLDER/train/..., FOLDER/test/...         the split; each as above

"test" may also be called "val", "valid" or "validation". Without a split every tenth image is held out. The
order is that of the sorted paths, 2.png before 10.png. A folder around everything is ignored, and one class
alone is no label.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minigen.data import decoded
from minigen.data.archive import read_archive
from minigen.data.dataset import Dataset
from minigen.data.decode import SUFFIXES, Entry, Header, decode, read_headers
from minigen.data.resize import Size, choose_size, show
from minigen.errors import UserError

HELD_OUT_NAMES = ("test", "val", "valid", "validation")
HELD_OUT_EVERY = 10
MOST_BYTES = 4 << 30
ARCHIVES = (".tar.gz", ".tgz")


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ARCHIVES)


def only_archive(folder: Path) -> Path | None:
    """The archive of a folder that holds exactly one and no image beside it; else None."""
    try:
        files = [path for path in folder.iterdir() if path.is_file() and not _hidden(path.name)]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror or error}") from error
    archives = [path for path in files if is_archive(path)]
    images = any(path.name.lower().endswith(SUFFIXES) for path in files)
    return archives[0] if len(archives) == 1 and not images else None


def load_folder(path: Path, size: Size | None = None) -> Dataset:
    """Read every image of a folder or archive -> uint8 (N, C, H, W); C = 1 if all of them are grey, else 3.

    All images become `size`, or `resize.choose_size` of their sizes; `notices` tell when that changes them.
    Decoded images are kept in the cache folder and used again while no file changes.

    Raises UserError: no images, a file that is not a readable image (named), more pixels than fit in 4 GiB.
    """
    files = None if path.is_file() else _list_folder(path)
    state = decoded.fingerprint(path, files, size)
    dataset = decoded.load(path, state)
    if dataset is None:
        entries, notices = _images(path, _unpack(path) if files is None else files)
        dataset = _build(path, _arrange(path, entries), size, notices)
        decoded.save(dataset, path, state)
    return dataset


@dataclass(frozen=True)
class Layout:
    """Which images train, which are held out, and their labels; None without class folders."""

    train: list[Entry]
    test: list[Entry]
    labels: list[int] | None
    test_labels: list[int] | None
    classes: tuple[str, ...]
    notices: tuple[str, ...]


def _build(path: Path, layout: Layout, size: Size | None, notices: tuple[str, ...]) -> Dataset:
    entries = layout.train + layout.test
    headers = read_headers(path, entries)
    target = size or choose_size(header.size for header in headers)
    grey = all(header.grey for header in headers)
    total = len(entries) * target[0] * target[1] * (1 if grey else 3)
    if total > MOST_BYTES:
        raise UserError(
            f"{path}: {len(entries)} images of {show(target)} take {total / 2**30:.1f} GiB; choose a size"
        )
    images = decode(path, entries, target, grey)
    count = len(layout.train)
    return Dataset(
        name=path.resolve().name,
        images=images[:count],
        labels=None if layout.labels is None else np.array(layout.labels, np.int64),
        classes=layout.classes,
        test_images=images[count:],
        test_labels=None if layout.test_labels is None else np.array(layout.test_labels, np.int64),
        source=f"images in {path}",
        notices=(*notices, *layout.notices, *_describe(headers, target)),
    )


def _describe(headers: Sequence[Header], target: Size) -> list[str]:
    notices = []
    sizes = sorted({header.size for header in headers}, key=lambda size: (size[0] * size[1], size))
    changed = sum(header.size != target for header in headers)
    if changed:
        old = show(sizes[0])
        if len(sizes) > 1:
            old = f"{len(sizes)} sizes from {old} to {show(sizes[-1])}"
        notices.append(f"{changed} of {len(headers)} images cropped and resized from {old} to {show(target)}")
    transparent = sum(header.transparent for header in headers)
    if transparent:
        notices.append(f"{transparent} images can be transparent: laid on white")
    return notices


def _arrange(path: Path, entries: list[Entry]) -> Layout:
    notices: list[str] = []
    parts = [(entry, entry.name.split("/")) for entry in entries]
    while len({names[0] for _, names in parts}) == 1 and all(len(names) > 1 for _, names in parts):
        parts = [(entry, names[1:]) for entry, names in parts]
    top = {names[0].lower() for _, names in parts if len(names) > 1}
    held_out = next((name for name in HELD_OUT_NAMES if name in top), None) if "train" in top else None
    if held_out is None:
        train = [part for row, part in enumerate(parts) if row % HELD_OUT_EVERY != HELD_OUT_EVERY - 1]
        test = parts[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
        if not test:
            notices.append(f"fewer than {HELD_OUT_EVERY} images: none is held out for testing")
    else:
        nested = [(names[0].lower(), (entry, names[1:])) for entry, names in parts if len(names) > 1]
        train = [part for side, part in nested if side == "train"]
        test = [part for side, part in nested if side == held_out]
        if left := len(parts) - len(train) - len(test):
            notices.append(f"{left} images outside train and {held_out} left out")
    inside = [names[0] for _, names in train + test if len(names) > 1]
    classes = tuple(sorted(set(inside), key=_natural))
    if inside and len(inside) < len(train) + len(test):
        notices.append("images lie both inside and beside subfolders: no labels")
        classes = ()
    if len(classes) < 2:
        return Layout([e for e, _ in train], [e for e, _ in test], None, None, (), tuple(notices))
    index = {name: label for label, name in enumerate(classes)}
    return Layout(
        [entry for entry, _ in train],
        [entry for entry, _ in test],
        [index[names[0]] for _, names in train],
        [index[names[0]] for _, names in test],
        classes,
        tuple(notices),
    )


def _images(path: Path, files: list[Entry]) -> tuple[list[Entry], tuple[str, ...]]:
    """The image files among `files`, in natural order of their paths."""
    images = [file for file in files if file.name.lower().endswith(SUFFIXES)]
    if not images:
        raise UserError(f"{path}: no images found ({', '.join(SUFFIXES)})")
    others = len(files) - len(images)
    notices = (f"{others} files that are not {', '.join(SUFFIXES)} left out",) if others else ()
    return sorted(images, key=lambda file: _natural(file.name)), notices


def _natural(name: str) -> tuple[list[tuple[str, int]], str]:
    """Sorts runs of digits by value: a2 before a10. The name itself settles a01 against a1."""
    pieces = [*re.split("([0-9]+)", name), "0"]
    return [(text, int(number)) for text, number in zip(pieces[::2], pieces[1::2], strict=True)], name


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _list_folder(root: Path) -> list[Entry]:
    """Every visible file below `root`."""
    files = []
    for folder, subfolders, names in os.walk(root, onerror=_unreadable):
        subfolders[:] = [name for name in subfolders if not _hidden(name)]
        below = Path(folder).relative_to(root)
        files += [Entry((below / name).as_posix(), Path(folder, name)) for name in names if not _hidden(name)]
    return files


def _unreadable(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be read: {error.strerror or error}") from error


def _unpack(path: Path) -> list[Entry]:
    """Every visible file in an archive."""
    visible = read_archive(path, lambda name: not any(map(_hidden, name.split("/"))))
    return [Entry(name, data) for name, data in visible.items()]
