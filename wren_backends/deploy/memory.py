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

    def buckets(self, account: str) -> set[str]:
        """Names of buckets that are being made in an account."""
        return set(self._read().get(account, ()))

    def note_bucket(self, *, account: str, name: str) -> None:
        """Remember one that is about to be made."""
        self._write(account, self.buckets(account) | {name})

    def forget_bucket(self, *, account: str, name: str) -> None:
        """Forget one that is marked as ours now, or that was not made."""
        self._write(account, self.buckets(account) - {name})

    def _read(self) -> dict[str, list[str]]:
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return (
            {key: names for key, names in found.items() if isinstance(names, list)} if isinstance(found, dict) else {}
        )

    def _write(self, account: str, names: set[str]) -> None:
        noted = {key: listed for key, listed in {**self._read(), account: sorted(names)}.items() if listed}
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if noted:
                self._path.write_text(json.dumps(noted))
            else:
                self._path.unlink(missing_ok=True)
