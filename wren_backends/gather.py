"""Runs coroutines side by side, but not too many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

_AT_ONCE = 64

T = TypeVar("T")


async def gather_some(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Results of `coroutines`, in their order; 64 of them run at once."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(coroutine: Coroutine[Any, Any, T]) -> T:
        async with gate:
            return await coroutine

    return await asyncio.gather(*(one(coroutine) for coroutine in coroutines))
