"""Are these files the published ones? For the cache, and for a folder the user already has."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from minigen.data import cifar10
from minigen.data.cache import cache_dir
from minigen.data.idx import find_idx, read_bytes
from minigen.data.remote import REMOTES, RemoteFile
from minigen.errors import UserError

MISSING = "missing"


@dataclass(frozen=True)
class Check:
    """The verdict on one file. `ok` means that its content is the published one."""

    file: str
    ok: bool
    message: str


def folder_of(name: str, cache: Path | None = None) -> Path:
    """Where the files of "mnist", "fashion" or "cifar10" are kept: cache folder / name."""
    return (cache or cache_dir()) / name


def verify(name: str, folder: Path | None = None) -> tuple[Check, ...]:
    """Compare the files of "mnist", "fashion" or "cifar10" with the published SHA-256.

    folder  a folder of the user's; by default the one in the cache

    A file is canonical if its hash is the published one, or if what is inside it has the hash of the
    published content: the same data gzipped by another program, or unpacked. The contents' hashes are not
    known for fashion; there only the published .gz files are recognised.

    Raises UserError for an unknown name, or when the folder has none of the files.
    """
    check_name(name)
    place = folder or folder_of(name)
    checks = tuple(check for file in REMOTES[name].files for check in check_file(file, place))
    if all(check.message == MISSING for check in checks):
        hint = "" if folder else f"; `minigen data fetch {name}` downloads it"
        raise UserError(f"{place}: holds none of the files of {name}{hint}")
    return checks


def check_name(name: str) -> None:
    if name not in REMOTES:
        raise UserError(f"{name!r} is not a published data set; these are: {', '.join(REMOTES)}")


def is_present(name: str, place: Path) -> bool:
    """Whether all files are there. Those of the right size are not read; others are, as by `verify`."""
    return all(
        _has_size(place / file.name, file) or all(check.ok for check in check_file(file, place))
        for file in REMOTES[name].files
    )


def check_file(file: RemoteFile, place: Path) -> list[Check]:
    """The verdict on one published file, or on each file inside it."""
    path = place / file.name
    if _has_size(path, file) and _sha256_of(path) == file.sha256:
        return [Check(file.name, True, "canonical: the published file")]
    if file.name == cifar10.ARCHIVE:
        return _check_cifar10(file, place)
    stem = file.name.removesuffix(".gz")
    found = find_idx(place, stem)
    if found is None:
        return [Check(file.name, False, MISSING)]
    if stem not in file.contents:
        return [Check(found.name, False, f"differs from the published file, SHA-256 {_sha256_of(found)}")]
    try:
        content, complete = read_bytes(found)
    except UserError as error:
        return [Check(found.name, False, str(error))]
    if not complete:
        return [Check(found.name, False, "cut off")]
    return [_compare(found.name, content, file.contents[stem])]


def _check_cifar10(file: RemoteFile, place: Path) -> list[Check]:
    source = cifar10.find_cifar10(place)
    if source is None:
        return [Check(file.name, False, MISSING)]
    try:
        batches = cifar10.unpack(source) if source.is_file() else cifar10.read_folder(source)
    except UserError as error:
        return [Check(file.name, False, str(error))]
    return [
        _compare(name, batches[name], sha256) if name in batches else Check(name, False, MISSING)
        for name, sha256 in file.contents.items()
    ]


def _compare(name: str, content: bytes, sha256: str) -> Check:
    found = hashlib.sha256(content).hexdigest()
    if found == sha256:
        return Check(name, True, "canonical content")
    return Check(name, False, f"differs from the published content, SHA-256 {found}")


def _has_size(path: Path, file: RemoteFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size


def _sha256_of(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
