"""Follows a job that another process made: finds its outcomes in the bucket, and tells which calls will have none.

Nothing is written. What is committed is looked for as the job's own client does, with one LIST per poll. A value is a
call's end. An exception, a failed outcome and Lambda's record of a failure are once it is certain that the client does
not send the call again (`finality.py`). That a call will have no outcome is known

- from the client's word: that the call ended without a value, or that the job is closed;
- otherwise from time alone: a call that was never sent, because the client died first, cannot be told from one that
  waits in Lambda's queue. When for as long as an event may wait there and run nothing has been heard of the job, no
  outcome will come.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial

from lambda_worker import codec
from lambda_worker.objects import MissingObjectError, ObjectInfo, ObjectStoreError
from lambda_worker.protocol import Bytes, Frame, Outcome, ProtocolError, number_of, outcome_folder, outcome_key
from wren_backends import faults
from wren_backends.carrier import fetch
from wren_backends.connection import Connection, open_store
from wren_backends.deploy.function import EVENT_AGE_S
from wren_backends.errors import (
    EnvironmentLostError,
    InvocationError,
    StorageError,
    TamperedObjectError,
    WrenError,
)
from wren_backends.events import Journal
from wren_backends.failures import FailureRecords
from wren_backends.finality import SILENCE_S, Ending, Pulse
from wren_backends.gather import gather_some
from wren_backends.ranges import Ranges
from wren_backends.reading import connect_functions, failure_error, failure_records, unknown_job, unopened, unseal
from wren_backends.record import MOST_CALLS, JobRecord, ReadRecord, job_folder, read_record
from wren_backends.retry import poll_delay_s
from wren_backends.watcher import FAILURE_POLL_S

_OUTAGE_S = 60.0
_RECORD_POLL_S = 5.0
_LARGEST_FRAME_BYTES = 64 * 1024 * 1024  # far above what workers make of one; whoever writes there may put anything
_LATE_S = 60.0
_LONGEST_TIMEOUT_S = 900  # AWS Lambda quotas, "function timeout"


class Follower:
    """Follows one job. It has to be used on one event loop.

    Args:
        connection: Function and bucket.
        job_id: The job.
        patience_s: After how many seconds without a sign of life a job is over; None: see the module's docstring.
        journal: Is told of outcomes.
        on_known: Called with numbers of calls that were not known before.
        on_outcome: Called with a call's outcome, its fetched payload and its frame; once for each call at most.
        on_failed: Called with a call's number and why it has no outcome; once at most, and then `on_outcome` is not.
    """

    def __init__(
        self,
        connection: Connection,
        job_id: str,
        *,
        patience_s: float | None,
        journal: Journal,
        on_known: Callable[[list[int]], None],
        on_outcome: Callable[[Outcome, list[Bytes], Frame], None],
        on_failed: Callable[[int, WrenError], None],
    ) -> None:
        self._connection = connection
        self._functions = [connection]
        self._job_id = job_id
        self._patience_s = patience_s
        self._journal = journal
        self._on_known = on_known
        self._on_outcome = on_outcome
        self._on_failed = on_failed
        self._store = open_store(connection, connection.prefix)
        self._root = open_store(connection, "")
        self._found = ReadRecord()
        self._failures: list[tuple[FailureRecords, Connection]] = []
        self._known: set[int] = set()
        self._waiting: set[int] = set()
        self._frames: set[str] = set()
        self._endings: dict[int, Ending] = {}
        self._ended = Ranges()
        self._pulse = Pulse(SILENCE_S if patience_s is None else min(SILENCE_S, patience_s))
        self._heard = datetime.min.replace(tzinfo=UTC)
        self._record_due = self._failures_due = 0.0

    @property
    def record(self) -> JobRecord | None:
        """The job's record as it was last read."""
        return self._found.record

    async def open(self) -> None:
        """Find the job, and which calls are known to be there.

        Raises:
            UnknownJobError: There is no object of such a job.
            ConfigError: It ran on another function.
            StorageError: The bucket cannot be read.
        """
        try:
            await self._read_record()
            if self.record is None:
                await self._check_exists()
        except ObjectStoreError as error:
            raise StorageError(f"job {self._job_id}: {error}. Check bucket and credentials") from error
        record = self.record
        self._functions = await asyncio.to_thread(connect_functions, record, self._connection)
        self._failures = failure_records(record, self._functions, self._root) if record else []

    def expect(self, number: int) -> None:
        """Count a call as known before anything in the bucket tells of it."""
        self._know([number])

    async def look(self) -> bool:
        """Look once for what is new; returns whether there was anything. Raises ObjectStoreError."""
        now = asyncio.get_running_loop().time()
        read = now >= self._record_due or self.is_over  # this process may have slept, and the client gone on
        if read:
            await self._read_record()
        # Whatever was there when a call or the job ended is found by what is asked for from here on.
        over = self.is_over
        new = await self._read_frames(everything=over or not self._frames)
        if read or now >= self._failures_due:
            new += sum([await self._read_failures(*one) for one in self._failures])
            self._failures_due = now + FAILURE_POLL_S
        await self._end_settled()
        if over and self.is_over:
            await self._end_rest()
        return new > 0

    async def follow(self, on_look: Callable[[], None]) -> None:
        """Look again and again, until nothing more can come; if S3 cannot be asked for a minute, the rest fails.

        Args:
            on_look: Called after each look.
        """
        loop, idle, looks = asyncio.get_running_loop(), 0, 0
        answered = loop.time()
        while self._waiting or not looks or not self.is_over:
            try:
                idle = 0 if await self.look() else idle + 1
                answered, looks = loop.time(), looks + 1
                on_look()
            except ObjectStoreError as error:
                if loop.time() - answered > _OUTAGE_S:
                    for number in sorted(self._waiting):
                        self._fail(number, StorageError(f"call {number}: {error}. Attach again when S3 answers"))
                    return
            self._journal.say("job.polled", waiting=len(self._waiting))
            await asyncio.sleep(poll_delay_s(idle))

    @property
    def is_over(self) -> bool:
        """Whether nothing more can come, but for what has just been committed."""
        if self._is_closed:
            return True
        return datetime.now(UTC) - self._heard > timedelta(seconds=self._limit_s)

    @property
    def _is_closed(self) -> bool:
        return self.record is not None and self.record.closed is not None

    @property
    def _limit_s(self) -> float:
        if self._patience_s is not None:
            return self._patience_s
        ours = self.record is not None and self.record.function == self._connection.function
        return EVENT_AGE_S + (self._connection.timeout_s if ours else _LONGEST_TIMEOUT_S) + _LATE_S

    # ---- the record

    async def _read_record(self) -> None:
        found = await read_record(self._store, self._job_id)
        if found.modified is not None:
            self._heard = max(self._heard, found.modified)
        if found.record is not None:
            before = self.record.calls if self.record else 0
            self._know(range(before, min(found.record.calls, MOST_CALLS)))
            self._found, self._ended = found, Ranges(found.record.ended)
            self._pulse.feel(found, asyncio.get_running_loop().time())
        elif found.trouble:
            self._journal.say("record.unreadable", logging.WARNING, job=self._job_id, why=repr(found.trouble))
        self._record_due = asyncio.get_running_loop().time() + _RECORD_POLL_S

    async def _check_exists(self) -> None:
        async for _ in self._store.list_info_async(job_folder(self._job_id)):
            return
        raise unknown_job(self._job_id, self._store)

    def _know(self, numbers: Iterable[int]) -> None:
        new = [number for number in numbers if number not in self._known]
        if new:
            self._known.update(new)
            self._waiting.update(new)
            self._on_known(new)

    # ---- outcomes

    async def _read_frames(self, *, everything: bool) -> int:
        """Read what is newly committed: all of it, or what lies from the first number on that is still waited for."""
        start_after = None
        if not everything and (first := min(self._waiting, default=len(self._known))):
            start_after = outcome_key(self._job_id, first - 1)
        folder = outcome_folder(self._job_id)
        found = [one async for one in self._store.list_info_async(folder, start_after)]
        new = [one for one in found if one.key not in self._frames and one.key.rsplit("/", 1)[1].isdecimal()]
        await gather_some(self._read_frame, new)
        return len(new)

    async def _read_frame(self, info: ObjectInfo) -> None:
        seq = int(info.key.rsplit("/", 1)[1])
        number = number_of(seq)
        try:
            data = await self._store.get_async(info.key) if info.size <= _LARGEST_FRAME_BYTES else b""
        except MissingObjectError:
            return  # the job is being deleted
        self._frames.add(info.key)
        self._heard = max(self._heard, info.modified)
        self._know([number])
        try:
            frame = unseal(data, self._functions, self._job_id, seq)
        except codec.TamperedError as error:
            why = unopened(error, self.record, self._functions)
            self._fail(number, TamperedObjectError(f"call {number}: {why}"))
            return
        except ProtocolError as error:
            self._fail(number, faults.protocol_error(error, f"call {number}", self._connection.function))
            return
        self._know(number_of(outcome.seq) for outcome in frame.outcomes)
        self._journal.say("invocation.finished", calls=len(frame.outcomes), environment=frame.environment_id)
        for outcome in frame.outcomes:
            if outcome.kind == "value":
                await self._hand_over(outcome, frame)
            else:
                self._note(Ending.committed(outcome.seq, partial(self._hand_over, outcome, frame)))

    async def _hand_over(self, outcome: Outcome, frame: Frame) -> None:
        number = number_of(outcome.seq)
        if number not in self._waiting:
            return
        try:
            parts = await fetch(outcome.payload[:1] if outcome.apart else outcome.payload, self._store)
        except codec.TamperedError as error:
            self._fail(number, TamperedObjectError(f"call {number}: {error}. Somebody else writes to the bucket"))
        except ObjectStoreError as error:
            self._fail(number, StorageError(f"call {number}: its result cannot be fetched: {error}"))
        else:
            if number in self._waiting:
                self._waiting.discard(number)
                self._journal.say("call.finished", number=number, seq=outcome.seq, kind=outcome.kind)
                self._on_outcome(outcome, parts, frame)

    # ---- ends that may not be the last, and those without an outcome

    async def _read_failures(self, records: FailureRecords, function: Connection) -> int:
        found = await records.poll()
        for failure in found:
            self._heard = max(self._heard, failure.at)
            numbers = {seq: number_of(seq) for seq in failure.seqs if seq >= 0 and number_of(seq) < MOST_CALLS}
            self._know(numbers.values())
            for seq, number in numbers.items():
                error = failure_error(failure, f"call {number}", function)
                self._note(Ending(seq, failure.attempt, partial(self._end, number, error)))
        return len(found)

    def _note(self, ending: Ending) -> None:
        number = number_of(ending.seq)
        known = self._endings.get(number)
        if number in self._waiting and (known is None or known.is_older_than(ending)):
            self._endings[number] = ending

    async def _end_settled(self) -> None:
        """End the calls of which it is certain that nothing but what is known will come."""
        silent = self._pulse.is_silent(asyncio.get_running_loop().time())
        for number, ending in list(self._endings.items()):
            if number not in self._waiting:
                del self._endings[number]
            elif silent or self._is_closed or number in self._ended:
                del self._endings[number]
                await ending.finish()
        for number in [one for one in self._waiting if one in self._ended] if self._ended else []:
            self._fail(number, self._without_outcome(number))

    async def _end_rest(self) -> None:
        """Nothing more can come."""
        for number in sorted(self._waiting):
            ending = self._endings.pop(number, None)
            if ending is not None:
                await ending.finish()
            else:
                self._fail(number, self._without_outcome(number))

    def _without_outcome(self, number: int) -> WrenError:
        if self._is_closed or number in self._ended:
            return InvocationError(
                f"call {number} of job {self._job_id} has no outcome: it was cancelled, given up or never sent by its "
                "client"
            )
        return EnvironmentLostError(
            f"call {number} of job {self._job_id} has no outcome, and nothing was heard of the job since "
            f"{self._heard:%Y-%m-%d %H:%M:%S} UTC: its client ended before it sent the call, or its execution "
            "environment died unnoticed. Submit it again"
        )

    async def _end(self, number: int, error: WrenError) -> None:
        self._fail(number, error)

    def _fail(self, number: int, error: WrenError) -> None:
        if number in self._waiting:
            self._waiting.discard(number)
            self._journal.say("call.failed", call=f"call {number}", error=type(error).__name__)
            self._on_failed(number, error)
