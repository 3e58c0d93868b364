"""One attempt of a group: its blobs to S3, its event to Lambda, its frame back."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

from lambda_worker import codec
from lambda_worker.objects import ObjectStore, ObjectStoreError
from lambda_worker.protocol import (
    BlobRef,
    Bytes,
    Event,
    Frame,
    Mode,
    Payload,
    ProtocolError,
    Reply,
    WireCall,
    outcome_key,
)
from wren_backends import faults
from wren_backends.blobs import Blobs
from wren_backends.calls import Group
from wren_backends.config import Config
from wren_backends.connection import Connection
from wren_backends.deploy.function import EVENT_AGE_S
from wren_backends.errors import (
    EnvironmentLostError,
    InvocationTimeoutError,
    OutOfMemoryError,
    StorageError,
    TamperedObjectError,
)
from wren_backends.events import Journal
from wren_backends.gather import gather_some
from wren_backends.invoker import MISSING_BLOB, NO_S3, InvokeFault, Invoker
from wren_backends.packages import Packages
from wren_backends.watcher import AsyncInvocationFailed, Watcher

_LATE_S = 5.0
"""How long after the function's time limit its outcome may still appear in S3."""


_INIT_S = 10.0
"""Longest init phase of an environment (AWS Lambda developer guide, "Lambda execution environment lifecycle")."""

_UNSURE_S = 2.0
"""How long an outcome is looked for that may never come, before its calls are sent again. The first outcome stands, so
that sending too soon costs an invocation; sending too late costs the user's time."""

ENVIRONMENT_ENDED = (EnvironmentLostError, OutOfMemoryError, InvocationTimeoutError)
"""Ends of an environment that one of several calls brought about: each of them deserves an environment of its own."""


@dataclass(frozen=True, slots=True)
class Initializer:
    """What runs once per execution environment before the first call.

    Attributes:
        payload: Pickled `(initializer, initargs)`.
        modules: Bundle of the user's modules that it needs.
    """

    payload: Payload
    modules: BlobRef | None


@dataclass(frozen=True)
class Trip:
    """What came of a group's trip.

    Attributes:
        frame: Its outcomes.
        took_s: Wall time from sending the event that brought them to having them.
    """

    frame: Frame
    took_s: float


