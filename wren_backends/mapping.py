"""What `Executor.map` does around its calls: chunks, and results asked for ahead."""

from __future__ import annotations

import itertools
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any


def check_buffersize(buffersize: int | None) -> None:
    """Raise what Python 3.14's `Executor.map` raises for a `buffersize` that is none."""
    if buffersize is not None and not isinstance(buffersize, int):
        raise TypeError("buffersize must be an integer or None")
    if buffersize is not None and buffersize < 1:
        raise ValueError("buffersize must be None or > 0")


def chunked(items: Iterable[tuple[Any, ...]], size: int) -> Iterator[list[tuple[Any, ...]]]:
    """Lists of `size` items each, the last one of what is left."""
    rest = iter(items)
    while chunk := list(itertools.islice(rest, size)):
        yield chunk


def unchunked(lists: Iterator[list[Any]]) -> Iterator[Any]:
    """Items of the chunks; each is let go of once it was handed out, and closing this closes `lists`."""
    for chunk in lists:
        chunk.reverse()
        while chunk:
            yield chunk.pop()


def raising(error: Exception) -> Iterator[Any]:
    """The iterator of a map whose function cannot be pickled: as with a process pool, `next` raises."""
    raise error
    yield


def map_buffered(
    executor: weakref.ref[Executor],
    prepared: Any,
    items: Iterator[tuple[Any, ...]],
    timeout: float | None,
    buffersize: int,
) -> Iterator[Any]:
    """`Executor.map` with `buffersize` for Pythons before 3.14, which have none."""
    end = None if timeout is None else time.monotonic() + timeout
    ahead: deque[Future[Any]] = deque()

    def top_up() -> None:
        target = executor()
        if target is not None:
            ahead.extend(target.submit(prepared, *one) for one in itertools.islice(items, buffersize - len(ahead)))

    top_up()

    def results() -> Iterator[Any]:
        try:
            while ahead:
                future = ahead.popleft()
                value = future.result(None if end is None else end - time.monotonic())
                del future
                top_up()
                yield value
        finally:
            for future in ahead:
                future.cancel()

    return results()
