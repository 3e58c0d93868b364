"""Runs coroutines side by side, but not too many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

_AT_ONCE = 64

S = TypeVar("S")
T = TypeVar("T")


async def gather_some(work: Callable[[S], Coroutine[Any, Any, T]], items: Iterable[S]) -> list[T]:
    """What `work` makes of each of `items`, in their order; 64 of them are worked at at once.

    If one raises or this is cancelled, the others are cancelled, and have ended when this ends.
    """
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(item: S) -> T:
        async with gate:
            return await work(item)

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
