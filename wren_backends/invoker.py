"""Starts invocations: the Invoke operation of AWS Lambda over HTTP, one method, foreign errors mapped here.

boto3's client would take a thread for each invocation in flight, and over a millisecond of CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wren_backends.connection import Connection
from wren_backends.dialer import Dialer, NotConnectedError
from wren_backends.poster import BrokenConnectionError, Poster
from wren_backends.renewal import Renewal
from wren_backends.signing import Signer

FaultKind = Literal["throttled", "service", "unsent", "lost", "rejected"]
"""Why an invocation brought no response: 429; 5xx, or the function is changing; the request cannot have arrived; it
may have; 4xx for good."""

_REPLY_MARGIN_S = 30.0

NO_S3 = "WorkerFoundNoS3"
"""Code of a fault that is not AWS's but the worker's: S3 was away for longer than it waits."""

MISSING_BLOB = "MissingBlob"
"""As above: something that the event names is gone from the bucket, and is uploaded once more."""


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
        self._signer = Signer(url, "lambda", connection.region)
        self._renewal = Renewal(connection.credentials)
        self._poster = Poster(url, Dialer(url, connection.proxy_url, connection.ca_file))
        self._ended_within_s = connection.timeout_s + _REPLY_MARGIN_S

    async def invoke(self, event: bytes, *, wait: bool) -> Response:
        """Start one invocation.

        Args:
            event: The event as JSON.
            wait: Wait for its response (`RequestResponse`), or only for its being queued (`Event`).

        Raises:
            InvokeFault: There was no response.
        """
        kind = "RequestResponse" if wait else "Event"
        try:
            headers = self._signer.sign(event, {"x-amz-invocation-type": kind}, await self._renewal.current())
        except Exception as error:  # botocore's, where credentials have to be renewed
            raise InvokeFault("unsent", type(error).__name__, str(error)) from error
        # An asynchronous invocation is answered once it is queued, however long it runs.
        limit_s = self._ended_within_s if wait else _REPLY_MARGIN_S
        try:
            answer = await self._poster.post(headers, event, limit_s)
        except NotConnectedError as error:
            raise InvokeFault("unsent", type(error.__cause__ or error).__name__, str(error)) from error
        except BrokenConnectionError as error:
            raise InvokeFault("lost", "ConnectionLost", str(error)) from error
        got = answer.headers
        if answer.status < 300:
            return Response(answer.body, got.get("x-amzn-requestid", ""), got.get("x-amz-function-error", ""))
        code = got.get("x-amzn-errortype", str(answer.status)).split(":")[0]
        raise InvokeFault(_kind(answer.status), code, answer.body[:500].decode("utf-8", "replace"))

    async def close(self) -> None:
        """Close every connection."""
        await self._poster.close()


def _kind(status: int) -> FaultKind:
    if status == 429:
        return "throttled"
    if status == 408:  # a proxy's word on an idle connection, which may cross a request
        return "lost"
    # 409 passes too: a function that is being updated, restored from a snapshot, or woken after weeks without use
    # (AWS Lambda API reference, "Invoke": ResourceConflictException, SnapStartNotReadyException).
    return "service" if status >= 500 or status == 409 else "rejected"
