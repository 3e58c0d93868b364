"""Runs one event's calls and delivers their outcomes, given an object store; there is no AWS in it."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import random
import resource
import sys
import threading
import time
import traceback
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lambda_worker import agreement, codec, loglines
from lambda_worker.cache import BlobCache
from lambda_worker.capture import Capture
from lambda_worker.guard import Guard
from lambda_worker.modules import ModulePath
from lambda_worker.objects import MissingObjectError, ObjectStore, ObjectStoreError
from lambda_worker.packing import (
    Budget,
    CallFailedError,
    describe_error,
    dump_value,
    pack_apart,
    side_by_side,
    spill,
    storage_reason,
)
from lambda_worker.parcels import Apart
from lambda_worker.protocol import (
    FRAME_BUDGET_BYTES,
    BlobRef,
    Bytes,
    Event,
    Frame,
    Outcome,
    OutcomeKind,
    Part,
    Payload,
    ProtocolError,
    RefusalReason,
    Reply,
    WireCall,
    number_of,
    outcome_key,
    python_version,
)
from lambda_worker.stops import StopList
from lambda_worker.variables import environment
from lambda_worker.watchdog import Watchdog

_log = logging.getLogger("lambda_worker")

T = TypeVar("T")

_CAPTURE_CHARS = 64 * 1024
_CAPTURE_CHARS_PER_EVENT = 512 * 1024
_DETAIL_CHARS = 64 * 1024  # even if each is six in JSON, a refusal is far from what Lambda allows a response
_FRAME_LIMIT_BYTES = FRAME_BUDGET_BYTES + 256 * 1024
_SMALLEST_CACHE_BYTES = 64 * 1024 * 1024

_STOP_SHARE, _STOP_MOST_S = 0.2, 3.0
"""A call is stopped when this share of an invocation's time is left, but at most these seconds: enough for a PUT."""


class _RefusedError(Exception):
    """The event cannot be run at all."""

    def __init__(self, reason: RefusalReason, detail: str) -> None:
        half = _DETAIL_CHARS // 2
        super().__init__(detail if len(detail) <= 2 * half else f"{detail[:half]}\n[...]\n{detail[-half:]}")
        self.reason = reason


class RefusedEventError(Exception):
    """An asynchronous event was refused; the message is the reply as JSON."""


def refuse(raw: object, reason: str, detail: str) -> dict[str, Any]:
    """The reply that nothing was run.

    Raises:
        RefusedEventError: The event was asynchronous: a reply would go nowhere, but Lambda puts an error on record.
    """
    reply = Reply(refused=reason, detail=detail).to_json()
    if isinstance(raw, dict) and raw.get("mode") == "s3":
        raise RefusedEventError(json.dumps(reply))
    return reply


@dataclass(eq=False)
class _Progress:
    """How far an event is; `lock` is held to add to it, and for good once the time limit of `limit_s` has struck."""

    limit_s: float
    thread: int = field(default_factory=threading.get_ident)
    lock: threading.Lock = field(default_factory=threading.Lock)
    outcomes: list[Outcome] = field(default_factory=list)
    ended: bool = False
    call_begun: float = field(default_factory=time.perf_counter)


