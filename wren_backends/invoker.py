"""Starts invocations: the Invoke operation of AWS Lambda over HTTP, one method, foreign errors mapped here.

boto3's client would take a thread per invocation in flight and five times the CPU; aiohttp carries a thousand on one
event loop.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp
from yarl import URL

from wren_backends.connection import Connection
from wren_backends.signing import Signer

FaultKind = Literal["throttled", "service", "unsent", "lost", "rejected"]
"""Why an invocation brought no response: 429; 5xx; the request cannot have arrived; it may have; 4xx for good."""

_REPLY_MARGIN_S = 30.0
_CONNECT_TIMEOUT_S = 10.0


class InvokeFault(Exception):
    """An invocation brought no response.

    Attributes:
        kind: See `FaultKind`.
        code: AWS's error type, such as `TooManyRequestsException`, or the exception's name.
    """

    def __init__(self, kind: FaultKind, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.kind = kind
        self.code = code

    @property
    def is_too_large(self) -> bool:
        """Whether the event was larger than Lambda takes."""
        return self.code in ("RequestTooLargeException", "RequestEntityTooLargeException")


@dataclass(frozen=True, slots=True)
class Response:
    """What Lambda answered.

    Attributes:
        body: The payload that the function returned, or Lambda's description of an error.
        request_id: AWS request id.
        function_error: `Handled`, `Unhandled` or empty.
    """

    body: bytes
    request_id: str
    function_error: str = ""


class Invoker:
    """Invokes one function. It has to be made and used on one running event loop.

    Args:
        connection: Where and as whom.
    """

    def __init__(self, connection: Connection) -> None:
        url = f"{connection.lambda_url.rstrip('/')}/2015-03-31/functions/{connection.function}/invocations"
        self._url = URL(url, encoded=True)
        self._signer = Signer(url, "lambda", connection.region, connection.credentials)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60, socket_factory=_socket),
            # One timer for each request: a limit on reads would be set anew with every packet.
            timeout=aiohttp.ClientTimeout(
                total=connection.timeout_s + _REPLY_MARGIN_S, sock_connect=_CONNECT_TIMEOUT_S
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )

    async def invoke(self, event: bytes, *, wait: bool) -> Response:
        """Start one invocation.

        Args:
            event: The event as JSON.
            wait: Wait for its response (`RequestResponse`), or only for its being queued (`Event`).

        Raises:
            InvokeFault: There was no response.
        """
        kind = "RequestResponse" if wait else "Event"
        headers = self._signer.sign(event, {"x-amz-invocation-type": kind})
        try:
            async with self._session.post(self._url, data=event, headers=headers) as response:
                body = await response.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise InvokeFault("unsent", type(error).__name__, str(error)) from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise InvokeFault("lost", type(error).__name__, str(error)) from error
        if response.status < 300:
            got = response.headers
            return Response(body, got.get("x-amzn-RequestId", ""), got.get("X-Amz-Function-Error", ""))
        code = response.headers.get("x-amzn-ErrorType", str(response.status)).split(":")[0]
        raise InvokeFault(_kind(response.status), code, body[:500].decode("utf-8", "replace"))

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()


def _kind(status: int) -> FaultKind:
    if status == 429:
        return "throttled"
    return "service" if status >= 500 else "rejected"


def _socket(address: Any) -> socket.socket:
    """A socket that a NAT gateway does not forget: they drop connections that are idle for 350 s (AWS VPC guide)."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    idle = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))
    if idle is not None:
        made.setsockopt(socket.IPPROTO_TCP, idle, 60)
    return made
