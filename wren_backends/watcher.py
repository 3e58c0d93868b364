"""Learns of outcomes that arrive through S3: one LIST per poll for the whole job, however many calls it has."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime

from lambda_worker.objects import DeniedError, ObjectStore, ObjectStoreError
from lambda_worker.protocol import outcome_folder, outcome_key
from wren_backends.events import Journal
from wren_backends.failures import Failure, FailureRecords
from wren_backends.gather import gather_some
from wren_backends.retry import poll_delay_s

FAILURE_POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class _Invocation:
    """What a record of a failure has to name, all of it, to be believed.

    Attributes:
        seq: Of its first call.
        attempt: Which attempt at it.
        request_id: AWS request id. Only Lambda and this client know it before there is an outcome or a record, so that
            nobody who merely writes to the bucket can invent a failure. Empty: not known.
    """

    seq: int
    attempt: int
    request_id: str

    def is_meant_by(self, record: _Invocation) -> bool:
        """Whether a record of a failure is about this invocation."""
        return (self.seq, self.attempt) == (record.seq, record.attempt) and self.request_id in ("", record.request_id)


class AsyncInvocationFailed(Exception):
    """Lambda gave an asynchronous invocation up and left a record of it in the bucket.

    Attributes:
        body: What a synchronous invocation would have answered, as JSON bytes.
        request_id: AWS request id.
        condition: AWS's word for why: `RetriesExhausted` or `EventAgeExceeded`.
    """

    def __init__(self, body: bytes, request_id: str, condition: str) -> None:
        super().__init__(f"{condition}: {body[:200]!r}")
        self.body = body
        self.request_id = request_id
        self.condition = condition


class Watcher:
    """Waits for committed frames of one job. It has to be used on one event loop.

    Args:
        store: The project's prefix.
        root: The bucket's root, where Lambda's on-failure records lie; None where there are none (`direct`).
        job_id: The job.
        function: Name of the function, which is part of the records' keys.
        journal: Is told of polls.
        outage_s: How long S3 may be away before those who wait are told, in seconds.
    """

    def __init__(
        self,
        store: ObjectStore,
        root: ObjectStore | None,
        job_id: str,
        function: str,
        journal: Journal,
        outage_s: float = 300.0,
    ) -> None:
        self._store = store
        self._outage_s = outage_s
        self._job_id = job_id
        self._journal = journal
        self._failures = FailureRecords(root, job_id, function, datetime.now(UTC)) if root is not None else None
        self._failures_due = 0.0
        self._failed: dict[_Invocation, AsyncInvocationFailed] = {}
        self._waiting: dict[_Invocation, asyncio.Future[memoryview]] = {}
        self._task: asyncio.Task[None] | None = None
        self._more = asyncio.Event()

    async def watch(self, seq: int, attempt: int, deadline_s: float, request_id: str = "") -> memoryview:
        """The committed frame whose first call has this `seq`, as soon as it is there.

        Args:
            seq: The call.
            attempt: Which attempt at it is out: Lambda's record of an earlier one's failure means nothing now.
            deadline_s: How long to wait at most, in seconds.
            request_id: AWS request id of that attempt; empty if it is not known, since the response was lost.

        Raises:
            TimeoutError: It did not come in time.
            AsyncInvocationFailed: Lambda says that it will not come.
            ObjectStoreError: S3 could not be asked for `outage_s`, or will not be asked by us.
        """
        awaited = _Invocation(seq, attempt, request_id)
        for record in [one for one in self._failed if awaited.is_meant_by(one)]:
            raise self._failed.pop(record)
        found = asyncio.get_running_loop().create_future()
        self._waiting[awaited] = found
        self._more.set()
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._poll())
        try:
            async with asyncio.timeout(deadline_s):
                frame: memoryview = await found
                return frame
        finally:
            self._waiting.pop(awaited, None)

    async def close(self) -> None:
        """Stop polling."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _poll(self) -> None:
        idle = 0
        loop = asyncio.get_running_loop()
        answered = loop.time()
        while self._waiting:
            self._more.clear()
            try:
                found = await self._look(loop.time())
                answered = loop.time()
            except Exception as error:  # noqa: BLE001  it is told to everybody who waits
                passes = isinstance(error, ObjectStoreError) and not isinstance(error, DeniedError)
                if not passes or loop.time() - answered >= self._outage_s:
                    self._fail_all(error)
                    return
                found = 0
            self._journal.say("job.polled", found=found, waiting=len(self._waiting))
            idle = 0 if found else idle + 1
            with contextlib.suppress(TimeoutError):
                # A new call's outcome is due soon, so its arrival makes polling quick again.
                await asyncio.wait_for(self._more.wait(), poll_delay_s(idle))
                idle = min(idle, 1)

    async def _look(self, now: float) -> int:
        found = await self._poll_outcomes()
        if self._failures is not None and now >= self._failures_due:
            found += sum([self._tell(failure) for failure in await self._failures.poll()])
            self._failures_due = now + FAILURE_POLL_S
        return found

    def _fail_all(self, error: Exception) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)

    async def _poll_outcomes(self) -> int:
        awaited: defaultdict[int, list[asyncio.Future[memoryview]]] = defaultdict(list)
        for invocation, future in self._waiting.items():
            if not future.done():
                awaited[invocation.seq].append(future)
        first = min(awaited, default=0)
        start_after = outcome_key(self._job_id, first - 1) if first else None
        due = []
        async for key in self._store.list_async(outcome_folder(self._job_id), start_after):
            name = key.rsplit("/", 1)[1]
            seq = int(name) if name.isdecimal() else -1
            if seq in awaited:
                due.append(seq)

        async def fetch(seq: int) -> None:
            data = await self._store.get_async(outcome_key(self._job_id, seq))
            for future in awaited[seq]:  # of each attempt at it that is out
                if not future.done():
                    future.set_result(data)

        await gather_some(fetch, due)
        return len(due)

    def _tell(self, failure: Failure) -> bool:
        """Tell whoever waits for the invocation that a record names; keep it if nobody does so yet."""
        if not failure.seqs:
            return False
        named = _Invocation(failure.seqs[0], failure.attempt, failure.request_id)
        failed = AsyncInvocationFailed(failure.body, failure.request_id, failure.condition)
        meant = [future for one, future in self._waiting.items() if one.is_meant_by(named)]
        if not meant:
            self._failed[named] = failed
        for future in meant:
            if not future.done():
                future.set_exception(failed)
        return bool(meant)
