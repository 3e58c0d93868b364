"""The counterpart of /var/runtime: a directory with awslambdaric and what it needs, and nothing else.

The template sees no site-packages, so that a function finds locally exactly what it would find on AWS.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from .checksum import WAYS_OUT
from .errors import LocalCloudError

_DISTRIBUTIONS = ("awslambdaric", "simplejson", "snapshot-restore-py")

_FIND = """
import importlib.metadata, json
found = {}
for name in %r:
    distribution = importlib.metadata.distribution(name)
    for file in distribution.files or ():
        top = file.parts[0]
        if not top.endswith(".dist-info") and top not in ("..", "__pycache__"):
            found[top] = str(distribution.locate_file(top))
print(json.dumps(found))
"""


def own_version() -> str:
    """Return the ``X.Y`` of the Python that runs the supervisor."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def check_installed() -> None:
    """Make sure that this Python can run functions.

    Raises:
        LocalCloudError: awslambdaric is not installed.
    """
    for name in _DISTRIBUTIONS:
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            raise LocalCloudError(f"The local cloud needs the package {name}, which is missing. {WAYS_OUT}") from None


def interpreter_for(version: str) -> tuple[str, dict[str, str]]:
    """Return a Python of this version and the runtime's files installed for it, by the name to link them under.

    Raises:
        LocalCloudError: There is no such Python, or it has no awslambdaric.
    """
    if version == own_version():
        return sys.executable, _own_files()
    executable = shutil.which(f"python{version}")
    if executable is None:
        raise LocalCloudError(_missing(version, "is not on PATH"))
    answer = subprocess.run(
        [executable, "-c", _FIND % (_DISTRIBUTIONS,)], capture_output=True, text=True, check=False, timeout=30
    )
    if answer.returncode != 0:
        raise LocalCloudError(_missing(version, "cannot import awslambdaric"))
    return executable, dict(json.loads(answer.stdout))


def _missing(version: str, what: str) -> str:
    return (
        f"python{version} {what}. The local cloud runs a function with the Python its Runtime names: install "
        f"python{version} with awslambdaric, or create the function with Runtime python{own_version()}."
    )


def _own_files() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _DISTRIBUTIONS:
        distribution = importlib.metadata.distribution(name)
        for file in distribution.files or ():
            top = file.parts[0]
            if not top.endswith(".dist-info") and top not in ("..", "__pycache__"):
                found[top] = str(distribution.locate_file(top))
    return found


def link_runtime(version: str, directory: Path) -> tuple[str, Path]:
    """Make the runtime directory of a Python version and return that Python's path with it.

    Raises:
        LocalCloudError: As for `interpreter_for`.
    """
    executable, files = interpreter_for(version)
    runtime = directory / f"python{version}"
    runtime.mkdir(parents=True, exist_ok=True)
    for name, source in files.items():
        with contextlib.suppress(FileExistsError):
            os.symlink(source, runtime / name)
    return executable, runtime
