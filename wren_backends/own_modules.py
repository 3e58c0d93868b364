"""Finds out which modules are the user's own, what files they have, and which others of theirs those will import.

A module is the user's if it comes from a file that is neither part of Python nor installed in site-packages: a script's
neighbours, an editable install of any kind, a folder on PYTHONPATH. Nothing is imported to find that out.
"""

from __future__ import annotations

import functools
import math
import os
import re
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator
from importlib.machinery import SOURCE_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from lambda_worker import codec
from lambda_worker.protocol import Bytes

_SKIPPED_FOLDERS = {"__pycache__", "node_modules", "site-packages"}
_SKIPPED_ENDINGS = (".pyc", ".pyo")
_NEVER = {"__main__", "__mp_main__", "lambda_worker"}
_INSTALLED = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))

_IMPORT = re.compile(
    rb"^[ \t]*(?:import[ \t]+([\w., \t]+)|from[ \t]+([A-Za-z_][\w.]*)[ \t]+import\b)"
    rb"|import_module\([ \t]*['\"]([A-Za-z_][\w.]*)['\"]",
    re.MULTILINE,
)
# Text in a pickle is SHORT_BINUNICODE, a length, the text and MEMOIZE.
_TEXT = re.compile(rb"\x8c((?s:.))([A-Za-z_][\w.]*)\x94")
_BY_VALUE = (b"_make_function", b"_make_skeleton_class")
"""What cloudpickle's pickles of functions and classes name that travel as code."""

_LOOK_EVERY_S = 1.0
_MOST_CODE = 256

Roots = dict[str, Path]
"""Where modules lie: a folder or a file by its name in the bundle, such as `package`, `package/sub` or `module.py`."""


def loaded_roots() -> tuple[set[str], Roots]:
    """The user's modules among those that are imported: names that pickles use for them, and where they lie.

    A part of a package that lies outside the package's folders, as editable installs may have it, has a root of its
    own. Of a package that is installed in part, only the user's own parts are.
    """
    names: set[str] = set()
    roots: Roots = {}
    installed = set(sys.stdlib_module_names)
    for name, module in sorted(sys.modules.copy().items()):
        top = name.partition(".")[0]
        if top in _NEVER or top in installed:
            continue
        places = _places(module)
        if not places or any(is_installed(place) for place in places):
            if top == name and not _is_namespace(module):
                installed.add(name)  # and with it what is in it
            continue
        if not _lies_in(places, name, roots):
            roots |= _roots_of(name, getattr(module, "__file__", None), getattr(module, "__path__", None))
        if not any(f"{name}.".startswith(f"{known}.") for known in names):
            names.add(name)
    return names, roots


def _places(module: ModuleType) -> list[str]:
    """Where a module says that it comes from."""
    try:
        places = [getattr(module, "__file__", None), *(getattr(module, "__path__", None) or [])]
        return [str(place) for place in places if place]
    except Exception:  # noqa: BLE001  sys.modules may hold any object, with attributes that raise
        return []


def _is_namespace(module: ModuleType) -> bool:
    """Whether a package may have parts in several places."""
    try:
        return getattr(module, "__file__", None) is None and hasattr(module, "__path__")
    except Exception:  # noqa: BLE001  as above
        return False


def _lies_in(places: list[str], name: str, roots: Roots) -> bool:
    """Whether a part of a package comes with the package."""
    parts = name.split(".")
    for count in range(1, len(parts)):
        for key, folder in roots.items():
            if key.partition("#")[0] == "/".join(parts[:count]) and places[0].startswith(f"{folder}{os.sep}"):
                return True
    return False


def _roots_of(name: str, file: str | None, path: Any) -> Roots:
    inside = name.replace(".", "/")
    if path is not None:
        # Places that are no folders are the hooks of editable installs; a namespace may have several.
        folders = [Path(one) for one in map(str, path) if os.path.isdir(one)]
        return {f"{inside}#{number}" if number else inside: folder for number, folder in enumerate(folders)}
    if not file or not os.path.isfile(file):
        return {}
    base, _, suffix = os.path.basename(file).partition(".")
    if base == name.rpartition(".")[2] or f".{suffix}" in SOURCE_SUFFIXES:
        return {f"{inside}.{suffix}": Path(file)}
    return {}


def is_installed(place: str) -> bool:
    """Whether a file is part of Python or of what is installed."""
    return place.startswith(_python_folders()) or any(one in place for one in _INSTALLED)


