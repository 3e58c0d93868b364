"""Unzips functions and layers as Lambda does, symbolic links included."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import stat
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from uuid import uuid4

MAX_UNZIPPED_BYTES = 262_144_000
"""Code and layers together (Lambda quotas page: 250 MB)."""


class BadPackageError(ValueError):
    """A zip that Lambda would refuse."""


@dataclass(frozen=True)
class Package:
    """A zip that was uploaded."""

    file: Path
    sha256: str  # base64, as AWS shows it
    size: int
    unzipped_size: int

    @property
    def folder_name(self) -> str:
        """A name for the folder of its contents."""
        return self.file.stem


def keep(data: bytes, directory: Path) -> Package:
    """Store a zip under its hash.

    Raises:
        BadPackageError: It is not a zip.
    """
    digest = hashlib.sha256(data)
    file = directory / f"{digest.hexdigest()[:32]}.zip"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unzipped = sum(info.file_size for info in archive.infolist())
    except (zipfile.BadZipFile, ValueError, OSError):
        raise BadPackageError(
            "Could not unzip uploaded file. Please check your file, then try to upload again."
        ) from None
    if not file.exists():
        directory.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{uuid4().hex}")
        temporary.write_bytes(data)
        temporary.replace(file)
    return Package(file, base64.b64encode(digest.digest()).decode(), len(data), unzipped)


def unpack(packages: Iterable[Package], directory: Path) -> Path:
    """Unzip packages over each other into one folder, once, and return it.

    Raises:
        BadPackageError: A name in it leads out of the folder.
    """
    packages = list(packages)
    name = hashlib.sha256("+".join(one.folder_name for one in packages).encode()).hexdigest()[:32]
    target = directory / name
    if target.exists():
        return target
    temporary = directory / f"{name}.{uuid4().hex}"  # two versions may start with the same code at once
    temporary.mkdir(parents=True)
    for package in packages:
        with zipfile.ZipFile(package.file) as archive:
            for info in archive.infolist():
                _extract(archive, info, temporary)
    try:
        temporary.rename(target)
    except OSError:
        if not target.exists():
            raise
        shutil.rmtree(temporary)
    return target


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    name = PurePosixPath(info.filename)
    if name.is_absolute() or ".." in name.parts or not name.parts:
        raise BadPackageError(f"The zip holds a name that leads out of it: {info.filename!r}")
    path = target.joinpath(*name.parts)
    for parent in path.relative_to(target).parents:
        if (target / parent).is_symlink():
            # Following it would write into whatever it points at.
            raise BadPackageError(f"{info.filename!r} lies below a symbolic link of the same zip or of another layer")
    if info.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or path.is_file():
        path.unlink()
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        os.symlink(archive.read(info).decode(), path)
        return
    with archive.open(info) as source, path.open("wb") as file:
        shutil.copyfileobj(source, file)
    path.chmod((stat.S_IMODE(mode) or 0o644) | stat.S_IRUSR | stat.S_IWUSR)
