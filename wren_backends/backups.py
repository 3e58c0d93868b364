"""Backup attempts: a straggler's calls travel once more beside it, and whichever attempt is first counts.

While a group has two attempts in flight they are **rivals**: the first that brings outcomes ends the other, and a
failure counts only if it has no rival.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from wren_backends.calls import Group, Invocation
from wren_backends.config import Config
from wren_backends.events import Journal
from wren_backends.retry import most_backups
from wren_backends.schedule import Schedule

_LOOKS_PER_DELAY = 4
_SELDOMEST_LOOK_S = 1.0


class Backups:
    """Looks for stragglers among the invocations of one job. To be used on one event loop.

    Args:
        config: Settings.
        schedule: Knows how long invocations take, and how many slots there are.
        in_flight: Invocations under way, by task; the engine adds and removes them.
        start: Starts a backup attempt at a group.
        journal: Is told what happens.
    """

    def __init__(
        self,
        config: Config,
        schedule: Schedule,
        in_flight: Mapping[asyncio.Task[None], Invocation],
        start: Callable[[Group], None],
        journal: Journal,
    ) -> None:
        self._config = config
        self._schedule = schedule
        self._in_flight = in_flight
        self._start = start
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._look: asyncio.TimerHandle | None = None

    def mind(self) -> None:
        """Look for stragglers for as long as there may be any."""
        if self._config.backups and self._in_flight and self._look is None:
            delay_s = min(_SELDOMEST_LOOK_S, self._config.backup_after_s / _LOOKS_PER_DELAY)
            self._look = self._loop.call_later(delay_s, self._on_look)

    def close(self) -> None:
        """Look no longer."""
        if self._look is not None:
            self._look.cancel()

    def _on_look(self) -> None:
        """Start a backup attempt at what takes far longer than its like, if there is a slot to spare for it.

        Looks that find no room for another attempt leave it to the next.
        """
        self._look = None
        now = self._loop.time()
        room = most_backups(self._schedule.window.size) - self._hopeful(now)
        for invocation in list(self._in_flight.values()):
            group, running_s = invocation.group, now - invocation.begun
            if room <= 0 or len(self._in_flight) >= self._schedule.window.size or self._schedule:
                break
            if group.may_have_backup and self._schedule.is_straggler(group, running_s, self._config.backup_after_s):
                room -= 1
                group.has_backup = True
                group.attempt += 1
                self._journal.say("backup.started", logging.INFO, calls=group.label, after_s=round(running_s, 3))
                self._start(group)
        self.mind()

    def _hopeful(self, now: float) -> int:
        """How many backups are no stragglers themselves: calls that are long by nature keep no room from others."""
        after_s = self._config.backup_after_s
        return sum(
            one.is_backup and not self._schedule.is_straggler(one.group, now - one.begun, after_s)
            for one in self._in_flight.values()
        )

    def has_rival(self, invocation: Invocation) -> bool:
        """Whether another attempt at the same calls is under way."""
        return invocation.group.has_backup and bool(self._rivals(invocation))

    def end_rivals(self, invocation: Invocation) -> None:
        """This one has the outcomes: nobody waits for another's any more, so that nothing is delivered twice."""
        if invocation.group.has_backup:
            for task in self._rivals(invocation):
                task.cancel()
            if invocation.is_backup:
                self._journal.say("backup.won", logging.INFO, calls=invocation.group.label)

    def say_dropped(self, invocation: Invocation, why: str) -> None:
        """An attempt failed that does not count, as it has a rival."""
        self._journal.say("attempt.dropped", calls=invocation.group.label, attempt=invocation.attempt, reason=why)

    def _rivals(self, invocation: Invocation) -> list[asyncio.Task[None]]:
        return [
            task
            for task, other in self._in_flight.items()
            if other.group is invocation.group and other is not invocation and not task.done()
        ]
