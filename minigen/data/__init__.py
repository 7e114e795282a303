"""Data sets: one call, `load`, for built-in names and for a user's own folder; `load_text` for text.

What can be loaded:

    digits                                 1,797 digits of 8x8, shipped with the package
    mnist  fashion  cifar10                downloaded once into the cache folder, checked by SHA-256
    8gaussians  25gaussians  swissroll     toy distributions in the plane
    a path                                 IDX files, CIFAR-10 binary batches, images, or a .tar.gz of images

    >>> data = load("digits")
    >>> data.images.shape, data.test_images.shape, str(data.images.dtype)
    ((1500, 1, 8, 8), (297, 1, 8, 8), 'uint8')
    >>> x, y = Loader(data.images, data.labels, batch_size=64, seed=0).next()
    >>> x.shape, str(x.dtype), float(x.min()), float(x.max())
    ((64, 1, 8, 8), 'float32', -1.0, 1.0)
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from minigen.data.dataset import Dataset, to_float, to_uint8
from minigen.data.loader import Loader
from minigen.data.remote import REMOTES
from minigen.data.text import Streams, Text, Vocabulary, load_text
from minigen.data.toy import NAMES as TOYS
from minigen.data.toy import load_toy
from minigen.errors import UserError

__all__ = [
    "NAMES", "Dataset", "Loader", "Streams", "Text", "Vocabulary", "load", "load_text", "to_float", "to_uint8",
]  # fmt: skip

NAMES = ("digits", *REMOTES, *TOYS)


def load(spec: str | os.PathLike[str], *, size: int | None = None, seed: int = 0) -> Dataset:
    """Load a data set by name, or from a path.

    spec  one of NAMES, or a path. A name wins over a folder of the same name; write ./mnist for the folder.
          What a folder is shows in its contents, tried in this order: IDX files, CIFAR-10 binary batches,
          exactly one .tar.gz and no image beside it, images.
    size  resize images to size x size (a multiple of 4); None keeps them, or rounds them to multiples of 4
    seed  draws the toy distributions; the other data do not depend on it

    "mnist", "fashion" and "cifar10" are downloaded if they are not in the cache; lines on stderr tell.
    Raises UserError: unknown name, no such path, no network, damaged files, sizes that do not fit.
    """
    from minigen.data.resize import check_size

    pixels = check_size(size)
    name = os.fspath(spec)
    if isinstance(spec, str) and name in NAMES:
        return _load_name(name, pixels, seed)
    path = Path(name).expanduser()
    if path.exists():
        return _load_path(path, pixels)
    if not isinstance(spec, str) or os.sep in name or "/" in name or name.startswith((".", "~")):
        raise UserError(f"{name}: no such file or folder")
    close = difflib.get_close_matches(name.lower(), NAMES, n=1)
    guess = f"did you mean {close[0]}? " if close else ""
    raise UserError(
        f"no data set is called {name!r}; {guess}the names are {', '.join(NAMES)}; or give a folder"
    )


def _load_name(name: str, size: tuple[int, int] | None, seed: int) -> Dataset:
    if name in TOYS:
        if size is not None:
            raise UserError(f"{name} is a set of points in the plane: it has no image size")
        return load_toy(name, seed)
    if name == "digits":
        from minigen.data.digits import load_digits

        return load_digits(size)
    from minigen.data import verify

    folder = verify.folder_of(name)
    if not verify.is_present(name, folder):
        from minigen.data import download

        download.fetch(name)
    if name == "cifar10":
        from minigen.data.cifar10 import load_cifar10

        return load_cifar10(folder, name, size)
    from minigen.data.mnist import load_mnist

    return load_mnist(folder, name, size)


def _load_path(path: Path, size: tuple[int, int] | None) -> Dataset:
    from minigen.data import cifar10, folder, mnist

    if path.is_file():
        if path.name == cifar10.ARCHIVE:
            return cifar10.load_cifar10(path, size=size)
        if not folder.is_archive(path):
            raise UserError(f"{path}: is a file; give a folder, or a .tar.gz of a folder of images")
        return folder.load_folder(path, size)
    if mnist.find_mnist(path):
        return mnist.load_mnist(path, size=size)
    if cifar10.find_cifar10(path):
        return cifar10.load_cifar10(path, size=size)
    return folder.load_folder(folder.only_archive(path) or path, size)
