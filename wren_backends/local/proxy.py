"""A streaming reverse proxy to one upstream server; it keeps the Host header so that signatures still verify."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field

from .http11 import READ_LIMIT, Body, Request, body_of, parse_head

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "proxy-connection", "te", "upgrade", "expect"})
_IDLE_LIMIT_S = 20.0  # below SeaweedFS's own 30 s, which closes without a word
_NO_BODY = frozenset({204, 304})


@dataclass
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    idle_since: float = 0.0


@dataclass
class Upstream:
    """An HTTP server on 127.0.0.1 that requests are handed on to."""

    port: int
    _idle: list[_Connection] = field(default_factory=list)

    async def forward(self, request: Request) -> None:
        """Hand a request on and its answer back, both streamed."""
        try:
            connection = await self._connection()
            answered = await self._exchange(connection, request)
        except (OSError, asyncio.IncompleteReadError):
            # The client sees a connection that broke, which every S3 client tries again.
            request.keep_alive = False
            request.writer.close()
            return
        if answered:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.writer.close()

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            fresh = time.monotonic() - connection.idle_since < _IDLE_LIMIT_S
            if fresh and not connection.reader.at_eof() and not connection.writer.is_closing():
                return connection
            connection.writer.close()
        return _Connection(*await asyncio.open_connection("127.0.0.1", self.port, limit=READ_LIMIT))

    async def _exchange(self, connection: _Connection, request: Request) -> bool:
        """Return True when the connection can carry another request."""
        head = [f"{request.method} {request.target} HTTP/1.1"]
        head += [f"{name}: {value}" for name, value in request.raw_headers if name.lower() not in _HOP_BY_HOP]
        connection.writer.write(("\r\n".join(head) + "\r\n\r\n").encode("latin-1"))
        request.continue_if_expected()
        # An upstream that refuses early stops reading: its answer says more than the broken pipe does.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await _relay(request.body, connection.writer, chunked=request.body.chunked)
        return await self._answer(connection, request)

    async def _answer(self, connection: _Connection, request: Request) -> bool:
        first, raw, headers = parse_head(await connection.reader.readuntil(b"\r\n\r\n"))
        status = int(first.split(" ", 2)[1])
        if request.method == "HEAD" or status in _NO_BODY:
            body = Body(connection.reader, 0)
        else:
            body = body_of(headers, connection.reader, otherwise=-1)
        until_end = body.remaining < 0
        request.keep_alive = request.keep_alive and not until_end
        lines = [first] + [f"{name}: {value}" for name, value in raw if name.lower() not in _HOP_BY_HOP]
        if not request.keep_alive:
            lines.append("connection: close")
        request.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        await _relay(body, request.writer, chunked=body.chunked)
        return not until_end and headers.get("connection", "").lower() != "close"

    def close(self) -> None:
        """Close the idle connections."""
        for connection in self._idle:
            connection.writer.close()
        self._idle.clear()


async def _relay(body: Body, writer: asyncio.StreamWriter, *, chunked: bool) -> None:
    async for part in body.parts():
        if chunked:
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
        else:
            writer.write(part)
        await writer.drain()
    if chunked:
        writer.write(b"0\r\n\r\n")
