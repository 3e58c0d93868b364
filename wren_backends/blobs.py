"""Turns large pickles and buffers into blobs and uploads each once, however many calls carry it.

`take` runs in the thread that submits and fixes the content: what it returns no longer changes when the user changes
an array. `upload` runs on the event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lambda_worker import codec
from lambda_worker.objects import ObjectStore
from lambda_worker.parcels import Place
from lambda_worker.protocol import BlobRef, Bytes, Part, Payload
from wren_backends.events import Journal

_REMEMBERED = 100_000
_SMALLEST_BLOB_BYTES = 512


@dataclass
class _Upload:
    """A blob on its way to S3.

    Attributes:
        data: Its content until it is there, and for as long as the client lives if it is to be kept.
        kept: Whether it is.
        task: Uploads it; None before and after.
        done: Whether it is in S3, as far as is known.
        overwrite: Whether what is in S3 is known to be wrong.
    """

    data: Bytes | None
    kept: bool
    task: asyncio.Future[None] | None = None
    done: bool = False
    overwrite: bool = False


class SeenBuffers:
    """Buffers that need no hashing again, recognised by where they lie in memory.

    That is safe for as long as somebody keeps them alive and nobody writes to them, as within one `joblib.Parallel`
    call: loky and dask hold it so too.
    """

    def __init__(self) -> None:
        self._refs: dict[tuple[int, int], BlobRef] = {}

    def add(self, data: Bytes, blobs: Blobs) -> None:
        """Hash a buffer, which has to stay alive until it is discarded."""
        self._refs[_place(data)] = blobs.keep(data)

    def discard(self, data: Bytes) -> None:
        """Forget a buffer."""
        self._refs.pop(_place(data), None)

    def get(self, data: Bytes) -> BlobRef | None:
        """The blob of a buffer that was added."""
        return self._refs.get(_place(data))


def _unplaced(data: Bytes) -> Part:
    return data.obj.part if isinstance(data, memoryview) and isinstance(data.obj, Place) else data


def _place(data: Bytes) -> tuple[int, int]:
    return int(np.frombuffer(data, np.uint8).__array_interface__["data"][0]), len(data)


class Blobs:
    """The blobs that this client has made.

    Args:
        store: Where they go.
        inline_limit_bytes: Parts above it become blobs.
        call_limit_bytes: The most that one call may carry inline in all.
        journal: Is told of uploads.
    """

    def __init__(self, store: ObjectStore, inline_limit_bytes: int, call_limit_bytes: int, journal: Journal) -> None:
        self._store = store
        self._inline_limit = inline_limit_bytes
        self._call_limit = call_limit_bytes
        self._journal = journal
        self._lock = threading.Lock()
        self._uploads: OrderedDict[str, _Upload] = OrderedDict()
        self._trimmed_at = _REMEMBERED

    def take(self, parts: tuple[Bytes, ...], *, seen: SeenBuffers | None = None, kept: bool = False) -> Payload:
        """Make a payload of freshly pickled parts: small ones copied, large ones named by their hash and held.

        Args:
            parts: A pickle and its buffers; in place of a `Place` its part is taken.
            seen: Buffers that need no hashing again.
            kept: Hold the content for as long as this object lives, so that it can be sent again.
        """
        found = [_unplaced(part) for part in parts]
        inline = [part for part in found if not isinstance(part, BlobRef)]
        limit = self._inline_limit
        while limit and sum(len(one) for one in inline if len(one) <= limit) > self._call_limit:
            limit = limit // 2 if limit > _SMALLEST_BLOB_BYTES else 0

        def taken(part: Part) -> Part:
            if isinstance(part, BlobRef):
                return part
            return bytes(part) if len(part) <= limit else (seen and seen.get(part)) or self.keep(part, kept=kept)

        return tuple(map(taken, found))

    def keep(self, data: Bytes, *, kept: bool = False) -> BlobRef:
        """Make a blob of `data`; its content is copied only if it is new."""
        digest = codec.digest(data)
        if not self._knows(digest, kept and data):
            if not isinstance(data, bytes):
                # The copy is hashed again: somebody may have written to the original since, and a blob has to be
                # what its name says.
                data = bytes(data)
                digest = codec.digest(data)
            with self._lock:
                upload = self._uploads.setdefault(digest, _Upload(data, kept))
                upload.data = data
                if len(self._uploads) > self._trimmed_at:
                    self._trim()
        return BlobRef(digest, len(data))

    def _knows(self, digest: str, data: Bytes | bool) -> bool:
        with self._lock:
            found = self._uploads.get(digest)
            if found is None:
                return False
            if isinstance(data, bytes):
                found.data, found.kept = data, True
            self._uploads.move_to_end(digest)
            return found.done or found.data is not None

    def _trim(self) -> None:
        """Forget the oldest that are in S3; what is to be kept, or was not uploaded yet, stays."""
        too_many = len(self._uploads) - _REMEMBERED * 9 // 10
        there = (digest for digest, one in self._uploads.items() if one.data is None)
        for digest in list(itertools.islice(there, too_many)):
            del self._uploads[digest]
        self._trimmed_at = max(_REMEMBERED, len(self._uploads) * 11 // 10)

    def let_go(self, ref: BlobRef) -> None:
        """Keep the content of a blob no longer than until it is in S3."""
        with self._lock:
            found = self._of(ref)
            if found is not None:
                found.kept = False
                found.data = None if found.done else found.data

    def forget(self, ref: BlobRef, *, overwrite: bool = False) -> bool:
        """What S3 has under this name is gone, or wrong; returns whether it can be uploaded again.

        Args:
            ref: The blob.
            overwrite: It is wrong: have the next upload put it in any case.
        """
        with self._lock:
            found = self._of(ref)
            if found is None:
                return False
            found.done, found.overwrite = False, found.overwrite or overwrite
            return found.data is not None

    async def upload(self, refs: Iterable[BlobRef]) -> None:
        """Wait until these blobs are in S3; raises ObjectStoreError."""
        waiting = [one for one in map(self._start, refs) if one is not None]
        if waiting:
            await asyncio.gather(*waiting)

    def _start(self, ref: BlobRef) -> asyncio.Future[None] | None:
        with self._lock:
            upload = self._of(ref)
        if upload is None or upload.done or upload.data is None:
            return None
        if upload.task is None:
            upload.task = asyncio.ensure_future(self._put(ref, upload, upload.data))
        # shielded, since others wait for it too
        return asyncio.shield(upload.task)

    def _of(self, ref: BlobRef) -> _Upload | None:
        """What is known of a blob; nothing if a call has made it, though we may have made one with the same content."""
        return None if ref.job_id else self._uploads.get(ref.digest)

    async def _put(self, ref: BlobRef, upload: _Upload, data: Bytes) -> None:
        try:
            sent = await self._store.put_blob_async(ref, data, overwrite=upload.overwrite)
        finally:
            upload.task = None
        upload.done, upload.overwrite = True, False
        if not upload.kept:
            upload.data = None
        self._journal.add("bytes.uploaded", ref.size if sent else 0)
        self._journal.say("blob.uploaded" if sent else "blob.found", digest=ref.digest[:12], size_bytes=ref.size)
