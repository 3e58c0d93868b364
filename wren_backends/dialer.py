"""Opens connections to one server: looks its name up, tries its addresses, goes through a proxy, speaks TLS."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from typing import TypeVar, cast
from urllib.parse import SplitResult, unquote, urlsplit

_CONNECT_TIMEOUT_S = 10.0
_ADDRESS_TIMEOUT_S = 3.0
_RESOLVED_FOR_S = 10.0
_KEEPALIVE_S = 60
"""A NAT gateway forgets connections that are idle for 350 s (AWS VPC guide); a long call's is idle all the while."""

_HEAD_BYTES = 64 * 1024
"""Most that a proxy may say before it lets through what is sent."""

Address = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]
"""What `getaddrinfo` gives."""

P = TypeVar("P", bound=asyncio.BaseProtocol)


class NotConnectedError(Exception):
    """There was no connection: the request was not sent."""


class Dialer:
    """Opens connections. It has to be used on one event loop.

    Args:
        url: `http` or `https`; only its host and port matter.
        proxy_url: An HTTP proxy (`http://user:password@host:port`) that is asked for a tunnel (CONNECT, RFC 9110,
            section 9.3.6).
        ca_file: PEM file of the authorities whose certificates count; None: OpenSSL's own.
    """

    def __init__(self, url: str, proxy_url: str | None = None, ca_file: str | None = None) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._proxy = urlsplit(proxy_url if "://" in proxy_url else f"http://{proxy_url}") if proxy_url else None
        self._addresses: asyncio.Future[list[Address]] | None = None
        self._resolved_at = 0.0

    async def dial(self, protocol: Callable[[], P]) -> P:
        """Open a connection and return its protocol.

        Args:
            protocol: Makes it; see `asyncio.loop.create_connection`.

        Raises:
            NotConnectedError: There is none within ten seconds.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _CONNECT_TIMEOUT_S
        trouble: Exception = OSError("its name has no address")
        try:
            async with asyncio.timeout_at(deadline):
                addresses = await self._resolve()
        except OSError as error:
            raise NotConnectedError(f"{self._whose}: {error or 'its name was not looked up in time'}") from error
        for number, address in enumerate(addresses):
            try:
                # One that does not answer must not take the time of those behind it.
                is_last = number == len(addresses) - 1
                async with asyncio.timeout_at(deadline if is_last else min(deadline, loop.time() + _ADDRESS_TIMEOUT_S)):
                    made = await _connected_socket(address)
                async with asyncio.timeout_at(deadline):
                    await self._tunnel(made)
                    # From here on the socket is asyncio's: whoever closes it beside it breaks another's connection.
                    _, made_protocol = await loop.create_connection(
                        protocol, sock=made, ssl=self._tls, server_hostname=self._host if self._tls else None
                    )
                    return made_protocol
            except OSError as error:  # ssl.SSLError and TimeoutError are, too
                trouble = error
        reason = str(trouble) or f"no connection within {_CONNECT_TIMEOUT_S:.0f} s"
        raise NotConnectedError(f"{self._whose}: {reason}") from trouble

    @property
    def _whose(self) -> str:
        """How messages name the other side; never with the proxy's password."""
        return f"{self._host} by way of proxy {self._proxy.hostname}" if self._proxy else self._host

    async def _tunnel(self, made: socket.socket) -> None:
        """Have the proxy, if there is one, connect the socket to the server."""
        if self._proxy is None:
            return
        try:
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(made, _connect_request(self._proxy, f"{self._host}:{self._port}"))
            head = b""
            while b"\r\n\r\n" not in head and len(head) < _HEAD_BYTES:
                part = await loop.sock_recv(made, _HEAD_BYTES)
                if not part:
                    raise OSError("the proxy closed the connection")
                head += part
            _check_connected(head.split(b"\r\n", 1)[0])
        except BaseException:
            made.close()
            raise

    async def _resolve(self) -> list[Address]:
        """Addresses to connect to; one question answers the many connections that are made at once."""
        loop = asyncio.get_running_loop()
        if self._addresses is None or loop.time() - self._resolved_at > _RESOLVED_FOR_S or _failed(self._addresses):
            host, port = self._host, self._port
            if self._proxy:
                if self._proxy.scheme != "http":
                    raise OSError(f"a proxy has to be an http:// one, this is {self._proxy.scheme}://: set HTTPS_PROXY")
                host, port = self._proxy.hostname or "", self._proxy.port or 80
            self._addresses, self._resolved_at = _look_up(host, port), loop.time()
        return await asyncio.shield(self._addresses)


def _connect_request(proxy: SplitResult, where: str) -> bytes:
    lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}"]
    if proxy.username is not None:
        known = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(known.encode()).decode()}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _check_connected(status_line: bytes) -> None:
    """Raise OSError unless the proxy has agreed."""
    version, _, rest = status_line.decode("latin-1").partition(" ")
    if version.startswith("HTTP/1.") and rest.startswith("2"):
        return
    hint = ". Put user and password into HTTPS_PROXY, as http://user:password@host:port" if rest[:3] == "407" else ""
    raise OSError(f"the proxy refuses: {rest[:200] or 'what it says is no HTTP'}{hint}")


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
