"""Builds the function's zip: `lambda_worker` as it stands here, and the three distributions it needs.

The same inputs always give the same bytes, so that an unchanged function is recognised by its hash. Packing takes most
of a second of CPU, at the start of each program that brings its own local cloud, so what was packed is kept.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import lambda_worker
from wren_backends.errors import DeploymentError
from wren_backends.local.paths import cache_directory

HANDLER = "lambda_worker.handler.handler"
"""The function's entry point."""

_DISTRIBUTIONS = ("blake3", "cloudpickle", "obstore", *(["typing_extensions"] if sys.version_info < (3, 13) else []))
_SKIPPED = (".pyc", ".pyi", ".md", "/RECORD", "/INSTALLER", "/REQUESTED", "/direct_url.json", "/uv_cache.json")


_KEPT = 4
"""Packed zips that are kept, for as many environments in turn."""


@functools.cache
def function_zip() -> bytes:
    """The zip that is uploaded to Lambda, about 5 MB.

    Raises:
        DeploymentError: A distribution is not installed.
    """
    files = sorted([*_worker_files(), *_distribution_files()])
    place = cache_directory() / f"function-{_fingerprint(files)}.zip"
    with contextlib.suppress(OSError):
        return place.read_bytes()
    packed = _pack(files)
    with contextlib.suppress(OSError):  # a read-only home only costs the time to pack again
        _keep(place, packed)
    return packed


def _fingerprint(files: list[tuple[str, Path]]) -> str:
    """Changes with every file that is edited, added or taken away, though none is read."""
    found = hashlib.sha256()
    for name, path in files:
        seen = path.stat()
        found.update(f"{name}\0{path}\0{seen.st_size}\0{seen.st_mtime_ns}\n".encode())
    return found.hexdigest()[:32]


def _keep(place: Path, packed: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = place.with_name(f"{place.name}.{os.getpid()}")
    temporary.write_bytes(packed)
    temporary.replace(place)
    for old in sorted(place.parent.glob("function-*.zip"), key=lambda one: one.stat().st_mtime_ns)[:-_KEPT]:
        old.unlink(missing_ok=True)


def _pack(files: list[tuple[str, Path]]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bundle:
        for name, path in files:
            info = zipfile.ZipInfo(name)
            # Lambda runs the code as another user than the one who owns it, so everybody has to be able to read it
            info.external_attr = 0o755 << 16
            bundle.writestr(info, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def _worker_files() -> Iterator[tuple[str, Path]]:
    folder = Path(lambda_worker.__file__).parent
    for path in folder.rglob("*.py"):
        yield f"lambda_worker/{path.relative_to(folder).as_posix()}", path


def _distribution_files() -> Iterator[tuple[str, Path]]:
    for name in _DISTRIBUTIONS:
        try:
            found = distribution(name)
        except PackageNotFoundError as error:
            raise DeploymentError(f"{name} is not installed: `pip install wren-backends` brings it") from error
        for file in found.files or []:
            inside = file.as_posix()
            if not inside.startswith("..") and not inside.endswith(_SKIPPED):
                yield inside, Path(str(found.locate_file(file)))
