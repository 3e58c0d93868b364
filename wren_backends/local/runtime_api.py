"""The Lambda runtime API of one execution environment: the very requests that awslambdaric makes.

One listening port per environment tells who is calling, so nothing has to be looked up. It is a protocol and not
a stream reader because a warm invocation passes through here twice.
"""

from __future__ import annotations

import asyncio
from typing import Protocol
from urllib.parse import quote

_PREFIX = "/2018-06-01/runtime/"
MAX_RESPONSE_BYTES = 6_291_556
"""Limit on a function's answer and on a synchronous event (Lambda quotas page: 6 MB)."""

_ACCEPTED = b'HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: 16\r\n\r\n{"status":"OK"}\n'
_TOO_LARGE_BODY = (
    b'{"errorMessage":"Exceeded maximum allowed payload size (6291556 bytes).","errorType":"RequestEntityTooLarge"}'
)
_TOO_LARGE = b"HTTP/1.1 413 Payload Too Large\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(_TOO_LARGE_BODY),
    _TOO_LARGE_BODY,
)
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class Host(Protocol):
    """What the runtime API tells the supervisor."""

    def runtime_is_idle(self, channel: RuntimeChannel) -> None:
        """The runtime asked for its next invocation."""

    def runtime_responded(self, request_id: str, body: bytes) -> None:
        """The handler returned."""

    def runtime_failed(self, request_id: str, body: bytes) -> None:
        """The handler raised."""

    def runtime_overflowed(self, request_id: str) -> None:
        """The handler returned more than AWS lets through."""

    def init_failed(self, body: bytes) -> None:
        """The handler could not be imported."""


class RuntimeChannel(asyncio.Protocol):
    """One connection of an execution environment's runtime."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._buffer = bytearray()
        self._needed = 0  # do not parse before so many bytes are there
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Handle every complete request in the buffer."""
        self._buffer += data
        while len(self._buffer) >= self._needed and self._one_request():
            pass

    def send_invocation(self, headers: dict[str, str], event: bytes) -> None:
        """Answer the runtime's pending request for its next invocation."""
        lines = [f"{name}: {value}" for name, value in headers.items()]
        # awslambdaric's C client crashes when there is no content type.
        head = "\r\n".join(
            ["HTTP/1.1 200 OK", "Content-Type: application/json", f"Content-Length: {len(event)}", *lines]
        )
        self._write((head + "\r\n\r\n").encode("latin-1", "replace") + event)

    def _one_request(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._buffer[:end]).decode("latin-1")
        length = _content_length(head)
        self._needed = end + 4 + length
        if len(self._buffer) < self._needed:
            return False
        body = bytes(memoryview(self._buffer)[end + 4 : self._needed])
        del self._buffer[: self._needed]
        self._needed = 0
        method, path, _ = head.split(" ", 2)
        self._route(method, path.removeprefix(_PREFIX), body)
        return True

    def _route(self, method: str, path: str, body: bytes) -> None:
        parts = path.split("/")
        if (method, path) == ("GET", "invocation/next"):
            self._host.runtime_is_idle(self)
        elif (method, path) == ("GET", "restore/next"):
            self._write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 0\r\n\r\n")
        elif (method, path) == ("POST", "init/error"):
            self._write(_ACCEPTED)
            self._host.init_failed(body)
        elif method == "POST" and len(parts) == 3 and parts[0] == "invocation":
            self._outcome(parts[1], parts[2], body)
        else:
            self._write(_NOT_FOUND)

    def _outcome(self, request_id: str, kind: str, body: bytes) -> None:
        if len(body) > MAX_RESPONSE_BYTES:
            self._host.runtime_overflowed(request_id)
            self._write(_TOO_LARGE)
            return
        self._write(_ACCEPTED)
        if kind == "response":
            self._host.runtime_responded(request_id, body)
        else:
            self._host.runtime_failed(request_id, body)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def _content_length(head: str) -> int:
    at = head.lower().find("\r\ncontent-length:")
    return int(head[at + 17 :].split("\r\n", 1)[0]) if at >= 0 else 0


def header_value(text: str) -> str:
    """Return a text as an HTTP header can carry it."""
    return text if text.isascii() else quote(text)


async def listen(host: Host) -> tuple[asyncio.Server, int]:
    """Open an environment's runtime API on a free port of 127.0.0.1."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: RuntimeChannel(host), "127.0.0.1", 0, backlog=4)
    return server, server.sockets[0].getsockname()[1]
