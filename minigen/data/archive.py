"""Files out of a .tar.gz, read into memory; nothing is unpacked to disk."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

from minigen.errors import UserError


def read_archive(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The files whose names (a/b.png) are `wanted`. Raises UserError when the archive is damaged, however late."""
    files: dict[str, bytes] = {}
    try:
        with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                name = "/".join(part for part in member.name.split("/") if part not in ("", "."))
                file = archive.extractfile(member) if member.isfile() and wanted(name) else None
                if file is not None:
                    files[name] = file.read()
            while stream.read(1 << 20):  # to a tar an early end is an end; gzip knows that its checksum is missing
                pass
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise UserError(f"{path}: damaged archive ({error})") from error
    return files
