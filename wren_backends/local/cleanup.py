"""Removes what a local cloud leaves on disk, for its supervisor and, when that was killed, for its client."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

SOCKETS = "sockets.txt"
"""File in a cloud's directory that lists the Unix sockets which lie outside of it."""


def remove_sockets(directory: Path) -> None:
    """Remove the sockets of a SeaweedFS that has ended; one that is killed leaves them behind."""
    with contextlib.suppress(OSError):
        for line in (directory / SOCKETS).read_text().splitlines():
            Path(line).unlink(missing_ok=True)


def remove(directory: Path) -> None:
    """Remove a cloud's directory and what belongs to it elsewhere; no trouble if it is gone already."""
    remove_sockets(directory)
    shutil.rmtree(directory, ignore_errors=True)
