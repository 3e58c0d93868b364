"""What this machine remembers of a set-up that was interrupted: buckets that were made and not marked as ours yet."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from wren_backends.local.paths import state_directory


class Memory:
    """A small file in the user's state directory; a set-up also works where none can be written."""

    @property
    def _path(self) -> Path:
        return state_directory() / "buckets-being-made.json"

    def buckets(self) -> set[str]:
        """Names of buckets that are being made."""
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return set()
        return {one for one in found if isinstance(one, str)} if isinstance(found, list) else set()

    def note_bucket(self, *, name: str) -> None:
        """Remember one that is about to be made."""
        self._write(self.buckets() | {name})

    def forget_bucket(self, *, name: str) -> None:
        """Forget one that is marked as ours now."""
        self._write(self.buckets() - {name})

    def _write(self, names: set[str]) -> None:
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if names:
                self._path.write_text(json.dumps(sorted(names)))
            else:
                self._path.unlink(missing_ok=True)