@functools.cache
def _python_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple(paths[name] + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib"))


class Findable:
    """The user's modules that are not imported here but can be; what was looked for is remembered for a second."""

    def __init__(self) -> None:
        self._way: tuple[object, ...] = ()
        self._looked_at = -math.inf
        self._in_code: dict[str, frozenset[str]] = {}
        self._found: dict[str, Roots] = {}
        self._imports: dict[Path, tuple[tuple[int, int], set[str]]] = {}

    def in_code(self, pickled: Bytes) -> frozenset[str]:
        """Names of such modules that code in a pickle may import when it runs."""
        data = bytes(pickled) if not isinstance(pickled, bytes) else pickled
        if not any(one in data for one in _BY_VALUE):
            return frozenset()
        key = codec.digest(data)  # not the pickle, which may be large
        if time.monotonic() - self._looked_at > _LOOK_EVERY_S or len(self._in_code) > _MOST_CODE:
            self.forget()
        if key not in self._in_code:
            texts = {found[2].decode() for found in _TEXT.finditer(data) if found[1][0] == len(found[2])}
            tops = {text.partition(".")[0] for text in texts}
            self._in_code[key] = frozenset(name for name in tops if self._is_meant(name, texts))
        return self._in_code[key]

    def _is_meant(self, name: str, texts: set[str]) -> bool:
        """Whether there is such a module; a folder without `__init__.py` is one if something in it is named as well."""
        roots = self.roots(name)
        folder = roots.get(name)
        if folder is None or (folder / "__init__.py").exists():
            return bool(roots)
        inside = {text.removeprefix(f"{name}.").partition(".")[0] for text in texts} - {name}
        return any((folder / f"{one}.py").exists() or (folder / one / "__init__.py").exists() for one in inside)

    def roots(self, name: str) -> Roots:
        """Where a top-level module of the user's lies that is not imported; nothing if it is none."""
        way = (tuple(sys.path), len(sys.meta_path))
        if way != self._way:
            self._way, self._found = way, {}
        if name not in self._found:
            self._found[name] = _find(name)
        return self._found[name]

    def forget(self) -> None:
        """Look for modules again: there may be new files."""
        self._found.clear()
        self._in_code.clear()
        self._looked_at = time.monotonic()

    def with_imports(self, roots: Roots) -> Roots:
        """The roots, and those of the modules that they will import, wherever in their code that stands."""
        complete, waiting = dict(roots), list(roots.items())
        while waiting:
            key, root = waiting.pop()
            for path, _ in files_of({key: root}):
                if path.suffix == ".py":
                    for name in self._imported_by(path):
                        found = {one: place for one, place in self.roots(name).items() if one not in complete}
                        complete |= found
                        waiting += found.items()
        return complete

    def _imported_by(self, path: Path) -> set[str]:
        stamp = stat_of(path)
        known = self._imports.get(path)
        if known is None or known[0] != stamp:
            try:
                source = path.read_bytes()
            except OSError:
                source = b""
            known = self._imports[path] = (stamp, set(_imported(source)))
        return known[1]


def _imported(source: bytes) -> Iterator[str]:
    """Top-level names that a source imports; a line in a text that looks like an import does no harm."""
    for found in _IMPORT.finditer(source):
        for one in (found[1] or found[2] or found[3]).split(b","):
            words = one.split()
            if words:
                yield words[0].partition(b".")[0].decode(errors="replace")


def _find(name: str) -> Roots:
    if name in sys.stdlib_module_names or name in _NEVER or name in sys.modules or not name.isidentifier():
        return {}
    try:
        spec = find_spec(name)
    except Exception:  # noqa: BLE001  finders are anybody's code
        return {}
    if spec is None:
        return {}
    path = spec.submodule_search_locations
    places = [*([spec.origin] if spec.has_location and spec.origin else []), *map(str, path or ())]
    if not places or any(is_installed(place) for place in places):
        return {}
    return _roots_of(name, spec.origin if spec.has_location else None, path)


def files_of(roots: Roots) -> Iterator[tuple[Path, str]]:
    """Files to pack and their names in the bundle, in a fixed order, each name once."""
    seen: set[str] = set()
    for key in sorted(roots):
        root, inside = roots[key], key.partition("#")[0]
        found: Iterable[tuple[Path, str]] = _walk(root, inside) if root.is_dir() else [(root, inside)]
        for path, name in found:
            if name not in seen:
                seen.add(name)
                yield path, name


def _walk(folder: Path, name: str) -> Iterator[tuple[Path, str]]:
    entered: set[str] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in entered:  # a link that leads back up
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(one for one in folders if _is_wanted(where, one))
        inside = Path(name) / Path(where).relative_to(folder)
        for file in sorted(files):
            if not file.endswith(_SKIPPED_ENDINGS):
                yield Path(where) / file, (inside / file).as_posix()


def _is_wanted(where: str, folder: str) -> bool:
    """Caches, checkouts' own folders and virtual environments are no parts of packages."""
    if folder in _SKIPPED_FOLDERS or folder.startswith("."):
        return False
    return not os.path.exists(os.path.join(where, folder, "pyvenv.cfg"))


def stat_of(path: Path) -> tuple[int, int]:
    """What changes when a file does."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
