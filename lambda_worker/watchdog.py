"""Acts shortly before Lambda would end an invocation at its time limit, from a thread that outlives all of them."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

_log = logging.getLogger("lambda_worker")


class Watchdog:
    """One deadline at a time. Setting it costs next to nothing: the thread looks again when the last one it saw is due.

    No deadline may be earlier than one that was set before, as is the case with one time limit for all invocations.
    """

    def __init__(self) -> None:
        # Kept here, where libraries that replace the clock for a test (freezegun) do not find them.
        self._clock, self._sleep = time.monotonic, time.sleep
        self._armed: tuple[float, Callable[[], None]] | None = None
        self._set = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def due_in(self, seconds: float | None, act: Callable[[], None]) -> Iterator[None]:
        """Have `act` called on the watchdog's thread if the context lasts longer than `seconds`; None: never."""
        if seconds is None:
            yield
            return
        self._armed = self._clock() + seconds, act
        if self._thread is None:  # not before the first event: a clone of a snapshot has no threads
            self._thread = threading.Thread(target=self._run, name="wren-watchdog", daemon=True)
            self._thread.start()
        self._set.set()
        try:
            yield
        finally:
            self._armed = None

    def _run(self) -> None:
        while True:
            armed = self._armed
            if armed is None:
                self._set.clear()
                if self._armed is None:
                    self._set.wait()
                continue
            deadline, act = armed
            left_s = deadline - self._clock()
            if left_s > 0:
                self._sleep(left_s)
            elif self._armed is armed:
                self._armed = None
                try:
                    act()
                except Exception:  # noqa: BLE001  the thread has to outlive it: later invocations have limits too
                    _log.exception("watchdog.failed")
