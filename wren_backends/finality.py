"""Whether how an attempt at a call ended is how the call ended, as somebody sees it who is not its client.

The client decides that (`Delivery.deliver`, `Engine._regroup`), and may be dead. What a reader has to go by is its
settings, which are in the job's record, and that it writes this record when it sends calls again.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from lambda_worker.protocol import SENT_ANEW, Frame, Outcome
from wren_backends import faults
from wren_backends.errors import EnvironmentLostError, InvocationTimeoutError, OutOfMemoryError, WrenError
from wren_backends.failures import Failure
from wren_backends.record import JobRecord, ReadRecord

RESEND_S = 30.0
"""How long after an attempt's end a client that is alive has certainly written its record: it looks every second or
two, writes within three more, and S3 may be slow."""


@dataclass(frozen=True, eq=False, slots=True)
class Ending:
    """How an attempt ended after which the client may send the call again.

    Attributes:
        seq: That of the call when it was sent.
        attempt: Which attempt under this `seq`; infinite if the end is committed, and stands.
        at: When that became known, by the clock of S3.
        finish: Makes this the call's end.
    """

    seq: int
    attempt: float
    at: datetime
    finish: Callable[[], Awaitable[None]]

    @classmethod
    def committed(cls, seq: int, at: datetime, finish: Callable[[], Awaitable[None]]) -> Ending:
        """An end that stands."""
        return cls(seq, math.inf, at, finish)

    def is_older_than(self, other: Ending) -> bool:
        """Whether the client knew of this one when it sent what ended in `other`, or of neither."""
        return (self.seq // SENT_ANEW, self.attempt) <= (other.seq // SENT_ANEW, other.attempt)


def is_settled(ending: Ending, found: ReadRecord, read_at: float, patience_s: float) -> bool:
    """Whether the client has not sent the call again and will not, or could have written that it lives and has not.

    Args:
        ending: What may be the call's end.
        found: The job's record.
        read_at: When that was read, in seconds since 1970.
        patience_s: For how long silence means nothing, in seconds.
    """
    record, written = found.record, found.modified
    if record is None or written is None or record.closed:
        return True
    return written <= ending.at and read_at - ending.at.timestamp() > min(RESEND_S, patience_s)


def outcome_may_change(outcome: Outcome, frame: Frame, record: JobRecord | None) -> bool:
    """Whether a client that is alive may send the call anew, as `Delivery.deliver` decides."""
    if outcome.kind == "error":
        return outcome.retries > 0
    if record is None or outcome.reason == "missing_blob":
        return outcome.kind == "failed"
    late = outcome.reason == "time_limit" and (len(frame.outcomes) > 1 or record.retry_exhausted)
    return record.max_attempts > 1 and (late or outcome.reason == "storage")


def failure_may_pass(failure: Failure, error: WrenError, record: JobRecord | None) -> bool:
    """Whether a client that is alive may send the calls again, as `Carrier` and `Engine._regroup` decide."""
    reply = faults.refusal_in_error(failure.body)
    if reply is not None:
        return reply.refused == "missing"
    if record is None or record.backups:  # another attempt may be under way
        return True
    if isinstance(error, OutOfMemoryError) and record.retry_memory_mb is not None:
        return True
    if failure.attempt >= record.max_attempts:
        return False
    exhausted = isinstance(error, OutOfMemoryError | InvocationTimeoutError)
    return isinstance(error, EnvironmentLostError) or (exhausted and (len(failure.seqs) > 1 or record.retry_exhausted))
