"""Tells workers, through S3, which calls nobody waits for any more: they look between the calls of an invocation."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Sequence

from lambda_worker import codec
from lambda_worker.objects import ObjectStore, ObjectStoreError
from lambda_worker.protocol import stop_key
from wren_backends.events import Journal

_FLUSH_LIMIT_S = 5.0


class Stopper:
    """Writes the stop list of one job; one PUT for all that is stopped at once. To be used on one event loop.

    Args:
        store: The project's prefix.
        job_id: The job.
        keys: The job's key on each of its functions, with which the list is sealed.
        journal: Is told what happens.
    """

    def __init__(self, store: ObjectStore, job_id: str, keys: Sequence[bytes], journal: Journal) -> None:
        self._store = store
        self._job_id = job_id
        self._keys = keys
        self._journal = journal
        self._stopped: set[int] = set()
        self._written = 0
        self._writer: asyncio.Task[None] | None = None

    def stop(self, seqs: Iterable[int]) -> None:
        """Have workers leave out the calls of these `seq`, as far as they have not begun them."""
        self._stopped.update(seqs)
        if len(self._stopped) > self._written and (self._writer is None or self._writer.done()):
            self._writer = asyncio.get_running_loop().create_task(self._write())

    async def flush(self) -> None:
        """Wait until what was stopped is written, though not for long: it saves money, and nothing depends on it."""
        if self._writer is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._writer, _FLUSH_LIMIT_S)

    async def _write(self) -> None:
        while len(self._stopped) > self._written:
            self._written = len(self._stopped)
            try:
                sealed = codec.seal_stop_list(self._stopped, self._keys, self._job_id)
                await self._store.put_async(stop_key(self._job_id), sealed)
            except ObjectStoreError as error:
                self._journal.say("calls.not_stopped", logging.WARNING, error=str(error))
                return
            self._journal.say("calls.stopped", count=self._written)
