"""MNIST, Fashion-MNIST, and any other folder of four IDX files in their layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minigen.data.dataset import Dataset
from minigen.data.idx import find_idx, read_idx
from minigen.data.resize import Size, fit_split
from minigen.errors import UserError

STEMS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

SOURCES = {
    "mnist": "LeCun, Cortes & Burges, The MNIST database of handwritten digits, CC BY-SA 3.0",
    "fashion": "Xiao, Rasul & Vollgraf (2017), Fashion-MNIST, Zalando SE, MIT licence",
}


def find_mnist(folder: Path) -> Path | None:
    """Where the IDX files are: `folder`, its subfolder raw (as torchvision keeps them), or None."""
    places = (folder, folder / "raw")
    return next((place for place in places if any(find_idx(place, stem) for stem in STEMS)), None)


def load_mnist(folder: Path, name: str | None = None, size: Size | None = None) -> Dataset:
    """Read the four IDX files, gzipped or plain -> uint8 (N, 1, H, W); MNIST has 60,000 + 10,000 of 28x28.

    name  "mnist" or "fashion" for those two; None for a user's own folder, which is then named after the
          folder; its classes are the clothes if "fashion" is in that name or its parent's, else 0, 1, ...

    Raises UserError when a file is missing or damaged, or images and labels differ in number.
    """
    place = find_mnist(folder) or folder
    paths = {stem: find_idx(place, stem) for stem in STEMS}
    missing = [f"{stem}(.gz)" for stem, path in paths.items() if path is None]
    if missing:
        raise UserError(f"{place}: missing {', '.join(missing)}")
    train, labels, test, test_labels = (
        read_idx(path, 3 if "images" in stem else 1) for stem, path in paths.items() if path is not None
    )
    for images, numbers, stem in ((train, labels, STEMS[1]), (test, test_labels, STEMS[3])):
        if len(images) != len(numbers):
            raise UserError(f"{paths[stem]}: {len(numbers)} labels for {len(images)} images")
    if train.shape[1:] != test.shape[1:] or 0 in train.shape:
        raise UserError(f"{folder}: training images have shape {train.shape}, test images {test.shape}")
    train, test, notices = fit_split(train[:, None], test[:, None], size)
    title = name or folder.resolve().name
    is_fashion = "fashion" in (name or "/".join(folder.resolve().parts[-2:]).lower())
    return Dataset(
        name=title,
        images=train,
        labels=labels.astype(np.int64),
        classes=CLOTHES if is_fashion else _numbers(labels, test_labels),
        test_images=test,
        test_labels=test_labels.astype(np.int64),
        source=SOURCES[name] if name else f"IDX files in {folder}",
        notices=notices,
    )


def _numbers(labels: np.ndarray, test_labels: np.ndarray) -> tuple[str, ...]:
    """0..9, or up to the largest label if the data (a letter set, say) has more."""
    largest = int(max(labels.max(initial=0), test_labels.max(initial=0)))
    return DIGITS if largest < 10 else tuple(map(str, range(largest + 1)))
