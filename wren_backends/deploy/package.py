"""Builds the function's zip: `lambda_worker` as it stands here, and the three distributions it needs.

The same inputs always give the same bytes, so that an unchanged function is recognised by its hash.
"""

from __future__ import annotations

import functools
import io
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import lambda_worker
from wren_backends.errors import DeploymentError

HANDLER = "lambda_worker.handler.handler"
"""The function's entry point."""

_DISTRIBUTIONS = ("blake3", "cloudpickle", "obstore", *(["typing_extensions"] if sys.version_info < (3, 13) else []))
_SKIPPED = (".pyc", ".pyi", ".md", "/RECORD", "/INSTALLER", "/REQUESTED", "/direct_url.json", "/uv_cache.json")


@functools.cache
def function_zip() -> bytes:
    """The zip that is uploaded to Lambda, about 5 MB.

    Raises:
        DeploymentError: A distribution is not installed.
    """
    files = [*_worker_files(), *_distribution_files()]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bundle:
        for name, path in sorted(files):
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
