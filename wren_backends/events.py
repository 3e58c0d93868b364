"""What the engine does, said once and heard by the log, by listeners and by the counters of a report.

A happening has a name of the form `noun.past_verb` and fields; `Journal.say` is called on the event loop's thread and
in the thread that submits, so a listener has to be quick and thread-safe.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

logger = logging.getLogger("wren_backends")
logger.addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened.

    Attributes:
        name: Such as `invocation.finished`.
        at: `time.time()` then.
        fields: What else is known; numbers carry their unit in the name.
    """

    name: str
    at: float
    fields: Mapping[str, Any] = field(default_factory=dict)


Listener = Callable[[Happening], None]


class Journal:
    """Passes happenings on to the log and to listeners, and counts.

    Args:
        listeners: Are called with each happening.
        parent: A journal that is told everything too.
    """

    def __init__(self, listeners: tuple[Listener, ...] = (), parent: Journal | None = None) -> None:
        self._listeners = listeners
        self._parent = parent
        self._lock = threading.Lock()
        self._counts: dict[str, float] = {}
        # Of the journals below only the figures, which outlive them: nothing is added twice on the way of a call.
        self._below: list[dict[str, float]] = []
        if parent is not None:
            parent._below.append(self._counts)

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Have `listener` called too for as long as the context lasts."""
        self._listeners = (*self._listeners, listener)
        try:
            yield
        finally:
            self._listeners = tuple(one for one in self._listeners if one is not listener)

    def say(self, name: str, level: int = logging.DEBUG, **fields: Any) -> None:
        """Tell that `name` happened."""
        self.add(name)
        if logger.isEnabledFor(level):
            logger.log(level, "%s %s", name, " ".join(f"{key}={value}" for key, value in fields.items()))
        self._tell(name, fields)

    def _tell(self, name: str, fields: Mapping[str, Any]) -> None:
        if self._listeners:
            happening = Happening(name, time.time(), fields)
            for listener in self._listeners:
                try:
                    listener(happening)
                except Exception:
                    logger.exception("listener.failed happening=%s", name)
        if self._parent is not None:
            self._parent._tell(name, fields)

    def add(self, name: str, amount: float = 1) -> None:
        """Add to a counter."""
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + amount

    def close(self) -> None:
        """Nothing will be said here any more: leave the figures to the parent, which then need not know of this one."""
        if self._parent is not None and self._counts in self._parent._below:
            self._parent._adopt(self._counts)

    def _adopt(self, counts: dict[str, float]) -> None:
        with self._lock:
            self._below = [below for below in self._below if below is not counts]
            for name, amount in counts.items():
                self._counts[name] = self._counts.get(name, 0) + amount

    @property
    def counts(self) -> dict[str, float]:
        """How often each name was said, and the sums that `add` was given, here and in the journals below."""
        with self._lock:
            total, belows = self._counts.copy(), list(self._below)
        for below in belows:
            for name, amount in below.copy().items():
                total[name] = total.get(name, 0) + amount
        return total


PROCESS = Journal()
"""Hears of every executor of this process."""


def set_log_level_from_environment(variable: str = "WREN_LOGLEVEL") -> None:
    """Honour `WREN_LOGLEVEL` (PyWren's habit) for this library's logger only; warn if it names no level."""
    wanted = os.environ.get(variable, "").upper()
    if not wanted or any(h.name == "wren" for h in logger.handlers):
        return
    if wanted not in logging.getLevelNamesMapping():
        levels = ", ".join(logging.getLevelNamesMapping())
        warnings.warn(f"{variable}={wanted} is ignored: it has to be one of {levels}", UserWarning, stacklevel=2)
        return
    handler = logging.StreamHandler()
    handler.name = "wren"
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(wanted)
