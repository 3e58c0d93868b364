"""Notices when nothing gets through: says so after some seconds, and at once when a local cloud has ended.

An outage is waited out for `retry_budget_s`, which is minutes, and a program that only waits looks as if it hung.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Callable, Sized

from wren_backends.connection import Connection
from wren_backends.errors import BrokenWrenExecutor
from wren_backends.events import Journal, logger
from wren_backends.invoker import InvokeFault

QUIET_S = 10.0
"""How long nothing may get through before the user is told, in seconds."""

_LOOK_S = 0.5


class Vigil:
    """Watches over the invocations of one job. To be used on one event loop.

    Args:
        connection: Where they go.
        budget_s: For how long they are tried again, in seconds.
        in_flight: Those under way, which may be getting through.
        is_idle: Whether there is nothing to watch over.
        on_gone: Is told, once, that the local cloud has ended.
        journal: Is told what happens.
    """

    def __init__(
        self,
        connection: Connection,
        budget_s: float,
        in_flight: Sized,
        is_idle: Callable[[], bool],
        on_gone: Callable[[BrokenWrenExecutor], None],
        journal: Journal,
    ) -> None:
        self._connection = connection
        self._budget_s = budget_s
        self._in_flight = in_flight
        self._is_idle = is_idle
        self._on_gone = on_gone
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._look: asyncio.TimerHandle | None = None
        self._since: float | None = None
        self._fault: InvokeFault | None = None
        self._said = False

    def keep(self) -> None:
        """Watch for as long as there is something to watch over."""
        if self._look is None and not self._is_idle():
            self._look = self._loop.call_later(_LOOK_S, self._on_look)

    def refused(self, fault: InvokeFault, since: float) -> None:
        """An invocation was not taken in, nor were those before it `since` that clock time."""
        self._since, self._fault = since, fault
        if self._loop.time() - since >= QUIET_S:
            self._say()

    def succeeded(self) -> None:
        """Something got through."""
        self._since, self._fault, self._said = None, None, False

    def close(self) -> None:
        """Watch no longer."""
        if self._look is not None:
            self._look.cancel()

    def _on_look(self) -> None:
        self._look = None
        if self._connection.is_gone():
            self._on_gone(
                BrokenWrenExecutor(
                    f"the local cloud at {self._connection.lambda_url} has ended, and with it what ran there: somebody "
                    "typed `wren local down`, or its process was killed. Make a new executor (the joblib backend and "
                    "wren_get do so by themselves): it uses the cloud of `wren local up`, or starts one of its own"
                )
            )
            return
        if self._since is not None and not self._in_flight and self._loop.time() - self._since >= QUIET_S:
            self._say()
        self.keep()

    def _say(self) -> None:
        if self._said:
            return
        self._said, url = True, self._connection.lambda_url
        self._journal.say("endpoint.silent", logging.WARNING, url=url, fault=self._fault, budget_s=self._budget_s)
        try:
            warnings.warn(
                f"no call has got through to Lambda at {url} for {QUIET_S:g} s ({self._fault}). They are tried again "
                f"for {self._budget_s:g} s before they fail (WREN_RETRY_BUDGET_S); Ctrl-C gives them up now",
                UserWarning,
                stacklevel=1,
            )
        except UserWarning:  # a filter says "error", but there is no frame of the user's for it
            logger.debug("warning.suppressed url=%s", url)
