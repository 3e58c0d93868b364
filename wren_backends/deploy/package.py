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
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import lambda_worker
from lambda_worker.protocol import python_version
from wren_backends.deploy import trimming, uv
from wren_backends.deploy.packing import files_below
from wren_backends.deploy.target import Target
from wren_backends.errors import DeploymentError
from wren_backends.local.paths import cache_directory

HANDLER = "lambda_worker.handler.handler"
"""The function's entry point."""


def _distributions(python: tuple[int, int]) -> tuple[str, ...]:
    """What the worker needs beside itself on a Python."""
    return ("blake3", "cloudpickle", "obstore", *(["typing_extensions"] if python < (3, 13) else []))


_DISTRIBUTIONS = _distributions(python_version())
_SKIPPED = (".pyc", ".pyi", ".md", "/RECORD", "/INSTALLER", "/REQUESTED", "/direct_url.json", "/uv_cache.json")

_KEPT = 4
"""Packed zips that are kept, for as many environments in turn."""


@functools.cache
def function_zip(target: Target | None = None) -> bytes:
    """The zip that is uploaded to Lambda, about 5 MB.

    Args:
        target: What it has to run on; None: on this machine, as on the local cloud. For a target the distributions are
            fetched as wheels, in the versions that are installed here.

    Raises:
        DeploymentError: A distribution is not installed, or has no wheel for the target.
    """
    if target is None:
        return _packed(sorted([*_worker_files(), *_distribution_files()]), "")
    pins = [f"{name}=={_installed(name).version}" for name in _distributions(target.python)]
    for_it = f"{target.runtime} {target.architecture} {' '.join(pins)}"
    found = _from_cache(sorted(_worker_files()), for_it)
    if found is not None:
        return found
    with tempfile.TemporaryDirectory(prefix="wren-") as folder:
        uv.install("\n".join(uv.resolve(pins, target, deps=False, preferred={})), target, Path(folder), deps=False)
        trimming.trim(Path(folder))
        # The same files as from what is installed: where all else is the same, so is the zip.
        wheels = ((name, path) for name, path in files_below(Path(folder)) if not name.endswith(_SKIPPED))
        return _packed(sorted(_worker_files()), for_it, wheels)


def _packed(ours: list[tuple[str, Path]], about: str, others: Iterable[tuple[str, Path]] = ()) -> bytes:
    """The zip of our files and others, which `about` describes."""
    found = _from_cache(ours, about)
    if found is not None:
        return found
    place = _place(ours, about)
    packed = _pack(sorted([*ours, *others]))
    with contextlib.suppress(OSError):  # a read-only home only costs the time to pack again
        _keep(place, packed)
    return packed


def _from_cache(ours: list[tuple[str, Path]], about: str) -> bytes | None:
    try:
        return _place(ours, about).read_bytes()
    except OSError:
        return None


def _place(ours: list[tuple[str, Path]], about: str) -> Path:
    return cache_directory() / f"function-{_fingerprint(ours, about)}.zip"


def _fingerprint(files: list[tuple[str, Path]], about: str) -> str:
    """Changes with every file that is edited, added or taken away, though none is read."""
    found = hashlib.sha256(about.encode())
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
        found = _installed(name)
        for file in found.files or []:
            inside = file.as_posix()
            if not inside.startswith("..") and not inside.endswith(_SKIPPED):
                yield inside, Path(str(found.locate_file(file)))


def _installed(name: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError as error:
        raise DeploymentError(f"{name} is not installed: `pip install wren-backends` brings it") from error
