"""Blobs that this environment fetched or made, kept for its next calls in memory that calls may write to unharmed."""

from __future__ import annotations

import mmap
import os
from collections import Counter, OrderedDict
from collections.abc import Callable

from lambda_worker.protocol import BlobRef, Bytes

_MAPPED_BYTES = 1024 * 1024
"""From this size on a private mapping costs less than a copy."""

_MOST_MAPPED = 64
"""Each takes three of the 1,024 file descriptors that Lambda allows (AWS Lambda quotas); the rest are copied."""


class _Held:
    """One blob's content: a memory file where that is worth it and the system has them (Linux), else plain bytes."""

    def __init__(self, data: memoryview, *, may_map: bool, borrowed: bool) -> None:
        self._file = -1
        if may_map and len(data) >= _MAPPED_BYTES and hasattr(os, "memfd_create"):
            self._file = os.memfd_create("wren-blob")
            _write(self._file, data)
            self.shared: Bytes = memoryview(mmap.mmap(self._file, len(data), mmap.MAP_SHARED, mmap.PROT_READ))
        else:
            self.shared = bytes(data) if borrowed else data

    @property
    def mapped(self) -> bool:
        """Whether it is a memory file."""
        return self._file >= 0

    def private(self) -> Bytes:
        """The content in memory of the caller's own: what it writes is copied page by page, the rest is shared."""
        if self._file < 0:
            return bytearray(self.shared)
        return memoryview(mmap.mmap(self._file, len(self.shared), mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE))

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)


class BlobCache:
    """Holds blobs, the least recently used out first.

    Args:
        limit_bytes: What it holds at most; larger blobs are not kept.

    Attributes:
        reused: How many `blobs`, and how many `bytes` of them, were wanted and held.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._size = 0
        self._mapped = 0
        self._held: OrderedDict[BlobRef, _Held] = OrderedDict()
        self.reused: Counter[str] = Counter()

    def __contains__(self, ref: BlobRef) -> bool:
        return ref in self._held

    def put(self, ref: BlobRef, data: Bytes) -> None:
        """Hold a copy of what a call has made: the next call here may well be the one that needs it."""
        if ref.size <= self._limit and ref not in self._held:
            self._hold(ref, memoryview(data), borrowed=True)

    def get(self, ref: BlobRef, fetch: Callable[[BlobRef], memoryview], *, writable: bool) -> Bytes:
        """Content of `ref`.

        Args:
            ref: The blob.
            fetch: Gets its authenticated content if it is not held.
            writable: Whether the caller may write to what it gets; nobody else will see it.
        """
        held = self._held.get(ref)
        if held is None:
            held = self._hold(ref, fetch(ref))
        else:
            self._held.move_to_end(ref)
            self.reused.update(blobs=1, bytes=ref.size)
        return held.private() if writable else held.shared

    def _hold(self, ref: BlobRef, data: memoryview, *, borrowed: bool = False) -> _Held:
        held = _Held(data, may_map=self._mapped < _MOST_MAPPED, borrowed=borrowed)
        if ref.size <= self._limit:
            self._held[ref] = held
            self._size += ref.size
            self._mapped += held.mapped
            while self._size > self._limit:
                oldest, dropped = self._held.popitem(last=False)
                self._size -= oldest.size
                self._mapped -= dropped.mapped
        return held


def _write(file: int, data: memoryview) -> None:
    """All of `data`: one write takes 2 GiB at most (write(2))."""
    while len(data):
        data = data[os.write(file, data) :]
