"""Blobs that this execution environment fetched, kept for its next calls in memory that calls may write to unharmed."""

from __future__ import annotations

import mmap
import os
from collections import OrderedDict
from collections.abc import Callable

from lambda_worker.protocol import BlobRef, Bytes

_MAPPED_BYTES = 1024 * 1024
"""From this size on a private mapping costs less than a copy."""

_MOST_MAPPED = 64
"""Each takes three of the 1,024 file descriptors that Lambda allows (AWS Lambda quotas); the rest are copied."""


class _Held:
    """One blob's content: a memory file where that is worth it and the system has them (Linux), else plain bytes."""

    def __init__(self, data: memoryview, *, may_map: bool) -> None:
        self._file = -1
        self.shared: Bytes = data
        if may_map and len(data) >= _MAPPED_BYTES and hasattr(os, "memfd_create"):
            self._file = os.memfd_create("wren-blob")
            _write(self._file, data)
            self.shared = memoryview(mmap.mmap(self._file, len(data), mmap.MAP_SHARED, mmap.PROT_READ))

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
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._size = 0
        self._held: OrderedDict[BlobRef, _Held] = OrderedDict()

    def get(self, ref: BlobRef, fetch: Callable[[BlobRef], memoryview], *, writable: bool) -> Bytes:
        """Content of `ref`.

        Args:
            ref: The blob.
            fetch: Gets its authenticated content if it is not held.
            writable: Whether the caller may write to what it gets; nobody else will see it.
        """
        held = self._held.get(ref)
        if held is None:
            held = _Held(fetch(ref), may_map=sum(one.mapped for one in self._held.values()) < _MOST_MAPPED)
            if ref.size <= self._limit:
                self._held[ref] = held
                self._size += ref.size
                while self._size > self._limit:
                    self._size -= self._held.popitem(last=False)[0].size
        else:
            self._held.move_to_end(ref)
        return held.private() if writable else held.shared


def _write(file: int, data: memoryview) -> None:
    """All of `data`: one write takes 2 GiB at most (write(2))."""
    while len(data):
        data = data[os.write(file, data) :]
