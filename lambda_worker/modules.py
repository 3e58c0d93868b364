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

from lambda_worker.protocol import BlobRef


class ModulePath:
    """The one bundle of user modules that is importable in this execution environment.

    A bundle replaces the one before it, and modules that came from that one are forgotten, so that a changed source
    file is imported anew.
    """

    def __init__(self) -> None:
        self._digest: str | None = None
        self._folder: str | None = None

    def use(self, ref: BlobRef, fetch: Callable[[BlobRef], memoryview]) -> None:
        """Make the bundle `ref` importable; `fetch` gets its authenticated content.

        Raises:
            zipfile.BadZipFile: It is not a zip.
            OSError: It does not fit into the temporary directory.
        """
        if ref.digest == self._digest:
            return
        folder = tempfile.mkdtemp(prefix="wren-modules-")
        with zipfile.ZipFile(io.BytesIO(fetch(ref))) as bundle:
            bundle.extractall(folder)
        self._forget()
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
        self._digest, self._folder = ref.digest, folder

    def _forget(self) -> None:
        if self._folder is None:
            return
        inside = self._folder + os.sep
        for name, module in list(sys.modules.items()):
            places = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", [])]
            if any(str(place).startswith(inside) for place in places):
                del sys.modules[name]
        sys.path.remove(self._folder)
        shutil.rmtree(self._folder, ignore_errors=True)
