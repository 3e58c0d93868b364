"""Event loops that end only when the threads of obstore have left them.

Such a thread tells a loop that an operation is done; while it does so it lets go of Python's lock for a moment. The
loop may well go on, end, and the interpreter with it, before the system runs that thread again. It then finds an
interpreter that is being taken down, which ends it in the middle of Rust code, and the process aborts (obstore 0.12.1,
CPython 3.11). A machine with much to do makes that likely.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_LIMIT_S = 10.0
_LOOK_EVERY_S = 0.001

if TYPE_CHECKING or sys.platform != "win32":
    _Base = asyncio.SelectorEventLoop
else:
    _Base = asyncio.ProactorEventLoop


class Loop(_Base):
    """asyncio's own event loop, but for its end."""

    def __init__(self) -> None:
        super().__init__()
        self._telling: dict[int, None] = {}

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """See asyncio."""
        thread = threading.get_ident()
        nested = thread in self._telling  # by a finalizer, while something is made below
        self._telling[thread] = None
        try:
            return super().call_soon_threadsafe(callback, *args, context=context)
        finally:
            # CPython passes its lock on after calls and jumps: after this there is none before the caller has it back.
            if not nested:
                del self._telling[thread]

    def close(self) -> None:
        """See asyncio; waits for threads that have told the loop something and are not back yet."""
        end = time.monotonic() + _LIMIT_S
        while self._telling and time.monotonic() < end:
            time.sleep(_LOOK_EVERY_S)
        super().close()


def run(work: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, on such a loop."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(work)
