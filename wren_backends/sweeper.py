"""Deletes, in the background, objects that calls made for other calls and that nobody needs any more."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection

from lambda_worker.objects import ObjectStore, ObjectStoreError
from lambda_worker.protocol import BlobRef
from wren_backends.events import Journal

_FLUSH_LIMIT_S = 10.0


class Sweeper:
    """Deletes objects of one prefix; to be used on one event loop.

    Args:
        store: The project's prefix.
        journal: Is told what happens.
    """

    def __init__(self, store: ObjectStore, journal: Journal) -> None:
        self._store = store
        self._journal = journal
        self._doomed: list[str] = []
        self._worker: asyncio.Task[None] | None = None
        self._refused = False

    def sweep(self, refs: Collection[BlobRef]) -> None:
        """Have these objects deleted; those that are gone already are no error."""
        self._doomed += [ref.key for ref in refs]
        if self._doomed and (self._worker is None or self._worker.done()):
            self._worker = asyncio.get_running_loop().create_task(self._delete())

    async def flush(self) -> None:
        """Wait until they are gone, though not for ever: what is left goes with its job, or with the lifecycle rule."""
        if self._worker is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._worker, _FLUSH_LIMIT_S)

    async def _delete(self) -> None:
        while self._doomed:
            keys, self._doomed = self._doomed, []
            try:
                await self._store.delete_async(keys)
            except ObjectStoreError as error:
                # Without the right to delete this happens at each graph: once is enough.
                level = logging.DEBUG if self._refused else logging.WARNING
                self._refused = True
                self._journal.say("intermediates.not_deleted", level, count=len(keys), error=str(error))
                return
            self._journal.say("intermediates.deleted", count=len(keys))
