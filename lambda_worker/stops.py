"""Which calls the client has given up: the worker looks into the job's stop list now and then between calls."""

from __future__ import annotations

import time

from lambda_worker import codec
from lambda_worker.objects import ObjectStore, ObjectStoreError
from lambda_worker.protocol import Event, ProtocolError, stop_key

_LOOK_EVERY_S = 1.0
"""Small calls never pay for a look: an invocation that takes less than this makes no request."""


class StopList:
    """The stop list of an event's job, as far as it is known.

    Args:
        event: The event; one of mode `s3` that lay in Lambda's queue for a while is looked up before its first call.
        store: Where the list lies.
        key: The job's key.
    """

    def __init__(self, event: Event, store: ObjectStore, key: bytes) -> None:
        self._job_id = event.job_id
        self._store = store
        self._key = key
        self._ranges: list[tuple[int, int]] = []
        queued_s = time.time() - event.sent_s if event.mode == "s3" else 0.0
        self._due = time.monotonic() + (_LOOK_EVERY_S if queued_s < _LOOK_EVERY_S else 0.0)

    def names(self, seq: int) -> bool:
        """Whether call `seq` was given up."""
        if time.monotonic() >= self._due:
            self._look()
            self._due = time.monotonic() + _LOOK_EVERY_S
        return any(first <= seq <= last for first, last in self._ranges)

    def _look(self) -> None:
        try:
            self._ranges = codec.unseal_stop_list(self._store.get(stop_key(self._job_id)), self._key, self._job_id)
        except (ObjectStoreError, codec.TamperedError, ProtocolError):
            return  # as a rule there is none; and what is not the client's word does not count
