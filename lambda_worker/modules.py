"""Puts the user's own modules, which travel as one zip, where `import` finds them."""

from __future__ import annotations

import importlib
import io
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable

from lambda_worker.protocol import MODULES_FOLDER, BlobRef


class ModulePath:
    """The one bundle of user modules that is importable in this execution environment.

    A bundle replaces the one before it, and modules that came from that one are forgotten, so that a changed source
    file is imported anew.
    """

    def __init__(self) -> None:
        self._digest: str | None = None
        self._folder: str | None = None

    def use(self, ref: BlobRef, fetch: Callable[[BlobRef], memoryview]) -> bool:
        """Make the bundle `ref` importable; `fetch` gets its authenticated content.

        Returns:
            Whether it took the place of another one, whose modules and their state are gone now.

        Raises:
            zipfile.BadZipFile: It is not a zip.
            OSError: It does not fit into the temporary directory.
        """
        if ref.digest == self._digest and self._folder is not None and os.path.isdir(self._folder):
            if self._folder not in sys.path:  # calls may do to it what they like
                sys.path.insert(0, self._folder)
            return False
        folder = tempfile.mkdtemp(prefix=MODULES_FOLDER)
        with zipfile.ZipFile(io.BytesIO(fetch(ref))) as bundle:
            bundle.extractall(folder)
        before, self._digest, self._folder = self._folder, ref.digest, folder
        sys.path.insert(0, folder)
        if before is not None:
            _forget(before)
        importlib.invalidate_caches()
        return before is not None


def _forget(folder: str) -> None:
    """Take a bundle out of use. All names are found before one goes: a namespace package's path asks its parent."""
    doomed = [name for name, module in list(sys.modules.items()) if _comes_from(module, folder + os.sep)]
    for name in doomed:
        sys.modules.pop(name, None)
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    shutil.rmtree(folder, ignore_errors=True)


def _comes_from(module: object, inside: str) -> bool:
    try:
        places = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", [])]
        return any(str(place).startswith(inside) for place in places)
    except Exception:  # noqa: BLE001  modules may be any object, with any attributes
        return False