class Runner:
    """Runs events in one execution environment and keeps between them what can be reused.

    Args:
        function_key: The function's secret, from which job keys derive; 32 bytes.
        open_store: Opens the object store of an event's bucket and prefix.
        log_stream: CloudWatch log stream of this environment.
        memory_bytes: The function's memory; a quarter of it may hold blobs.
    """

    def __init__(
        self,
        function_key: bytes,
        open_store: Callable[[str, str], ObjectStore],
        log_stream: str = "",
        memory_bytes: int = 0,
    ) -> None:
        self._function_key = function_key
        self._open_store = open_store
        self._log_stream = log_stream
        self._stores: dict[tuple[str, str], ObjectStore] = {}
        self._blobs = BlobCache(max(_SMALLEST_CACHE_BYTES, memory_bytes // 4))
        self._modules = ModulePath()
        self._initialised: set[str] = set()
        self._watchdog = Watchdog()
        self._environment_id = ""
        self._events = 0

    def run(self, raw: object, request_id: str, remaining_s: float | None = None) -> dict[str, Any]:
        """Run an event and return the reply, both as JSON-ready objects.

        Args:
            raw: The event.
            request_id: AWS request id.
            remaining_s: Seconds until Lambda ends the invocation; shortly before, the call that runs is stopped, its
                outcome says where it was, and this process ends. None: no limit.

        Raises:
            RefusedEventError: The event was asynchronous and cannot be run: a reply would go nowhere, but Lambda puts
                an error on record in the bucket.
        """
        begun = time.perf_counter()
        if not self._events:
            self._wake_up()
        try:
            event = self._decode(raw)
            reply = self._run(event, request_id, begun, remaining_s)
        except _RefusedError as refusal:
            reply = Reply(refused=refusal.reason, detail=str(refusal))
        except ObjectStoreError as error:
            reply = Reply(refused=storage_reason(error), detail=str(error))
        self._events += 1
        return refuse(raw, reply.refused, reply.detail) if reply.refused else reply.to_json()

    def _wake_up(self) -> None:
        """Make this environment unlike its twins: all are clones of one snapshot, random state included."""
        self._environment_id = uuid.uuid4().hex[:16]
        random.seed()
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            numpy.random.seed()

    def _decode(self, raw: object) -> Event:
        try:
            event = Event.from_json(raw)
        except ProtocolError as error:
            version = isinstance(raw, dict) and "protocol" in raw and "speaks protocol" in str(error)
            raise _RefusedError("protocol" if version else "event", str(error)) from None
        if event.python != python_version():
            theirs, ours = (".".join(map(str, one)) for one in (event.python, python_version()))
            raise _RefusedError("python", f"the client runs Python {theirs}, this function Python {ours}")
        return event

    def _run(self, event: Event, request_id: str, begun: float, remaining_s: float | None) -> Reply:
        store = self._store(event)
        store.requests.clear()
        _say(
            loglines.begun_line(event.job_id, request_id, event.attempt, [number_of(call.seq) for call in event.calls])
        )
        self._agree(event)
        self._blobs.reused.clear()
        key = outcome_key(event.job_id, event.calls[0].seq)
        committed = _committed(store, key) if event.attempt > 1 else None
        if committed is not None and not self._ran_late(event, committed):
            return _reply(event, committed)
        progress = _Progress(limit_s=remaining_s or math.inf)
        stop_in_s = remaining_s and remaining_s - min(_STOP_MOST_S, _STOP_SHARE * remaining_s)
        with self._watchdog.due_in(stop_in_s, lambda: self._end_at_limit(event, progress, request_id, store)):
            try:
                self._prepare(event, store)
                self._run_calls(event, progress, request_id, store)
            finally:
                with progress.lock:
                    progress.ended = True
            sealed = self._seal(event, progress.outcomes, request_id, store)
        overdue = time.perf_counter() - begun >= event.commit_after_s
        wanted = event.mode == "s3" or overdue or event.attempt > 1 or len(sealed) > _FRAME_LIMIT_BYTES
        if wanted:
            try:
                if not store.create(key, sealed):
                    # Another attempt was first, or this was our own write whose reply got lost: what stands counts.
                    standing = bytes(store.get(key))
                    if not self._ran_late(event, standing):
                        sealed = standing
            except ObjectStoreError as error:
                if not _fits(event, sealed):
                    raise
                _log.warning("commit.failed job=%s error=%s", event.job_id, error)  # the client has it all the same
        return _reply(event, sealed)

    def _ran_late(self, event: Event, sealed: bytes) -> bool:
        """Whether a committed frame says that its attempt was stopped at the time limit, and a reply may say better."""
        if event.mode != "direct":
            return False
        try:
            frame = codec.unseal(sealed, codec.job_key(self._function_key, event.job_id), event.job_id)
        except ProtocolError:
            return False  # what it is, the client finds out
        return any(outcome.reason == "time_limit" for outcome in frame.outcomes)

    def _run_calls(self, event: Event, progress: _Progress, request_id: str, store: ObjectStore) -> None:
        budget = Budget(FRAME_BUDGET_BYTES)
        stop_list = StopList(event, store, codec.job_key(self._function_key, event.job_id))
        with environment(event.worker_environment):
            for call in event.calls:
                progress.call_begun = time.perf_counter()
                if stop_list.names(call.seq):
                    outcome = Outcome(call.seq, "failed", reason="stopped")
                else:
                    outcome = self._run_call(event, call, budget, request_id, store)
                with progress.lock:
                    progress.outcomes.append(outcome)

    def _agree(self, event: Event) -> None:
        """Nothing is unpickled where it is sure to fail, or worse, not to."""
        found = agreement.hard_differences(event.packages, agreement.versions(event.packages))
        if found:
            raise _RefusedError("packages", f"{agreement.worded(found)}\n{agreement.install_command(found)}")

    def _seal(self, event: Event, outcomes: list[Outcome], request_id: str, store: ObjectStore) -> bytes:
        frame = Frame(
            job_id=event.job_id,
            outcomes=tuple(outcomes),
            request_id=request_id,
            log_stream=self._log_stream,
            environment_id=self._environment_id,
            events_before=self._events,
            rss_bytes=_peak_rss_bytes(),
            s3_requests=store.requests,
            packages=agreement.versions(event.packages),
            reused=self._blobs.reused,
        )
        return codec.seal(frame, codec.job_key(self._function_key, event.job_id))

    def _end_at_limit(self, event: Event, progress: _Progress, request_id: str, store: ObjectStore) -> None:
        """On the watchdog's thread: commit what there is, with the place where the code is, and end this process.

        Ending it is what Lambda would do. The client finds the frame in S3, since what is committed counts.
        """
        with progress.lock:  # for good: from here on no call ends any more
            running = event.calls[len(progress.outcomes) :]
            if progress.ended or not running:
                return
            try:
                late = Outcome(
                    seq=running[0].seq,
                    kind="failed",
                    reason="time_limit",
                    detail=f"{progress.limit_s:.0f}\n{_where(progress.thread)}",
                    seconds=time.perf_counter() - progress.call_begun,
                )
                sealed = self._seal(event, [*progress.outcomes, late], request_id, store)
                store.create(outcome_key(event.job_id, event.calls[0].seq), sealed)
            except Exception:  # noqa: BLE001  without an outcome in S3 it is better that Lambda says why it ended
                _log.exception("limit.not_reported job=%s", event.job_id)
                return
            with contextlib.suppress(Exception):  # the call may have done anything to the streams
                _log.warning("limit.reached job=%s call=%d\n%s", event.job_id, number_of(late.seq), late.detail)
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(1)

    def _store(self, event: Event) -> ObjectStore:
        place = event.bucket, event.prefix
        if place not in self._stores:
            self._stores[place] = self._open_store(*place)
        return self._stores[place]

    def _prepare(self, event: Event, store: ObjectStore) -> None:
        if event.modules is not None:
            try:
                if self._modules.use(event.modules, store.get_blob):
                    self._initialised.clear()  # what initializers left in those modules is gone with them
            except MissingObjectError as error:
                raise _RefusedError("missing", f"the bundle of the user's modules is gone: {error}") from None
            except codec.TamperedError as error:
                raise _RefusedError("tampered", f"the bundle of the user's modules: {error}") from None
            except (OSError, ValueError, zipfile.BadZipFile) as error:
                raise _RefusedError("event", f"the bundle of the user's modules is unusable: {error}") from None
        if event.initializer is not None and event.job_id not in self._initialised:
            self._initialise(event, store)

    def _initialise(self, event: Event, store: ObjectStore) -> None:
        assert event.initializer is not None
        try:
            function, arguments = codec.loads(self._fetch(event.initializer, store))
            function(*arguments)
        except MissingObjectError as error:
            raise _RefusedError("missing", f"the initializer is gone: {error}") from None
        except codec.TamperedError as error:
            raise _RefusedError("tampered", f"the initializer: {error}") from None
        except ObjectStoreError:
            raise
        except BaseException:  # noqa: BLE001  whatever the user's initializer raises breaks the executor, not us
            raise _RefusedError("initializer", traceback.format_exc()) from None
        self._initialised.add(event.job_id)

    def _run_call(
        self,
        event: Event,
        call: WireCall,
        budget: Budget,
        request_id: str,
        store: ObjectStore,
    ) -> Outcome:
        limit = min(_CAPTURE_CHARS, _CAPTURE_CHARS_PER_EVENT // len(event.calls)) if event.forward_output else 0
        # A call that is alone needs no mark of its own.
        marked = event.echo_output or len(event.calls) > 1
        number, each_line = number_of(call.seq), event.echo_output
        mark = loglines.CallMark(event.job_id, request_id, number, each_line=each_line) if marked else None
        capture = Capture(limit, mark)
        begun, cpu = time.perf_counter(), time.process_time()
        kind: OutcomeKind = "value"
        payload: Payload = ()
        reason = detail = ""
        apart = False
        try:
            with capture, Guard():
                function, arguments = self._load(event, call, store)
                value = _apply(function, arguments)
                del function, arguments
            apart = isinstance(value, Apart)
            if isinstance(value, Apart):
                payload = pack_apart(value, budget, event.job_id, call.seq, store, self._blobs)
            else:
                payload = spill(dump_value(value), budget, event.job_id, store)
            del value
        except CallFailedError as failure:
            kind, reason, detail = "failed", failure.reason, str(failure)
        except ObjectStoreError as error:
            kind, reason, detail = "failed", storage_reason(error), str(error)
        except BaseException as error:  # noqa: BLE001  the user's code may raise anything, and all of it is an outcome
            kind, payload, reason, detail = describe_error(error, budget, event.job_id, store)
        return Outcome(
            seq=call.seq,
            kind=kind,
            payload=payload,
            reason=reason,
            detail=detail,
            seconds=time.perf_counter() - begun,
            cpu_s=time.process_time() - cpu,
            stdout=capture.stdout,
            stderr=capture.stderr,
            caught=capture.caught,
            apart=apart and kind == "value",
        )

    def _load(
        self,
        event: Event,
        call: WireCall,
        store: ObjectStore,
    ) -> tuple[Any, Any]:
        try:
            # The function is unpickled for every call, so that no call sees what another did to its closure.
            function = codec.loads(self._fetch(event.functions[call.function], store))
            return function, codec.loads(self._fetch(call.arguments, store, call.shared_from_bytes))
        except MissingObjectError as error:
            raise CallFailedError("missing_blob", str(error)) from None
        except codec.TamperedError as error:
            raise CallFailedError("tampered_blob", str(error)) from None
        except (ObjectStoreError, CallFailedError):
            raise
        except BaseException as error:
            raise CallFailedError("unloadable", codec.format_error(error, skip_frames=1)) from error

    def _fetch(self, payload: Payload, store: ObjectStore, shared_from_bytes: int = 0) -> list[Bytes]:
        """Content of a payload; buffers may be written to, but for those that are shared from their size on."""
        missing = dict.fromkeys(part for part in payload if isinstance(part, BlobRef) and part not in self._blobs)
        fetched = dict(side_by_side(lambda ref: (ref, store.get_blob(ref)), missing)) if len(missing) > 1 else {}

        def fetch(ref: BlobRef) -> memoryview:
            return fetched.pop(ref) if ref in fetched else store.get_blob(ref)

        def one(part: Part, is_buffer: bool) -> Bytes:
            if not isinstance(part, BlobRef):
                return bytearray(part) if is_buffer else part
            shared = 0 < shared_from_bytes <= part.size
            return self._blobs.get(part, fetch, writable=is_buffer and not shared)

        return [one(part, index > 0) for index, part in enumerate(payload)]


def _apply(function: Callable[..., Any], arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> Any:
    args, kwargs = arguments
    return function(*args, **kwargs)


def _where(thread: int) -> str:
    """The stack of a thread as text, from the user's function on."""
    stack = traceback.extract_stack(sys._current_frames()[thread])
    ours = [index for index, entry in enumerate(stack) if (entry.filename, entry.name) == (__file__, _apply.__name__)]
    theirs = stack[ours[-1] + 1 :] if ours else stack
    return "".join(traceback.format_list(theirs)) or "in the function itself, which is not Python code"


def _committed(store: ObjectStore, key: str) -> bytes | None:
    try:
        return bytes(store.get(key))
    except MissingObjectError:
        return None


def _say(line: str) -> None:
    """Write a line into the function's log; calls may have done anything to the stream."""
    with contextlib.suppress(Exception):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def _reply(event: Event, sealed: bytes) -> Reply:
    return Reply(frame=sealed) if _fits(event, sealed) else Reply(committed=True)


def _fits(event: Event, sealed: bytes) -> bool:
    """Whether a frame can travel in the reply."""
    return event.mode == "direct" and len(sealed) <= _FRAME_LIMIT_BYTES


def _peak_rss_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): kilobytes on Linux, bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
