"""Removes from unpacked wheels what no call needs: tests, headers, sources of compiled code, what installers leave.

A folder of tests stays if any code beside it imports from it, as `astropy` does from `astropy.tests`. Data stays,
licences too, and so does what lets `importlib.metadata` answer.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_TEST_FOLDERS = {"tests", "test", "_tests"}
_TEST_FILES = re.compile(r"(test_.*|.*_tests?|conftest)\.py")
_CACHES = {"__pycache__", ".pytest_cache", ".mypy_cache"}
_NOT_RUN = (
    *(".pyc", ".pyo", ".pyi", ".pyx", ".pxd", ".pxi"),
    *(".h", ".hh", ".hpp", ".hxx", ".cuh", ".c", ".cc", ".cpp", ".cxx", ".f", ".f90", ".a", ".lib", ".cmake", ".pc"),
)
_OF_UV = ".lock"
_OF_INSTALLERS = {"INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "RECORD.jws", "RECORD.p7s"}
_IMPORT = re.compile(
    rb"^[ \t]*(?:from[ \t]+(?P<source>[\w.]+)[ \t]+import[ \t]+(?P<names>[\w, \t*(]+)"
    rb"|import[ \t]+(?P<modules>[\w., \t]+))",
    re.MULTILINE,
)


def trim(folder: Path) -> tuple[int, int]:
    """Remove it, below a folder that stands on `sys.path`, and return its size in bytes before and after."""
    before = size(folder)
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes before it
        if path.is_dir() and not path.is_symlink():
            if path.name in _CACHES:
                shutil.rmtree(path)
        elif path.name.lower().endswith(_NOT_RUN) or (
            path.parent.suffix == ".dist-info" and path.name in _OF_INSTALLERS
        ):
            path.unlink()
    (folder / _OF_UV).unlink(missing_ok=True)
    _remove_scripts(folder / "bin")
    imported = _imported(folder)
    for path in _test_folders(folder):
        if not imported & {".".join(path.relative_to(folder).parts)}:
            shutil.rmtree(path)
    _remove_empty(folder)
    for record in folder.glob("*.dist-info/RECORD"):
        _shorten(record, folder)
    return before, size(folder)


def size(folder: Path) -> int:
    """Bytes of all files below it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _remove_scripts(folder: Path) -> None:
    """Scripts name the interpreter of this machine, and nothing in Lambda has them on its path."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_file() and path.read_bytes()[:2] == b"#!":
            path.unlink()


def _test_folders(folder: Path) -> Iterator[Path]:
    for parent, names, _ in os.walk(folder):
        for name in sorted(_TEST_FOLDERS & set(names)):
            path = Path(parent, name)
            # Data for training and testing may lie in a folder of that name, too.
            if path.parent != folder and any(_TEST_FILES.fullmatch(one.name) for one in path.rglob("*.py")):
                names.remove(name)
                yield path


def _imported(folder: Path) -> set[str]:
    """Names of folders of tests, and all above, that code outside of tests imports anything from."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        inside = path.relative_to(folder)
        if _TEST_FOLDERS.isdisjoint(inside.parts) and not _TEST_FILES.fullmatch(path.name):
            for name in _imports(path.read_bytes(), inside.parent.parts):
                parts = name.split(".")
                found.update(".".join(parts[: end + 1]) for end, part in enumerate(parts) if part in _TEST_FOLDERS)
    return found


def _imports(source: bytes, package: tuple[str, ...]) -> Iterator[str]:
    if b"test" not in source:
        return
    for match in _IMPORT.finditer(source):
        if match["modules"]:
            yield from re.findall(r"[\w.]+", match["modules"].decode())
            continue
        base = match["source"].decode()
        dots = len(base) - len(base.lstrip("."))
        above = package[: len(package) - dots + 1] if dots else ()
        base = ".".join([*above, *filter(None, base.lstrip(".").split("."))])
        yield from (f"{base}.{name}" for name in re.findall(r"\w+", match["names"].decode()) or [""])


def _remove_empty(folder: Path) -> None:
    for parent, _, _ in os.walk(folder, topdown=False):
        if Path(parent) != folder and not os.listdir(parent):
            os.rmdir(parent)


def _shorten(record: Path, folder: Path) -> None:
    """List the files that are still there; it is replaced, since it may be a link into uv's cache."""
    lines = record.read_text("utf-8").splitlines(keepends=True)
    kept = [line for line in lines if (folder / PurePosixPath(line.split(",")[0].strip('"'))).exists()]
    record.unlink()
    record.write_text("".join(sorted(kept)), "utf-8")
