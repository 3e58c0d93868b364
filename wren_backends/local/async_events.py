"""Asynchronous invocations: the queue, AWS's retries, and the record of an event that failed for good.

Follows "How Lambda handles errors and retries with asynchronous invocation" of the Lambda Developer Guide. AWS's
waits are scaled down by an option, its rules are not changed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from .api_errors import ApiError
from .functions import LATEST, Function, Revision
from .invocation import Invocation, Outcome

logger = logging.getLogger("wren_backends.local")

_RETRY_WAITS_S = (60.0, 120.0)
_THROTTLE_WAIT_S = 1.0
_MAX_THROTTLE_WAIT_S = 300.0
_DEFAULT_MAX_AGE_S = 21_600

Start = Callable[[Function, Revision, str, bytes, str, str], Invocation]
PutObject = Callable[[str, str, bytes], Awaitable[None]]


@dataclass(eq=False)
class _Event:
    """One accepted event and what has become of it so far."""

    function: Function
    revision: Revision
    request_id: str
    payload: bytes
    context: str
    accepted: float = field(default_factory=time.monotonic)
    attempts: int = 0
    outcome: Outcome | None = None

    @property
    def arn(self) -> str:
        return f"{self.function.arn}:{self.revision.version}"

    @property
    def config(self) -> dict[str, Any]:
        return self.function.event_configs.get(self.revision.version, {})

    @property
    def max_age_s(self) -> float:
        return float(self.config.get("MaximumEventAgeInSeconds") or _DEFAULT_MAX_AGE_S)

    @property
    def max_attempts(self) -> int:
        retries = self.config.get("MaximumRetryAttempts")
        return 1 + int(2 if retries is None else retries)


class AsyncEvents:
    """Events that were answered with 202."""

    def __init__(self, time_scale: float, age_scale: float, put_object: PutObject) -> None:
        self._time_scale = time_scale
        self._age_scale = age_scale
        self._put_object = put_object
        self._tasks: set[asyncio.Task[None]] = set()
        self.start: Start | None = None

    def accept(self, function: Function, revision: Revision, request_id: str, payload: bytes, context: str) -> None:
        """Queue an event."""
        task = asyncio.create_task(self._see_through(_Event(function, revision, request_id, payload, context)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _see_through(self, event: _Event) -> None:
        condition = "RetriesExhausted"
        while event.attempts < event.max_attempts:
            if event.attempts:
                await asyncio.sleep(_RETRY_WAITS_S[event.attempts - 1] * self._time_scale)
            outcome = await self._attempt(event)
            if outcome is None:
                condition = "EventAgeExceeded"
                break
            event.attempts += 1
            event.outcome = outcome
            if not outcome.failed:
                return
        logger.info("event.failed request_id=%s condition=%s attempts=%d", event.request_id, condition, event.attempts)
        await self._record_failure(event, condition)

    async def _attempt(self, event: _Event) -> Outcome | None:
        """Run the function once; throttles are waited out. None when the event has become too old."""
        assert self.start is not None
        wait_s = _THROTTLE_WAIT_S
        while (left_s := event.accepted + event.max_age_s * self._age_scale - time.monotonic()) >= 0:
            # An update between two attempts applies to the next one.
            revision = event.function.latest if event.revision.version == LATEST else event.revision
            try:
                invocation = self.start(
                    event.function, revision, event.request_id, event.payload, event.function.arn, event.context
                )
            except ApiError:
                await asyncio.sleep(min(wait_s * self._time_scale, left_s + 0.01))
                wait_s = min(2 * wait_s, _MAX_THROTTLE_WAIT_S)
                continue
            return await invocation.outcome
        return None

    async def _record_failure(self, event: _Event, condition: str) -> None:
        destination = (event.config.get("DestinationConfig") or {}).get("OnFailure", {}).get("Destination")
        if not destination:
            return
        now = datetime.now(UTC)
        key = f"aws/lambda/async/{event.function.name}/{now:%Y/%m/%d}/{now:%Y-%m-%dT%H.%M.%S}-{uuid4()}"
        try:
            await self._put_object(destination.rpartition(":")[2], key, _record(event, condition, now))
        except Exception:
            logger.exception("destination.write_failed key=%s", key)


def _record(event: _Event, condition: str, now: datetime) -> bytes:
    outcome = event.outcome
    record: dict[str, Any] = {
        "version": "1.0",
        "timestamp": now.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
        "requestContext": {
            "requestId": event.request_id,
            "functionArn": event.arn,
            "condition": condition,
            "approximateInvokeCount": event.attempts,
        },
        "requestPayload": json.loads(event.payload),
    }
    if outcome is not None:
        record["responseContext"] = {
            "statusCode": 200,
            "executedVersion": outcome.version,
            "functionError": "Unhandled",
        }
        record["responsePayload"] = json.loads(outcome.payload)
    return json.dumps(record).encode()
