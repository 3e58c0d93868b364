"""Removes what a local cloud leaves on disk: its supervisor does, or its client, or at last the next `up` or `down`."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

SOCKETS = "sockets.txt"
"""File in a cloud's directory that lists the Unix sockets which lie outside of it."""

SHARED_PREFIX, PRIVATE_PREFIX = "wren-shared-", "wren-local-"
"""How the names of clouds' directories begin."""

_LOCK = "supervisor.pid"
"""File in a cloud's directory that its supervisor holds a lock on for as long as it lives."""


def lock(directory: Path) -> IO[str]:
    """Mark a directory as that of a living cloud, which it is until what this returns is closed."""
    import fcntl

    held = (directory / _LOCK).open("w")
    fcntl.flock(held, fcntl.LOCK_EX)
    held.write(f"{os.getpid()}\n")
    held.flush()
    return held


def remove_dead() -> list[Path]:
    """Remove the directories of this user's clouds that were killed, and return them."""
    dead = [directory for directory in _directories() if _is_dead(directory)]
    for directory in dead:
        remove(directory)
    return dead


def _directories() -> Iterator[Path]:
    for prefix in (SHARED_PREFIX, PRIVATE_PREFIX):
        yield from Path(tempfile.gettempdir()).glob(f"{prefix}*")


def _is_dead(directory: Path) -> bool:
    """A lock, unlike a process id, tells even if the cloud runs in another container that has the same /tmp."""
    import fcntl

    try:
        with (directory / _LOCK).open("r+") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return bool(held.read())  # empty: its supervisor is about to take the lock
    except OSError:
        return False


def remove_sockets(directory: Path) -> None:
    """Remove the sockets of a SeaweedFS that has ended; one that is killed leaves them behind."""
    with contextlib.suppress(OSError):
        for line in (directory / SOCKETS).read_text().splitlines():
            Path(line).unlink(missing_ok=True)


def remove(directory: Path) -> None:
    """Remove a cloud's directory and what belongs to it elsewhere; no trouble if it is gone already."""
    remove_sockets(directory)
    shutil.rmtree(directory, ignore_errors=True)
