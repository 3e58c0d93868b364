"""Packs the user's own modules into a zip that travels as a blob.

All of those in `sys.modules` are packed together, each with the rest of its package (data files too), and those that
they or a function that travels as code import later on; `own_modules.py` finds them.
"""

from __future__ import annotations

import io
import math
import platform
import re
import sys
import threading
import time
import warnings
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path

from lambda_worker.protocol import BlobRef, Bytes
from wren_backends.blobs import Blobs
from wren_backends.errors import SerializationError
from wren_backends.own_modules import Findable, Roots, files_of, loaded_roots, stat_of

_LOOK_EVERY_S = 1.0
_LIMIT_BYTES = 50 * 1024 * 1024
_MACHINE_CODE = re.compile(r"[^.]*(.*)\.(pyd|so|dylib|dll)")
_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
"""Names of machines as file names of extension modules have them (PEP 3149, PEP 600), by those of AWS and of Python."""


class UserModules:
    """The user's modules as one bundle, made anew when more were imported or files were edited.

    Args:
        blobs: Takes the bundle.
        architecture: Of the Linux that it is unpacked on, in AWS's words; empty: of a system like this one.
    """

    def __init__(self, blobs: Blobs, *, architecture: str = "") -> None:
        self._blobs = blobs
        self._machine = _MACHINES.get(architecture, "") or (_here() if sys.platform == "linux" else "")
        self._lock = threading.Lock()
        self._counted = -1
        self._loaded: Roots = {}
        self._findable = Findable()
        self._wanted: set[str] = set()
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
            self._findable.forget()

    def named_by(self, *pickles: Bytes) -> bool:
        """Whether any of `pickles` names one of the user's modules, or holds code that may import one."""
        with self._lock:
            if len(sys.modules) != self._counted:
                self._scan()
            wanted = {name for one in pickles for name in self._findable.in_code(one)}
            if not wanted <= self._wanted:
                self._wanted |= wanted
                self._looked_at = -math.inf
            pattern = self._pattern
        return bool(wanted) or (pattern is not None and any(pattern.search(one) for one in pickles))

    def bundle(self) -> BlobRef:
        """The modules as they are now; files that were edited are noticed within a second.

        Raises:
            SerializationError: They are too large to travel.
        """
        with self._lock:
            now = time.monotonic()
            if self._ref is None or now - self._looked_at > _LOOK_EVERY_S:
                files = list(self._files())
                stamp = tuple((name, *stat_of(path)) for path, name in files)
                if self._ref is None or stamp != self._stamp:
                    before, self._ref = self._ref, self._blobs.keep(_pack(files), kept=True)
                    if before not in (None, self._ref):
                        self._blobs.let_go(before)
                self._stamp, self._looked_at = stamp, now
            return self._ref

    def needed_by(self, *pickles: Bytes) -> BlobRef | None:
        """The bundle, if any of `pickles` names one of the user's modules; raises as `bundle` does."""
        return self.bundle() if self.named_by(*pickles) else None

    def _scan(self) -> None:
        counted = len(sys.modules)
        names, self._loaded = loaded_roots()
        # A name in a pickle is SHORT_BINUNICODE, a length, the text (perhaps `.more` of it) and MEMOIZE.
        alternatives = b"|".join(re.escape(name.encode()) for name in sorted(names))
        self._pattern = re.compile(rb"\x8c(?s:.)(?:" + alternatives + rb")(?=[.\x94])") if names else None
        self._looked_at = -math.inf
        self._counted = counted

    def _files(self) -> Iterator[tuple[Path, str]]:
        roots = dict(self._loaded)
        for name in self._wanted:
            roots |= self._findable.roots(name)
        files = [
            (path, name)
            for path, name in files_of(self._findable.with_imports(roots))
            if not any(one in str(path) for one in self._left_out)
        ]
        foreign = [(path, name) for path, name in files if self._machine and _is_foreign(name, self._machine)]
        _warn_of_foreign(foreign, files, self._machine)
        left_out = {name for _, name in foreign}
        return ((path, name) for path, name in files if name not in left_out)


def _here() -> str:
    return _MACHINES.get(platform.machine().lower(), "")


def _is_foreign(name: str, machine: str) -> bool:
    """Whether a file is machine code that Linux on such a machine cannot load, as far as its name says so."""
    found = _MACHINE_CODE.fullmatch(name.rpartition("/")[2])
    if found is None:
        return False
    tag, kind = found.groups()
    if kind != "so" or "darwin" in tag:
        return True
    if any(one in tag for one in _MACHINES.values()):
        return machine not in tag
    return (sys.platform, _here()) != ("linux", machine)  # it was built here


_told: set[str] = set()


def _warn_of_foreign(foreign: list[tuple[Path, str]], files: list[tuple[Path, str]], machine: str) -> None:
    """Once for each file that has no counterpart beside it."""
    left_out = {name for _, name in foreign}
    stems = {name.partition(".")[0] for _, name in files if name.endswith(".so") and name not in left_out}
    missing = [name for path, name in foreign if name.partition(".")[0] not in stems and str(path) not in _told]
    _told.update(str(path) for path, _ in foreign)
    if missing:
        text = (
            f"your own modules hold machine code that the function's Linux on {machine} cannot load, so it stays here: "
            f"{', '.join(missing)}. What needs it has to be built for that, and deployed among the function's packages"
        )
        warnings.warn(text, UserWarning, stacklevel=2)


def _pack(found: list[tuple[Path, str]]) -> bytes:
    """The same files always give the same bytes, so that an unchanged bundle is not sent again."""
    files = [(path, name) for path, name in found if path.is_file()]
    sizes = {str(path): path.stat().st_size for path, _ in files}
    if sum(sizes.values()) > _LIMIT_BYTES:
        largest = sorted(sizes, key=lambda one: sizes[one], reverse=True)[:5]
        shown = ", ".join(f"{one} ({sizes[one] / 1e6:.0f} MB)" for one in largest)
        modules = sorted({name.partition("/")[0].partition(".")[0] for _, name in files})
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
