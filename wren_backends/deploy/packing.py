"""Packs folders into zips whose bytes depend on nothing but what is in them."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

_EXECUTABLE, _PLAIN = 0o755 << 16, 0o644 << 16
_UNIX = 3

LEVEL = 4
"""Of zlib's: 6 takes twice as long for 4% less (`benchmarks/package_formats.py`)."""


def files_below(folder: Path) -> list[tuple[str, Path]]:
    """Names, relative to `folder` and with slashes, and paths of all files in it, in order."""
    return sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())


def pack(files: Iterable[tuple[str, Path]], place: Path, level: int = LEVEL) -> None:
    """Write a zip of files by name.

    Args:
        files: Names in it, and what they are to hold.
        place: The zip.
        level: How hard zlib tries, 1 to 9.
    """
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as bundle:
        for name, path in files:
            info = zipfile.ZipInfo(name)
            info.create_system = _UNIX
            info.compress_type = zipfile.ZIP_DEFLATED
            # Lambda runs the code as another user than the one who owns it, so everybody has to be able to read it.
            info.external_attr = _EXECUTABLE if os.access(path, os.X_OK) else _PLAIN
            bundle.writestr(info, path.read_bytes(), zipfile.ZIP_DEFLATED, level)


def digest_of(files: Iterable[tuple[str, Path]]) -> str:
    """SHA-256 of names and contents, 64 hexadecimal digits."""
    found = hashlib.sha256()
    for name, path in files:
        with path.open("rb") as content:
            found.update(f"{hashlib.file_digest(content, 'sha256').hexdigest()} {name}\n".encode())
    return found.hexdigest()
