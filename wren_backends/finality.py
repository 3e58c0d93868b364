"""Whether how an attempt at a call ended is how the call ended, as somebody sees it who is not its client.

Only the client decides that: it may send the call again. It writes the numbers of calls that ended without a value into
the job's record, and that record again and again while calls are under way. So an end is the call's if the client has
said so, has closed the job, or is dead.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from lambda_worker.protocol import SENT_ANEW
from wren_backends.failures import CLOCK_SKEW
from wren_backends.record import ReadRecord

SILENCE_S = 60.0
"""A client that has written nothing for so long is dead: it writes three times as often (`recorder.HEARTBEAT_S`)."""


@dataclass(frozen=True, eq=False, slots=True)
class Ending:
    """How an attempt ended after which the client may send the call again.

    Attributes:
        seq: That of the call when it was sent.
        attempt: Which attempt under this `seq`; infinite if the end is committed, and stands.
        finish: Makes this the call's end.
    """

    seq: int
    attempt: float
    finish: Callable[[], Awaitable[None]]

    @classmethod
    def committed(cls, seq: int, finish: Callable[[], Awaitable[None]]) -> Ending:
        """An end that stands."""
        return cls(seq, math.inf, finish)

    def is_older_than(self, other: Ending) -> bool:
        """Whether the client knew of this one when it sent what ended in `other`, or of neither."""
        return (self.seq // SENT_ANEW, self.attempt) <= (other.seq // SENT_ANEW, other.attempt)


class Pulse:
    """Whether a job's client is alive.

    Only changes of the record count that were seen from here, by the clock of here: that of S3, which dates the record,
    may be off by minutes. A record that is older than that by far needs no waiting.

    Args:
        silence_s: After how many seconds without a change it is dead.
    """

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._written: datetime | None = None
        self._felt_at = -math.inf

    def feel(self, found: ReadRecord, now: float) -> None:
        """Take note of the record; `now` is the clock's time in seconds."""
        if found.modified is None or found.modified == self._written:
            return
        is_first, self._written = self._written is None, found.modified
        is_old = datetime.now(UTC) - found.modified > CLOCK_SKEW + timedelta(seconds=self._silence_s)
        self._felt_at = -math.inf if is_first and is_old else now

    def is_silent(self, now: float) -> bool:
        """Whether the client is dead, or there is no word of it at all."""
        return now - self._felt_at >= self._silence_s
