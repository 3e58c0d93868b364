"""The supervisor's side of a template process: starts it, asks it for environments, hears of their ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .output import OutputPipe
from .processes import kill_group

_SCRIPT = Path(__file__).with_name("template.py")


class TemplateEndedError(Exception):
    """The template process ended; carries its wait status."""

    def __init__(self, wait_status: int) -> None:
        super().__init__(f"the template ended with wait status {wait_status}")
        self.wait_status = wait_status


@dataclass(frozen=True)
class TemplateSettings:
    """What a template process is started with."""

    python: str
    handler: str
    code: Path
    path: tuple[str, ...]
    snapshot: bool
    variables: Mapping[str, str]

    def argument(self) -> str:
        """Return the part that goes over the command line."""
        return json.dumps(
            {
                "parent": os.getpid(),
                "handler": self.handler,
                "code": str(self.code),
                "path": self.path,
                "snapshot": self.snapshot,
            }
        )


class Template:
    """A running template process."""

    def __init__(
        self,
        settings: TemplateSettings,
        on_output: Callable[[bytes], None],
        on_exit: Callable[[int, int], None],
        on_end: Callable[[Template, int], None],
    ) -> None:
        self._settings = settings
        self._on_output = on_output
        self._on_exit = on_exit
        self._on_end = on_end
        self._lock = asyncio.Lock()
        self._replies: asyncio.Queue[dict[str, Any] | TemplateEndedError] = asyncio.Queue()
        self._reader: asyncio.Task[None] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._output: OutputPipe | None = None
        self.ended: TemplateEndedError | None = None

    async def start(self) -> None:
        """Start it and wait until the handler's module is imported.

        Raises:
            TemplateEndedError: The process ended instead.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._output = OutputPipe(self._on_output)
        # Not "-I": multiprocessing hands it on to its processes, which would take no notice of PYTHONPATH.
        alone = [self._settings.python, "-S", "-s", "-P"]
        try:
            self._process = subprocess.Popen(
                [*alone, str(_SCRIPT), str(theirs.fileno()), self._settings.argument()],
                env=dict(self._settings.variables),
                stdin=subprocess.DEVNULL,
                stdout=self._output.writer,
                stderr=self._output.writer,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        finally:
            theirs.close()
            os.close(self._output.writer)
        self._control = ours.dup()
        reader, writer = await asyncio.open_connection(sock=ours)
        self._reader = asyncio.create_task(self._read_replies(reader, writer))
        await self._reply()

    async def fork(self, variables: Mapping[str, str], output: int) -> int:
        """Make one execution environment that writes to ``output``; return its process id.

        Raises:
            TemplateEndedError: There is no template any more.
        """
        async with self._lock:
            if self.ended is not None:
                raise self.ended
            message = json.dumps({"variables": variables}).encode() + b"\n"
            with contextlib.suppress(ConnectionError):
                socket.send_fds(self._control, [message], [output])
            return int((await self._reply())["forked"])

    def stop(self) -> None:
        """Kill it, and with it (by the death signal) whatever environments are left."""
        if self._process is not None and self._process.returncode is None:
            kill_group(self._process.pid)

    async def _reply(self) -> dict[str, Any]:
        reply = await self._replies.get()
        if isinstance(reply, TemplateEndedError):
            raise reply
        return reply

    async def _read_replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._process is not None
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                message = json.loads(line)
                if "exited" in message:
                    self._on_exit(message["exited"], message["status"])
                else:
                    self._replies.put_nowait(message)
        writer.close()
        self._control.close()
        self.stop()
        code = self._process.wait()
        self.ended = TemplateEndedError(-code if code < 0 else code << 8)
        if self._output is not None:
            self._output.finish()
        self._replies.put_nowait(self.ended)
        self._on_end(self, self.ended.wait_status)
