"""POST requests to one URL over HTTP/1.1: kept-alive connections on one event loop, parsed by httptools.

A dispatch is an HTTP request and little else, so this is where its time goes: aiohttp takes 0.29 ms of CPU for such a
request, this 0.07. pyreqwest (0.12 ms) cannot be used after a fork, forgets cancellations, and does not tell a
connection that was never made from one that broke.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools

_CONNECT_TIMEOUT_S = 10.0
_ADDRESS_TIMEOUT_S = 3.0
_RESOLVED_FOR_S = 10.0
_IDLE_S = 30.0
"""How long a connection may have been idle to be used again; servers close theirs after a minute or so."""

_KEEPALIVE_S = 60
"""A NAT gateway forgets connections that are idle for 350 s (AWS VPC guide); a long call's is idle all the while."""

Address = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]
"""What `getaddrinfo` gives."""


class NotConnectedError(Exception):
    """There was no connection: the request was not sent."""


class BrokenConnectionError(Exception):
    """The connection broke, timed out or said what is not HTTP: the request may have arrived."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response.

    Attributes:
        status: HTTP status.
        headers: By name in lower case.
        body: All of it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class Poster:
    """Sends POST requests to one URL. It has to be used on one event loop.

    Args:
        url: `http` or `https`; without a query.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._line = f"POST {parts.path} HTTP/1.1\r\n"
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._addresses: asyncio.Future[list[Address]] | None = None
        self._resolved_at = 0.0

    async def post(self, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Answer:
        """Send a request and wait for all of its response.

        Args:
            headers: With `host`, without `content-length`.
            body: What to send.
            timeout_s: How long the response may take, in seconds, once there is a connection.

        Raises:
            NotConnectedError: It was not sent.
            BrokenConnectionError: It may have arrived.
        """
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"{self._line}content-length: {len(body)}\r\n{lines}\r\n".encode("latin-1")
        connection = self._reusable() or await self._connect()
        self._busy.add(connection)
        try:
            answer = await connection.exchange(head + body, timeout_s)
        except BaseException:
            connection.abort()  # whatever comes back on it would be taken for the answer to the next request
            raise
        finally:
            self._busy.discard(connection)
        if connection.is_open:
            self._idle.append(connection)
        return answer

    async def close(self) -> None:
        """Close every connection."""
        for connection in (*self._idle, *self._busy):
            connection.abort()
        self._idle.clear()

    def _reusable(self) -> _Connection | None:
        """The connection that was used last, if it is still good; all that were idle for longer are closed."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_open:
                continue
            if connection.idle_s < _IDLE_S:
                return connection
            for old in (connection, *self._idle):
                old.abort()
            self._idle.clear()
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _CONNECT_TIMEOUT_S
        trouble: Exception = OSError("its name has no address")
        try:
            async with asyncio.timeout_at(deadline):
                addresses = await self._resolve()
        except OSError as error:
            raise NotConnectedError(f"{self._host}: {error or 'its name was not looked up in time'}") from error
        for number, address in enumerate(addresses):
            try:
                # One that does not answer must not take the time of those behind it.
                is_last = number == len(addresses) - 1
                async with asyncio.timeout_at(deadline if is_last else min(deadline, loop.time() + _ADDRESS_TIMEOUT_S)):
                    made = await _connected_socket(address)
                async with asyncio.timeout_at(deadline):
                    # From here on the socket is asyncio's: whoever closes it beside it breaks another's connection.
                    _, connection = await loop.create_connection(
                        _Connection, sock=made, ssl=self._tls, server_hostname=self._host if self._tls else None
                    )
                    return connection
            except OSError as error:  # ssl.SSLError and TimeoutError are, too
                trouble = error
        reason = str(trouble) or f"no connection within {_CONNECT_TIMEOUT_S:.0f} s"
        raise NotConnectedError(f"{self._host}: {reason}") from trouble

    async def _resolve(self) -> list[Address]:
        """Addresses of the host; one question answers the many connections that are made at once."""
        loop = asyncio.get_running_loop()
        if self._addresses is None or loop.time() - self._resolved_at > _RESOLVED_FOR_S or _failed(self._addresses):
            self._addresses, self._resolved_at = _look_up(self._host, self._port), loop.time()
        return await asyncio.shield(self._addresses)


def _look_up(host: str, port: int) -> asyncio.Future[list[Address]]:
    """Ask the resolver, on a thread that nobody has to wait for: it may take as long as it likes."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[list[Address]] = loop.create_future()
    with contextlib.suppress(OSError):
        answered.set_result(
            cast("list[Address]", socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
        )
        return answered

    def tell(found: list[Address] | OSError) -> None:
        if isinstance(found, OSError):
            answered.set_exception(found)
            answered.exception()  # perhaps nobody asks any more
        else:
            answered.set_result(found)

    def ask() -> None:
        found: list[Address] | OSError
        try:
            found = cast("list[Address]", socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            found = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, found)

    threading.Thread(target=ask, name="wren-lookup", daemon=True).start()
    return answered


async def _connected_socket(address: Address) -> socket.socket:
    family, kind, protocol, _, where = address
    made = _socket(family, kind, protocol)
    try:
        await asyncio.get_running_loop().sock_connect(made, where)
    except BaseException:
        made.close()
        raise
    return made


def _failed(task: asyncio.Future[list[Address]]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _socket(family: int, kind: int, protocol: int) -> socket.socket:
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    idle = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))  # Linux's name, macOS's name
    if idle is not None:
        made.setsockopt(socket.IPPROTO_TCP, idle, _KEEPALIVE_S)
    return made


class _Connection(asyncio.Protocol):
    """One connection; one request at a time. The methods that start with `on_` are httptools's."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[Answer] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []
        self._ends_with_connection = False
        self._idle_since = 0.0

    @property
    def is_open(self) -> bool:
        """Whether it can carry another request."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def idle_s(self) -> float:
        """How long it has carried nothing."""
        return self._loop.time() - self._idle_since

    def abort(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()

    async def exchange(self, data: bytes, timeout_s: float) -> Answer:
        """Send a request and wait for its response; raises NotConnectedError, BrokenConnectionError."""
        if self._transport is None or self._transport.is_closing():
            raise NotConnectedError("closed by the other side before anything was sent")
        answered: asyncio.Future[Answer] = self._loop.create_future()
        self._answered = answered
        self._parser = httptools.HttpResponseParser(self)
        self._headers, self._parts, self._ends_with_connection = {}, [], False
        late = self._loop.call_later(timeout_s, self._break, f"no response within {timeout_s:.0f} s")
        try:
            self._transport.write(data)
            return await answered
        finally:
            late.cancel()
            self._answered = self._parser = None
            self._idle_since = self._loop.time()

    def _break(self, reason: str) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(BrokenConnectionError(reason))
        self.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: it is there."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        """asyncio: it is gone."""
        if error is None and self._ends_with_connection and self._parser is not None:
            self._complete(self._parser.get_status_code())
        self._break(str(error) if error else "closed by the other side before the response was there")

    def data_received(self, data: bytes) -> None:
        """asyncio: some of the response is here."""
        if self._parser is None:
            self._break("data without a request")
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._break(f"not HTTP: {error}")

    def on_message_begin(self) -> None:
        """A response begins; after the one that was asked for there may be none."""
        if self._answered is None or self._answered.done():
            self.abort()

    def on_headers_complete(self) -> None:
        """All headers are here. Where none says how long the body is, it ends with the connection."""
        lengths = {"content-length", "transfer-encoding"}
        self._ends_with_connection = lengths.isdisjoint(self._headers)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header is complete."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, part: bytes) -> None:
        """A piece of the body."""
        self._parts.append(part)

    def on_message_complete(self) -> None:
        """The response is complete."""
        parser, answered = self._parser, self._answered
        if parser is None or answered is None or answered.done():
            return
        status = parser.get_status_code()
        if status < 200:  # "100 Continue" and the like come before the response
            self._headers, self._parts = {}, []
            return
        transport = self._transport
        # What is left of the request would go before the next one.
        if transport is not None and (not parser.should_keep_alive() or transport.get_write_buffer_size()):
            transport.abort()
        self._complete(status)

    def _complete(self, status: int) -> None:
        if self._answered is not None and not self._answered.done():
            body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._answered.set_result(Answer(status, self._headers, body))
        self._headers, self._parts = {}, []
