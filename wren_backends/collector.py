"""Keeps Python's garbage collector from walking the whole heap again and again while many invocations are in flight.

What an invocation allocates lives for as long as its round trip takes: longer than the collector's two young
generations at their default thresholds, so that nearly all of it ages into the oldest one, whose collections walk
everything. With 1,000 invocations in flight that was a fifth of the client's CPU. Larger young generations let those
objects die where they should. dask's scheduler raises its thresholds for the same reason (dask/distributed#1653).
"""

from __future__ import annotations

import gc
import threading

_YOUNG = 10_000
_lock = threading.Lock()
_users = 0
_before: tuple[int, int, int] | None = None


def relax() -> None:
    """Enlarge the youngest generation, unless it is larger or the collector is off; ends with `restore`."""
    global _users, _before  # noqa: PLW0603  the collector is the process's, and so is what it was set to
    with _lock:
        _users += 1
        current = gc.get_threshold()
        if _users == 1 and 0 < current[0] < _YOUNG:
            _before = current
            gc.set_threshold(_YOUNG, *current[1:])


def restore() -> None:
    """Undo `relax`; the last one to do so puts back what was set, unless somebody else has set something meanwhile."""
    global _users, _before  # noqa: PLW0603
    with _lock:
        _users -= 1
        if _users == 0 and _before is not None:
            if gc.get_threshold()[0] == _YOUNG:
                gc.set_threshold(*_before)
            _before = None
