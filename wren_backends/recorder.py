"""Keeps the record of a job up to date while its client lives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from lambda_worker.objects import ObjectStore, ObjectStoreError
from wren_backends.config import Config
from wren_backends.errors import StorageError
from wren_backends.events import Journal
from wren_backends.ranges import Ranges
from wren_backends.record import MOST_RANGES, JobRecord, now, record_key

_TICK_S = 2.0
HEARTBEAT_S = 20.0
"""How often it is written while calls are under way. A PUT costs $0.000005 (Amazon S3 pricing, us-east-1), so an hour
of this costs less than a tenth of a cent."""

_CLOSE_LIMIT_S = 5.0


class Recorder:
    """Writes the record of one job of mode `s3`. It has to be used on one event loop.

    It is written before the first invocation; again when there are more calls, or more that ended without a value,
    every two seconds at most, and more seldom as the job grows older; as a sign of life while calls are under way; and
    at the end. Only the first time may fail a call: a job that leaves no word could not be found again, and S3 is what
    its outcomes will come through anyway.

    Args:
        store: The project's prefix.
        config: Settings.
        job_id: The job.
        functions: Name of its Lambda function, and of the larger one if there is one.
        count: Tells how many calls have been numbered so far.
        ended: Numbers of calls that ended without a value.
        is_idle: Tells whether no call is under way.
        journal: Is told of failed writes.
    """

    def __init__(
        self,
        store: ObjectStore,
        config: Config,
        job_id: str,
        functions: Sequence[str],
        count: Callable[[], int],
        ended: Ranges,
        is_idle: Callable[[], bool],
        journal: Journal,
    ) -> None:
        self._store = store
        self._config = config
        self._job_id = job_id
        self._functions = functions
        self._count = count
        self._ended = ended
        self._is_idle = is_idle
        self._journal = journal
        self._record: JobRecord | None = None
        self._first: asyncio.Future[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._began = self._wrote_at = 0.0
        self._said = (0, 0)

    async def begin(self, label: str) -> None:
        """Wait until there is a record; to be called before an invocation is sent.

        Args:
            label: What waits for it.

        Raises:
            StorageError: It cannot be written. The next to call this tries again.
        """
        if self._keeper is not None or self._config.mode != "s3":
            return
        if self._first is None or self._first.done():
            self._first = asyncio.ensure_future(self._write_first())
        try:
            await asyncio.shield(self._first)  # others wait for it too
        except ObjectStoreError as error:
            raise StorageError(
                f"{label}: the record of job {self._job_id} cannot be written: {error}. Check bucket and credentials"
            ) from error

    async def close(self) -> None:
        """Every call has ended: write that down."""
        if self._keeper is None:
            return
        self._keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._keeper
        try:
            async with asyncio.timeout(_CLOSE_LIMIT_S):
                await self._write(closed=now())
        except (ObjectStoreError, TimeoutError) as error:
            self._say_failed(error)

    async def _write_first(self) -> None:
        await self._write()
        self._began = self._wrote_at
        self._keeper = asyncio.create_task(self._keep())

    async def _write(self, closed: datetime | None = None) -> None:
        said = self._count(), self._ended.changes
        self._wrote_at = asyncio.get_running_loop().time()
        if self._record is None:
            self._record = JobRecord.of_this_process(self._job_id, self._functions, self._config)
        record = replace(self._record, calls=said[0], ended=self._ended.pairs(MOST_RANGES), closed=closed)
        await self._store.put_async(record_key(self._job_id), json.dumps(record.to_json()).encode())
        self._said = said

    async def _keep(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(_TICK_S)
            if self._is_due(clock()):
                try:
                    await self._write()
                except ObjectStoreError as error:
                    self._say_failed(error)
                    self._wrote_at = -math.inf  # so that it is tried again soon

    def _is_due(self, now: float) -> bool:
        since_s = now - self._wrote_at
        if self._said == (self._count(), self._ended.changes):
            return not self._is_idle() and since_s >= HEARTBEAT_S
        return since_s >= min(HEARTBEAT_S, (now - self._began) / 10)

    def _say_failed(self, error: Exception) -> None:
        self._journal.say("record.write_failed", logging.WARNING, job=self._job_id, error=repr(error))
