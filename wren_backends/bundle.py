"""Finds the user's own modules and packs them into a zip that travels as a blob.

A module is the user's if it was imported from a file that is neither part of Python nor installed in site-packages: a
script's neighbours, an editable install, a folder on PYTHONPATH. All of those in `sys.modules` are packed together,
each with the rest of its package (data files too), so that what they import of each other is there as well.
"""

from __future__ import annotations

import io
import math
import os
import re
import sys
import sysconfig
import threading
import time
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from types import ModuleType

from lambda_worker.protocol import BlobRef, Bytes
from wren_backends.blobs import Blobs
from wren_backends.errors import SerializationError

_LOOK_EVERY_S = 1.0
_LIMIT_BYTES = 50 * 1024 * 1024
_SKIPPED_FOLDERS = {"__pycache__", "node_modules", "site-packages", ".git", ".venv"}
_SKIPPED_ENDINGS = (".pyc", ".pyo")
_NEVER = {"__main__", "__mp_main__", "lambda_worker"}
_INSTALLED = ("site-packages", "dist-packages")


class UserModules:
    """The user's modules as one bundle, made anew when more were imported or files were edited.

    Args:
        blobs: Takes the bundle.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._lock = threading.Lock()
        self._counted = -1
        self._modules: dict[str, ModuleType] = {}
        self._pattern: re.Pattern[bytes] | None = None
        self._ref: BlobRef | None = None
        self._stamp: tuple[object, ...] = ()
        self._looked_at = -math.inf
        self._left_out: tuple[str, ...] = ()

    def leave_out(self, names: Collection[str]) -> None:
        """Pack no module whose place has one of `names` in it; replaces what was left out before."""
        with self._lock:
            if tuple(names) != self._left_out:
                self._left_out, self._counted, self._ref = tuple(names), -1, None

    def refresh(self) -> None:
        """Look at the files again at the next need: they may have been edited."""
        with self._lock:
            self._looked_at = -math.inf

    def named_by(self, *pickles: Bytes) -> bool:
        """Whether any of `pickles` names one of the user's modules."""
        with self._lock:
            if len(sys.modules) != self._counted:
                self._scan()
            pattern = self._pattern
        return pattern is not None and any(pattern.search(one) for one in pickles)

    def bundle(self) -> BlobRef:
        """The modules as they are now; files that were edited are noticed within a second.

        Raises:
            SerializationError: They are too large to travel.
        """
        with self._lock:
            now = time.monotonic()
            if self._ref is None or now - self._looked_at > _LOOK_EVERY_S:
                stamp = tuple((name, *_stat(path)) for path, name in _files(self._modules))
                if self._ref is None or stamp != self._stamp:
                    self._ref = self._blobs.keep(_pack(self._modules), kept=True)
                self._stamp, self._looked_at = stamp, now
            return self._ref

    def needed_by(self, *pickles: Bytes) -> BlobRef | None:
        """The bundle, if any of `pickles` names one of the user's modules; raises as `bundle` does."""
        return self.bundle() if self.named_by(*pickles) else None

    def _scan(self) -> None:
        counted = len(sys.modules)
        self._modules = {
            name: module
            for name, module in sorted(sys.modules.copy().items())
            if "." not in name and name not in _NEVER and _is_users(module, self._left_out)
        }
        # A name in a pickle is SHORT_BINUNICODE, a length, the text (perhaps `.more` of it) and MEMOIZE.
        names = b"|".join(re.escape(name.encode()) for name in self._modules)
        self._pattern = re.compile(rb"\x8c(?s:.)(?:" + names + rb")(?=[.\x94])") if names else None
        self._looked_at = -math.inf
        self._counted = counted


def _is_users(module: ModuleType, left_out: tuple[str, ...]) -> bool:
    try:
        places = [getattr(module, "__file__", None), *(getattr(module, "__path__", None) or [])]
        found = [str(place) for place in places if place]
    except Exception:  # noqa: BLE001  sys.modules may hold any object, with attributes that raise
        return False
    if any(one in place for one in left_out for place in found):
        return False
    return bool(found) and not any(_is_installed(place) for place in found)


def _is_installed(place: str) -> bool:
    if any(part in _INSTALLED for part in Path(place).parts):
        return True
    return place.startswith(tuple(_python_folders()))


def _python_folders() -> Iterator[str]:
    for name in ("stdlib", "platstdlib", "purelib", "platlib"):
        yield sysconfig.get_paths()[name] + os.sep


def _files(modules: dict[str, ModuleType]) -> Iterator[tuple[Path, str]]:
    """Files to pack and their names in the bundle, in a fixed order."""
    for name, module in modules.items():
        folders = getattr(module, "__path__", None)
        if folders:
            for folder in folders:
                yield from _walk(Path(folder), name)
        elif module.__file__ and Path(module.__file__).name.split(".", 1)[0] == name:
            yield Path(module.__file__), Path(module.__file__).name


def _walk(folder: Path, name: str) -> Iterator[tuple[Path, str]]:
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(one for one in folders if one not in _SKIPPED_FOLDERS)
        inside = Path(name) / Path(where).relative_to(folder)
        for file in sorted(files):
            if not file.endswith(_SKIPPED_ENDINGS):
                yield Path(where) / file, (inside / file).as_posix()


def _stat(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _pack(modules: dict[str, ModuleType]) -> bytes:
    """The same files always give the same bytes, so that an unchanged bundle is not sent again."""
    files = [(path, name) for path, name in _files(modules) if path.is_file()]
    sizes = {str(path): path.stat().st_size for path, _ in files}
    if sum(sizes.values()) > _LIMIT_BYTES:
        largest = sorted(sizes, key=lambda one: sizes[one], reverse=True)[:5]
        shown = ", ".join(f"{one} ({sizes[one] / 1e6:.0f} MB)" for one in largest)
        raise SerializationError(
            f"your own modules ({', '.join(modules)}) come to {sum(sizes.values()) / 1e6:.0f} MB with data, more "
            f"than the {_LIMIT_BYTES / 1e6:.0f} MB that travel with calls. The largest files: {shown}. Move data out "
            "of the packages, or install them and deploy them with the function"
        )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bundle:
        for path, name in files:
            bundle.writestr(zipfile.ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return packed.getvalue()
