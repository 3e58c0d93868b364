"""Finds a Python that has CPython's own tests, which many distributions take out, and makes an environment of it."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENVIRONMENT = ROOT / ".venv-cpython"

_NAMES = ("python3.14", "python3.13", "python3.12", "python3.11")
_NEEDED = ("pytest", "pytest-timeout", "pytest-xdist", "psutil")


def with_cpythons_tests() -> str:
    """Return the path of a Python that has `test.test_concurrent_futures` and this project; made if need be.

    `CPYTHON` names one to use; otherwise this one, those on the path and those of pyenv are tried.

    Raises:
        SystemExit: There is none; the message says what to install.
    """
    base = next(filter(_has_tests, _candidates()), None)
    if base is None:
        raise SystemExit(
            "No Python >= 3.11 here has CPython's own tests (test.test_concurrent_futures). On Debian: "
            "apt-get install python3-venv libpython3-testsuite; or set CPYTHON to one that has them, such as pyenv's"
        )
    stamp = _stamp(base)
    made = ENVIRONMENT / ".made-of"
    if not made.exists() or made.read_text() != stamp:
        subprocess.run([base, "-m", "venv", "--clear", str(ENVIRONMENT)], check=True)
        python = str(ENVIRONMENT / "bin" / "python")
        install = [python, "-m", "pip", "install", "--quiet", "--editable", f"{ROOT}[local]", *_NEEDED]
        subprocess.run([*install, "--constraint", str(ROOT / "constraints.txt")], check=True)
        made.write_text(stamp)
    return str(ENVIRONMENT / "bin" / "python")


def _candidates() -> list[str]:
    named = os.environ.get("CPYTHON")
    if named:
        return [named]
    found = [sys.executable, *(path for path in map(shutil.which, _NAMES) if path), "/usr/bin/python3"]
    return found + sorted(glob.glob(str(Path.home() / ".pyenv/versions/3.*/bin/python")), reverse=True)


def _has_tests(python: str) -> bool:
    code = "import sys, test.test_concurrent_futures; sys.exit(sys.version_info < (3, 11))"
    try:
        return subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _stamp(base: str) -> str:
    """What the environment depends on: it is made anew when any of it has changed."""
    files = (ROOT / "pyproject.toml", ROOT / "constraints.txt")
    return " ".join([base, *(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)])
