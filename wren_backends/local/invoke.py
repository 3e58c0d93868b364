"""The Invoke operation: checks, admission, the run itself, and the answer."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from dataclasses import dataclass
from urllib.parse import parse_qs
from uuid import uuid4

from .api_errors import ApiError, constraint, invalid, too_large
from .async_events import AsyncEvents
from .functions import Function, Functions, Revision
from .http11 import BodyTooLargeError, Request
from .invocation import Invocation, Outcome
from .pool import ComputeContext
from .runtime_api import MAX_RESPONSE_BYTES

MAX_EVENT_BYTES = MAX_RESPONSE_BYTES
"""Limit on a synchronous invocation's event (Lambda quotas page: 6 MB)."""

MAX_ASYNC_EVENT_BYTES = 1_048_576
"""Limit on an asynchronous invocation's event (Lambda quotas page: 1 MB)."""

_TYPES = ("RequestResponse", "Event", "DryRun")


@dataclass
class Invoker:
    """Runs functions."""

    compute: ComputeContext
    functions: Functions
    events: AsyncEvents

    async def read_event(self, request: Request) -> bytes:
        """Read an Invoke request's body within the limit of its type.

        Raises:
            ApiError: It is too large.
        """
        kind = request.headers.get("x-amz-invocation-type") or "RequestResponse"
        limit = MAX_ASYNC_EVENT_BYTES if kind == "Event" else MAX_EVENT_BYTES
        try:
            return await request.read_body(limit)
        except BodyTooLargeError:
            request.keep_alive = False
            raise too_large(limit, "InvokeFunction") from None

    async def invoke(self, name: str, request: Request, event: bytes) -> None:
        """Carry out one Invoke request and answer it.

        Raises:
            ApiError: It is refused.
        """
        headers = request.headers
        kind = headers.get("x-amz-invocation-type") or "RequestResponse"
        if kind not in _TYPES:
            raise constraint(kind, "invocationType", f"Member must satisfy enum value set: [{', '.join(_TYPES)}]")
        qualifier = parse_qs(request.query).get("Qualifier", [None])[0] if request.query else None
        function, qualifier = self.functions.find(name, qualifier)
        revision = function.revision(qualifier)
        _check_json(event)
        latency_ms = self.compute.options.invoke_latency_ms
        if latency_ms:
            await asyncio.sleep(latency_ms / 1000)
        request_id = str(uuid4())
        answer = {"x-amzn-RequestId": request_id, "content-type": "application/json"}
        if kind == "DryRun":
            request.respond(204, answer)
            return
        context = _client_context(headers.get("x-amz-client-context", ""))
        arn = f"{function.arn}:{qualifier}" if qualifier else function.arn
        if kind == "Event":
            self.events.accept(function, revision, request_id, event or b"{}", context)
            request.respond(202, answer)
            return
        invocation = self.start(function, revision, request_id, event, arn, context)
        outcome = await invocation.outcome
        answer["X-Amz-Executed-Version"] = outcome.version
        if outcome.failed:
            answer["X-Amz-Function-Error"] = "Unhandled"
        if headers.get("x-amz-log-type") == "Tail":
            answer["X-Amz-Log-Result"] = invocation.log_tail()
        request.respond(200, answer, outcome.payload)

    def start(
        self, function: Function, revision: Revision, request_id: str, event: bytes, arn: str, context: str = ""
    ) -> Invocation:
        """Start one invocation, whoever waits for it or not.

        Raises:
            ApiError: There is no free concurrency.
        """
        counters = self.compute.counters
        try:
            reserved = self.functions.admit(function)
        except ApiError:
            counters.throttles += 1
            raise
        counters.invocations += 1
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        outcome.add_done_callback(lambda _: self.functions.release(function, reserved=reserved))
        invocation = Invocation(request_id, event or b"{}", arn, context, outcome)
        revision.pool.run(invocation)
        return invocation


def _check_json(event: bytes) -> None:
    if not event:
        return
    try:
        json.loads(event)
    except ValueError as error:
        raise ApiError(
            400, "InvalidRequestContentException", f"Could not parse request body into json: {error}"
        ) from None


def _client_context(header: str) -> str:
    if not header:
        return ""
    try:
        text = base64.b64decode(header, validate=True).decode()
        json.loads(text)
    except (binascii.Error, ValueError):
        raise invalid("Client context must be a valid Base64-encoded JSON object.") from None
    return text
