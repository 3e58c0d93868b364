"""Where things lie that outlive a process."""

from __future__ import annotations

import os
from pathlib import Path


def state_directory() -> Path:
    """Return the directory of the shared cloud's description."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state", "wren")


def cache_directory() -> Path:
    """Return the directory of what can be computed again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "wren")
