"""Keeps credentials fresh without holding the event loop up: temporary ones are renewed on a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

_AGAIN_S = 10.0
"""How long a renewal stands: botocore tries one with each question from 15 minutes before the end, failed or not."""


class Renewal:
    """The credentials to sign with. It has to be used on one event loop.

    Args:
        credentials: Gives botocore credentials.
    """

    def __init__(self, credentials: Callable[[], Any]) -> None:
        self._credentials = credentials
        self._under_way: asyncio.Future[Any] | None = None
        self._begun = 0.0

    async def current(self) -> Any:
        """Credentials as they are now, frozen; those that wait for a renewal share it.

        Raises:
            Exception: Whatever botocore says of a renewal that failed when the old ones are about to expire.
        """
        credentials = self._credentials()
        is_due = getattr(credentials, "refresh_needed", None)  # of those that can be renewed
        if is_due is None or not is_due():
            return credentials.get_frozen_credentials()
        now = asyncio.get_running_loop().time()
        if self._under_way is None or (self._under_way.done() and now - self._begun > _AGAIN_S):
            self._under_way = asyncio.ensure_future(asyncio.to_thread(credentials.get_frozen_credentials))
            self._begun = now
        return await asyncio.shield(self._under_way)
