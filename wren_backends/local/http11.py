"""The smallest HTTP/1.1 server that the front door needs: raw headers for SigV4, streamed bodies for S3.

A general server library costs half a second of imports at every start and more time per request than a warm
invocation takes in all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

logger = logging.getLogger("wren_backends.local")

READ_LIMIT = 256 * 1024
"""Bytes buffered per connection; also the limit on the size of a request's head."""

_DRAIN_LIMIT = 1024 * 1024
_REASONS = {status.value: status.phrase for status in HTTPStatus}


class MalformedMessageError(Exception):
    """The peer does not speak HTTP/1.1 as we understand it."""


class BodyTooLargeError(Exception):
    """A body is longer than the operation allows."""


@dataclass(slots=True)
class Body:
    """A message's body that has not been read yet."""

    reader: asyncio.StreamReader
    remaining: int  # -1: until the end of the stream
    chunked: bool = False

    @property
    def empty(self) -> bool:
        """Tell whether nothing is left to read."""
        return self.remaining == 0 and not self.chunked

    async def read(self, limit: int) -> bytes:
        """Read all of it.

        Raises:
            BodyTooLargeError: It is longer than ``limit``.
        """
        if not self.chunked and self.remaining >= 0:
            if self.remaining > limit:
                raise BodyTooLargeError
            size, self.remaining = self.remaining, 0
            return await self.reader.readexactly(size) if size else b""
        parts: list[bytes] = []
        total = 0
        async for part in self.parts():
            total += len(part)
            if total > limit:
                raise BodyTooLargeError
            parts.append(part)
        return b"".join(parts)

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield it piece by piece, with any chunked encoding taken off."""
        if self.chunked:
            while size := await self._chunk_size():
                yield (await self.reader.readexactly(size + 2))[:-2]
            while await self.reader.readline() not in (b"\r\n", b""):
                pass  # trailers
            self.chunked, self.remaining = False, 0
            return
        while self.remaining:
            part = await self.reader.read(READ_LIMIT if self.remaining < 0 else min(READ_LIMIT, self.remaining))
            if not part:
                if self.remaining > 0:
                    raise asyncio.IncompleteReadError(b"", self.remaining)
                self.remaining = 0
                return
            if self.remaining > 0:
                self.remaining -= len(part)
            yield part

    async def _chunk_size(self) -> int:
        line = await self.reader.readline()
        try:
            return int(line.split(b";")[0], 16)
        except ValueError:
            raise MalformedMessageError("a chunk without a size") from None


@dataclass(slots=True)
class Request:
    """One request: the head as it came over the wire, the body not yet read."""

    method: str
    target: str
    headers: dict[str, str]
    raw_headers: list[tuple[str, str]]
    body: Body
    writer: asyncio.StreamWriter
    keep_alive: bool

    @property
    def path(self) -> str:
        """The path as it came over the wire, percent-encoded."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """The query string as it came over the wire."""
        return self.target.partition("?")[2]

    async def read_body(self, limit: int) -> bytes:
        """Read the whole body, after asking for it where the client waits to be asked."""
        self.continue_if_expected()
        return await self.body.read(limit)

    def continue_if_expected(self) -> None:
        """Answer ``Expect: 100-continue``, which boto3 sends with every S3 PUT."""
        if self.headers.get("expect", "").lower() == "100-continue":
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def respond(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Write a complete answer."""
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, '')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines.append(f"content-length: {len(body)}")
        if not self.keep_alive:
            lines.append("connection: close")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
        self.writer.write(head if self.method == "HEAD" else head + body)


Handler = Callable[[Request], Awaitable[None]]


def parse_head(head: bytes) -> tuple[str, list[tuple[str, str]], dict[str, str]]:
    """Split a message's head into its first line, its headers in order, and a lower-case dictionary of them.

    Raises:
        MalformedMessageError: A line is not a header.
    """
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    raw: list[tuple[str, str]] = []
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise MalformedMessageError(f"not a header: {line[:80]!r}")
        value = value.strip()
        raw.append((name, value))
        lower = name.lower()
        headers[lower] = f"{headers[lower]},{value}" if lower in headers else value
    return first, raw, headers


def body_of(headers: Mapping[str, str], reader: asyncio.StreamReader, *, otherwise: int = 0) -> Body:
    """Return the body that a message's headers announce."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return Body(reader, 0, chunked=True)
    length = headers.get("content-length")
    if length is None:
        return Body(reader, otherwise)
    if not length.isdigit():
        raise MalformedMessageError("content-length is not a number")
    return Body(reader, int(length))


async def start_server(handler: Handler) -> tuple[asyncio.Server, int]:
    """Listen on a free port of 127.0.0.1 and return the server with its port."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await _serve_connection(reader, writer, handler)
        with contextlib.suppress(ConnectionError, OSError):
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=READ_LIMIT, backlog=1024)
    return server, server.sockets[0].getsockname()[1]


async def _serve_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> None:
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            request = _request(head, reader, writer)
        except (asyncio.LimitOverrunError, MalformedMessageError):
            writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            return
        try:
            await handler(request)
        except (ConnectionError, asyncio.IncompleteReadError, MalformedMessageError):
            return
        except Exception:
            logger.exception("request.failed method=%s target=%s", request.method, request.target[:200])
            request.keep_alive = False
            request.respond(500, {"content-type": "application/json"}, b'{"message": "Internal Error"}')
        await writer.drain()
        if not request.keep_alive or not await _drained(request.body):
            return


def _request(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request:
    first, raw, headers = parse_head(head)
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise MalformedMessageError(f"not a request line: {first[:80]!r}")
    keep_alive = headers.get("connection", "").lower() != "close" and parts[2] != "HTTP/1.0"
    return Request(parts[0], parts[1], headers, raw, body_of(headers, reader), writer, keep_alive)


async def _drained(body: Body) -> bool:
    """Read what the handler left over, so that the next request can follow; False when it is too much."""
    if body.empty:
        return True
    try:
        await body.read(_DRAIN_LIMIT)
    except BodyTooLargeError:
        return False
    return True
