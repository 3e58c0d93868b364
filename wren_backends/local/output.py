"""The reading end of the pipe that a process prints into."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

_CHUNK_BYTES = 65536


class OutputPipe:
    """Hands on what is printed, as it comes. It has to be made and used on the running event loop.

    Args:
        on_data: Called with each piece.

    Attributes:
        writer: File descriptor of the other end, for the process; whoever started that closes it here.
    """

    def __init__(self, on_data: Callable[[bytes], None]) -> None:
        self._on_data = on_data
        self._loop = asyncio.get_running_loop()
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._loop.add_reader(self._reader, self.drain)

    def drain(self) -> None:
        """Hand on what is there already."""
        while self._reader >= 0:
            try:
                data = os.read(self._reader, _CHUNK_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._close()
                return
            self._on_data(data)

    def finish(self) -> None:
        """Hand on what is there, and take no more: a child of the process may still hold the other end."""
        self.drain()
        self._close()

    def _close(self) -> None:
        if self._reader >= 0:
            self._loop.remove_reader(self._reader)
            os.close(self._reader)
            self._reader = -1
