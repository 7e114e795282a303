"""Download a data set into the cache: several mirrors, every byte checked, never half a file."""

from __future__ import annotations

import hashlib
import http.client
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

from minigen.data.cache import whole_file
from minigen.data.remote import REMOTES, RemoteFile
from minigen.data.verify import check_file, check_name, folder_of
from minigen.errors import UserError

TIMEOUT = 30  # seconds without an answer or without a byte
BLOCK = 1 << 20
LARGE = 50_000_000  # bytes; from here on progress is told in tenths

Say = Callable[[str], None]


class MirrorError(Exception):
    """What one mirror did wrong; the next one is tried."""


def say_on_stderr(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def fetch(name: str, cache: Path | None = None, say: Say = say_on_stderr) -> Path:
    """Make sure that every file of "mnist", "fashion" or "cifar10" is in the cache, and return their folder.

    Files that are there with the published content are kept. The others are downloaded to a temporary file,
    checked, and only then given their name; a mirror that is dead or sends something else is passed over.

    cache  the cache folder; by default `cache_dir()`
    say    gets one line for each thing that happens

    Raises UserError: unknown name, unwritable folder, or all mirrors failed (each is named with its fault).
    """
    check_name(name)
    place = folder_of(name, cache)
    for file in REMOTES[name].files:
        if not all(check.ok for check in check_file(file, place)):
            _fetch_file(name, file, place, say)
    return place


def _fetch_file(name: str, file: RemoteFile, place: Path, say: Say) -> None:
    faults = []
    for mirror in REMOTES[name].mirrors:
        url = mirror + file.name
        say(f"{name}: downloading {file.name} ({file.size / 1e6:.1f} MB) from {mirror} to {place}")
        try:
            with whole_file(place / file.name) as target:
                _copy(url, file, target, say)
            return
        except MirrorError as error:
            faults.append(f"{url}: {error}")
            say(f"{name}: {faults[-1]}")
        except OSError as error:
            raise UserError(f"{place}: cannot write {file.name}: {error.strerror or error}") from error
    raise UserError(
        f"{name}: {file.name} could not be downloaded ({'; '.join(faults)}); if you have the data, give "
        f"its folder in place of the name {name} ({REMOTES[name].layout}), or put {file.name} into {place}"
    )


def _copy(url: str, file: RemoteFile, target: IO[bytes], say: Say) -> None:
    """Copy a URL. Raises MirrorError unless the published bytes came; OSError if they cannot be written."""
    digest = hashlib.sha256()
    received = 0
    request = urllib.request.Request(url, headers={"User-Agent": "minigen"})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except (OSError, http.client.HTTPException) as error:
        raise MirrorError(_fault(error)) from error
    with response:
        announced = response.headers.get("Content-Length", str(file.size))
        if announced != str(file.size):
            raise MirrorError(f"offers {announced} bytes, expected {file.size}")
        while received <= file.size:
            try:
                block = response.read(BLOCK)
            except (OSError, http.client.HTTPException) as error:
                raise MirrorError(f"{_fault(error)} after {received} of {file.size} bytes") from error
            if not block:
                break
            target.write(block)
            digest.update(block)
            before, received = received, received + len(block)
            if file.size >= LARGE and before * 10 // file.size < received * 10 // file.size:
                say(f"  {received * 100 // file.size} %")
    if received < file.size:
        raise MirrorError(f"cut off: {received} of {file.size} bytes")
    if received > file.size:
        raise MirrorError(f"corrupt: more than {file.size} bytes")
    if digest.hexdigest() != file.sha256:
        raise MirrorError("corrupt: the SHA-256 differs")


def _fault(error: Exception) -> str:
    """One line for what urllib raises."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return f"no answer in {TIMEOUT} s"
    text = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    return " ".join(text.split()) or type(reason).__name__
