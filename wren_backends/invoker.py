"""Starts invocations: the Invoke operation of AWS Lambda over HTTP, one method, foreign errors mapped here.

boto3's client would take a thread per invocation in flight and ten times the CPU. pyreqwest (Rust's reqwest) carries a
thousand on one event loop and does HTTP and TLS on a thread of its own, outside Python's lock: 0.12 ms of CPU for each
request, where aiohttp takes 0.29 (`benchmarks/dispatch_rate.py` measures the whole).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from pyreqwest.client import ClientBuilder
from pyreqwest.exceptions import RequestError
from pyreqwest.http import Url

from wren_backends.connection import Connection
from wren_backends.signing import Signer

FaultKind = Literal["throttled", "service", "unsent", "lost", "rejected"]
"""Why an invocation brought no response: 429; 5xx, or the function is changing; the request cannot have arrived; it
may have; 4xx for good."""

_REPLY_MARGIN_S = 30.0
_CONNECT_TIMEOUT_S = 10.0
_KEEPALIVE_S = 60.0
"""A NAT gateway forgets connections that are idle for 350 s (AWS VPC guide); a long call's is idle all the while."""

_NOT_CONNECTED = "client error (Connect)"
"""How hyper, beneath pyreqwest, words that there was no connection (hyper-util, client/legacy/client.rs)."""

NO_S3 = "WorkerFoundNoS3"
"""Code of the fault that is not AWS's but the worker's: S3 was away for longer than it waits."""


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
        self._url = Url(url)
        self._host = self._url.host_str
        self._signer = Signer(url, "lambda", connection.region, connection.credentials)
        # An asynchronous invocation is answered once it is queued, however long it runs.
        self._queued_within = timedelta(seconds=_REPLY_MARGIN_S)
        self._ended_within = timedelta(seconds=connection.timeout_s + _REPLY_MARGIN_S)
        builder = (
            ClientBuilder()
            .connect_timeout(timedelta(seconds=_CONNECT_TIMEOUT_S))
            .tcp_keepalive(timedelta(seconds=_KEEPALIVE_S))
            .follow_redirects(False)
        )
        # What the environment says of proxies is meant for the world, not for this machine.
        self._client = (builder.no_proxy() if connection.is_local else builder).build()

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
        limit = self._ended_within if wait else self._queued_within
        request = self._client.post(self._url).headers(headers).body_bytes(event).timeout(limit).build()
        try:
            response = await request.send()
            body = bytes(await response.bytes())
        except RequestError as error:
            raise _broken(error, self._host) from error
        _honour_cancellation()
        got = response.headers
        if response.status < 300:
            return Response(body, got.get("x-amzn-RequestId", ""), got.get("X-Amz-Function-Error", ""))
        code = got.get("x-amzn-ErrorType", str(response.status)).split(":")[0]
        raise InvokeFault(_kind(response.status), code, body[:500].decode("utf-8", "replace"))

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()


def _kind(status: int) -> FaultKind:
    if status == 429:
        return "throttled"
    # 409 passes too: a function that is being updated, restored from a snapshot, or woken after weeks without use
    # (AWS Lambda API reference, "Invoke": ResourceConflictException, SnapStartNotReadyException).
    return "service" if status >= 500 or status == 409 else "rejected"


def _honour_cancellation() -> None:
    """End this task if it was cancelled: pyreqwest (0.15) forgets that when the response was there already."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _broken(error: RequestError, host: str | None) -> InvokeFault:
    """The fault of a request without a response; the innermost cause says why in the operating system's words.

    pyreqwest's classes do not tell a connection that was never made from one that broke later (0.15: both are
    ConnectError), but its causes do. Where in doubt, the request may have arrived.
    """
    causes = [cause["message"] for cause in error.details["causes"] or ()] or [error.message]
    return InvokeFault("unsent" if _NOT_CONNECTED in causes else "lost", type(error).__name__, f"{host}: {causes[-1]}")
