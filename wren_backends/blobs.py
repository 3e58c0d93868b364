"""Turns large pickles and buffers into blobs and uploads each once, however many calls carry it.

`take` runs in the thread that submits and fixes the content: what it returns no longer changes when the user changes
an array. `upload` runs on the event loop.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lambda_worker import codec
from lambda_worker.objects import ObjectStore
from lambda_worker.protocol import BlobRef, Bytes, Payload
from wren_backends.events import Journal

_REMEMBERED = 100_000
_SMALLEST_BLOB_BYTES = 512


@dataclass
class _Upload:
    """A blob's content until it is in S3."""

    data: Bytes | None
    done: asyncio.Future[None] | None = field(default=None)


class SeenBuffers:
    """Buffers that were hashed before, recognised by where they lie in memory.

    That is safe while nobody writes to them, as within one `joblib.Parallel` call: loky and dask hold it so too. Each
    is kept alive, since its address would otherwise be given to another.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], tuple[Bytes, BlobRef]] = {}

    def keep(self, blobs: Blobs, data: Bytes) -> BlobRef:
        """As `Blobs.keep`, hashing each buffer once."""
        place = int(np.frombuffer(data, np.uint8).__array_interface__["data"][0]), len(data)
        if place not in self._seen:
            self._seen[place] = data, blobs.keep(data)
        return self._seen[place][1]


class Blobs:
    """The blobs that this client has made.

    Args:
        store: Where they go.
        inline_limit_bytes: Parts above it become blobs.
        call_limit_bytes: The most that one call may carry inline in all.
        journal: Is told of hashes and uploads.
    """

    def __init__(self, store: ObjectStore, inline_limit_bytes: int, call_limit_bytes: int, journal: Journal) -> None:
        self._store = store
        self._inline_limit = inline_limit_bytes
        self._call_limit = call_limit_bytes
        self._journal = journal
        self._lock = threading.Lock()
        self._uploads: OrderedDict[str, _Upload] = OrderedDict()

    def take(self, parts: tuple[Bytes, ...], seen: SeenBuffers | None = None) -> Payload:
        """Make a payload of freshly pickled parts: small ones copied, large ones named by their hash and kept.

        Args:
            parts: A pickle and its buffers.
            seen: Buffers that need no hashing again.
        """
        limit = self._inline_limit
        while (total := sum(len(one) for one in parts if len(one) <= limit)) > self._call_limit and limit:
            limit = limit // 2 if limit > _SMALLEST_BLOB_BYTES else 0
        del total
        keep = self.keep if seen is None else functools.partial(seen.keep, self)
        return tuple(bytes(part) if len(part) <= limit else keep(part) for part in parts)

    def keep(self, data: Bytes) -> BlobRef:
        """Make a blob of `data`; its content is copied only if it is new."""
        ref = BlobRef(codec.digest(data), len(data))
        with self._lock:
            known = ref.digest in self._uploads
            if known:
                self._uploads.move_to_end(ref.digest)
        if not known:
            # bytes objects cannot change any more; anything else is copied, since its owner may write to it
            copy = data if isinstance(data, bytes) else bytes(data)
            with self._lock:
                self._uploads.setdefault(ref.digest, _Upload(copy))
                self._trim()
        return ref

    def _trim(self) -> None:
        while len(self._uploads) > _REMEMBERED:
            digest, oldest = next(iter(self._uploads.items()))
            if oldest.data is not None:  # not uploaded yet
                return
            del self._uploads[digest]

    def forget(self, ref: BlobRef) -> None:
        """The blob was found missing; if its content comes by again it is uploaded anew."""
        with self._lock:
            found = self._uploads.get(ref.digest)
            if found is not None and found.data is None:
                del self._uploads[ref.digest]

    async def upload(self, payloads: list[Payload]) -> None:
        """Wait until every blob that `payloads` name is in S3; raises ObjectStoreError."""
        waiting: list[Any] = []
        for payload in payloads:
            for part in payload:
                if isinstance(part, BlobRef) and (one := self._start(part)) is not None:
                    waiting.append(one)
        if waiting:
            await asyncio.gather(*waiting)

    def _start(self, ref: BlobRef) -> asyncio.Future[None] | None:
        with self._lock:
            upload = self._uploads.get(ref.digest)
        if upload is None or upload.data is None:
            return None
        if upload.done is None:
            upload.done = asyncio.ensure_future(self._put(ref, upload))
        return asyncio.shield(upload.done)

    async def _put(self, ref: BlobRef, upload: _Upload) -> None:
        assert upload.data is not None
        try:
            sent = await self._store.put_blob_async(ref, upload.data)
        except BaseException:
            upload.done = None  # the next call that needs it tries again
            raise
        upload.data = None
        self._journal.say("blob.uploaded" if sent else "blob.found", digest=ref.digest[:12], size_bytes=ref.size)