class Carrier:
    """Carries groups of one job. It has to be used on one event loop.

    Args:
        config: Settings.
        connection: Function and bucket.
        job_id: The job.
        store: The project's prefix in the bucket.
        blobs: The client's blobs.
        invoker: Starts invocations.
        watcher: Waits for frames in S3.
        journal: Is told what happens.
    """

    def __init__(
        self,
        config: Config,
        connection: Connection,
        job_id: str,
        *,
        store: ObjectStore,
        blobs: Blobs,
        invoker: Invoker,
        watcher: Watcher,
        journal: Journal,
    ) -> None:
        self._config = config
        self._connection = connection
        self._job_id = job_id
        self._mode: Mode = "s3" if config.mode == "s3" else "direct"
        self._key = codec.job_key(connection.function_key, job_id)
        self._store = store
        self._blobs = blobs
        self._invoker = invoker
        self._watcher = watcher
        self._journal = journal
        self._packages = Packages(connection)

    @property
    def function(self) -> str:
        """Name of the Lambda function."""
        return self._connection.function

    async def close(self) -> None:
        """Close connections and stop polling."""
        await self._watcher.close()
        await self._invoker.close()

    async def carry(self, group: Group, attempt: int, initializer: Initializer | None) -> Trip:
        """Make one attempt.

        Args:
            group: The calls.
            attempt: Which attempt at them it is.
            initializer: What has to have run before.

        Raises:
            InvokeFault: It may be tried again.
            WrenError: It may not, or not in the same company.
        """
        try:
            event = self._event(group, attempt, initializer)
            await self._blobs.upload(event.blobs())
            return await self._invoke_or_recover(event, group)
        except codec.TamperedError as error:
            raise TamperedObjectError(f"{group.label}: {error}. Somebody else writes to the bucket") from error
        except ProtocolError as error:
            raise faults.protocol_error(error, group.label, self._connection.function) from error
        except ObjectStoreError as error:
            raise StorageError(f"{group.label}: {error}. Check bucket and credentials") from error

    async def _invoke_or_recover(self, event: Event, group: Group) -> Trip:
        sent = time.monotonic()
        try:
            return await self._invoke(event, group)
        except InvokeFault as fault:
            frame = await self._recover(group, event.attempt, time.monotonic() - sent) if fault.kind == "lost" else None
            if frame is None:
                raise
        except ENVIRONMENT_ENDED:
            frame = await self._committed(group)  # what was committed before the end counts
            if frame is None:
                raise
        return Trip(frame, time.monotonic() - sent)

    async def _committed(self, group: Group) -> Frame | None:
        try:
            async with asyncio.timeout(_UNSURE_S):
                return self._open(await self._store.get_async(outcome_key(self._job_id, group.first_seq)), group)
        except (TimeoutError, ObjectStoreError, codec.TamperedError, ProtocolError):
            return None  # the error that brought us here says more

    async def _recover(self, group: Group, attempt: int, elapsed_s: float) -> Frame | None:
        """The response is lost. A call that ran for long commits its outcome, so waiting may save running it again.

        Nobody knows whether an asynchronous event was queued before the connection broke, nor how long a call had to
        wait for its environment, and whether it thus ran for long.
        """
        direct, commits_s = self._mode == "direct", self._config.commit_after_s
        if direct and elapsed_s < commits_s:
            return None
        limit_s = max(1.0, self._connection.timeout_s - elapsed_s + _LATE_S)
        is_sure = direct and elapsed_s >= commits_s + _INIT_S
        if not is_sure and group.repeatable and group.deaths + 1 < self._config.max_attempts:
            limit_s = min(limit_s, _UNSURE_S)
        try:
            return self._open(await self._watcher.watch(group.first_seq, attempt, limit_s), group)
        except (TimeoutError, ObjectStoreError, AsyncInvocationFailed):
            return None
        except ProtocolError:  # the next attempt meets it too, and says what it is
            return None

    async def _invoke(self, event: Event, group: Group) -> Trip:
        body = json.dumps(event.to_json()).encode()
        begun = time.perf_counter()
        self._journal.add("invocation.started")
        self._journal.add("bytes.sent", len(body))
        response = await self._invoker.invoke(body, wait=self._mode == "direct")
        self._journal.add("bytes.received", len(response.body))
        if response.function_error:
            raise self._function_error(response.body, event, group, response.request_id)
        if self._mode == "s3":
            frame = await self._await_commit(event, group, response.request_id)
        else:
            frame = await self._read(Reply.from_json(_json(response.body)), event, group)
        if event.packages:
            self._packages.answered(event.packages, frame.packages)
        return Trip(frame, time.perf_counter() - begun)

    async def _await_commit(self, event: Event, group: Group, request_id: str) -> Frame:
        limit = EVENT_AGE_S + self._connection.timeout_s + 60.0
        try:
            return self._open(await self._watcher.watch(group.first_seq, event.attempt, limit, request_id), group)
        except AsyncInvocationFailed as failed:
            if failed.condition == "EventAgeExceeded":
                raise faults.queued_too_long(group.label, failed.request_id, EVENT_AGE_S) from failed
            raise self._function_error(failed.body, event, group, failed.request_id) from failed
        except TimeoutError:
            raise EnvironmentLostError(
                f"{group.label}: neither an outcome nor a failure record appeared in the bucket within {limit:.0f} s"
            ) from None

    async def _read(self, reply: Reply, event: Event, group: Group) -> Frame:
        if reply.frame is not None:
            return self._open(reply.frame, group)
        if reply.committed:
            return self._open(await self._store.get_async(outcome_key(self._job_id, group.first_seq)), group)
        raise self._refusal(reply, event, group)

    def _open(self, sealed: Bytes, group: Group) -> Frame:
        return codec.unseal(sealed, self._key, self._job_id, group.first_seq)

    def _refusal(self, reply: Reply, event: Event, group: Group) -> Exception:
        if reply.refused == "missing" and not group.sent_again:
            group.sent_again = True
            # Something that many calls share has gone from the bucket. If it is still at hand it is uploaded once more.
            at_hand = [self._blobs.forget(ref) for ref in event.blobs()]
            if all(at_hand):
                return InvokeFault("service", MISSING_BLOB, reply.detail)
        if reply.refused == "storage":
            return InvokeFault("service", NO_S3, reply.detail)
        if reply.refused == "tampered":
            for ref in event.blobs():
                self._blobs.forget(ref, overwrite=True)
        return faults.refusal(reply, group.label, self._connection.function)

    def _function_error(self, body: bytes, event: Event, group: Group, request_id: str) -> Exception:
        reply = faults.refusal_in_error(body)
        if reply is not None:
            return self._refusal(reply, event, group)
        known = self._connection
        return faults.function_error(
            body,
            group.label,
            request_id,
            self._job_id,
            memory_mb=known.memory_mb,
            timeout_s=known.timeout_s,
            keeps_log=known.keeps_log,
        )

    def _event(self, group: Group, attempt: int, initializer: Initializer | None) -> Event:
        functions: dict[str, tuple[int, Payload]] = {}
        calls = []
        for call in group.calls:
            index, _ = functions.setdefault(call.function.key, (len(functions), call.function.payload))
            calls.append(WireCall(call.seq, index, call.arguments, call.shared_from_bytes))
        first = group.calls[0]
        return Event(
            job_id=self._job_id,
            calls=tuple(calls),
            functions=tuple(payload for _, payload in functions.values()),
            bucket=self._connection.bucket,
            prefix=self._connection.prefix,
            mode=self._mode,
            attempt=attempt,
            commit_after_s=self._config.commit_after_s,
            modules=first.modules or (initializer.modules if initializer else None),
            initializer=initializer.payload if initializer else None,
            worker_environment=dict(first.environment),
            forward_output=self._config.forward_output,
            echo_output=self._config.echo_output,
            packages=self._packages.to_ask(),
            sent_s=round(time.time(), 3),
        )

    async def fetch(self, payload: Payload) -> list[Bytes]:
        """Content of a payload's parts; raises TamperedError, ObjectStoreError."""
        return await fetch(payload, self._store)


async def fetch(payload: Payload, store: ObjectStore) -> list[Bytes]:
    """Content of a payload's parts, authenticated; raises TamperedError, ObjectStoreError."""

    async def one(part: Any) -> Bytes:
        return await store.get_blob_async(part) if isinstance(part, BlobRef) else part

    if not any(isinstance(part, BlobRef) for part in payload):
        return [part for part in payload if not isinstance(part, BlobRef)]
    return await gather_some(one, payload)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise ProtocolError(f"not JSON: {body[:100]!r}") from None
