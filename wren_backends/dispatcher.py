"""The engine: a call's life from `submit` to its resolved future. The only file that starts threads.

      user's thread            event loop thread                                   resolver thread
    +---------------+      +-----------------------------------------------+      +-----------------+
    | pickle, hash  | call | queue -> group -> upload blobs -> invoke  ----|-> Lambda environment    |
    | Future made   |----->|  PENDING   RUNNING      (S3)       ^   |      |      |                 |
    +---------------+      |                                    |   v      |      |                 |
                           |                back off, re-send <-+  reply   | call,| unpickle,       |
                           |  watcher (S3) <- lost, `s3` mode ------+      |----->| set the Future, |
                           |       +--------> frame -> fetch blobs --------|frame | run callbacks   |
                           +-----------------------------------------------+      +-----------------+

A call waits in the queue until an invocation may be started; only then is its future RUNNING and past cancelling. Calls
that wait while all slots are taken travel together (`retry.calls_to_carry`). An invocation that fails for the
infrastructure's sake is re-sent; one that dies with several calls aboard is split, so that one bad call costs no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import CancelledError, Future
from queue import SimpleQueue
from typing import Any

from lambda_worker import codec
from lambda_worker.objects import ObjectStore, ObjectStoreError
from lambda_worker.protocol import (
    EVENT_BUDGET_BYTES,
    BlobRef,
    Frame,
    Outcome,
)
from wren_backends.blobs import Blobs
from wren_backends.calls import Call, Group
from wren_backends.carrier import Carrier, Initializer, Trip
from wren_backends.config import Config
from wren_backends.connection import Connection
from wren_backends.errors import (
    BrokenWrenExecutor,
    EnvironmentLostError,
    InvocationError,
    InvocationTimeoutError,
    OutOfMemoryError,
    StorageError,
    TamperedObjectError,
    WrenError,
)
from wren_backends.events import Journal
from wren_backends.invoker import Invoker
from wren_backends.resolver import Resolver
from wren_backends.retry import Durations, Window, calls_to_carry
from wren_backends.watcher import Watcher

_REMEMBERED_FUNCTIONS = 4096

_REGROUPED = (EnvironmentLostError, OutOfMemoryError, InvocationTimeoutError)
"""Ends of an environment that one of several calls brought about: each of them deserves an environment of its own."""


class Dispatcher:
    """Carries the calls of one job.

    Args:
        config: Settings.
        connection: Function and bucket.
        job_id: The job's id.
        max_workers: Most invocations in flight.
        journal: Is told what happens.
        invoker_factory: Makes the invoker, on the event loop.
        rng: Source of jitter.
    """

    def __init__(
        self,
        config: Config,
        connection: Connection,
        job_id: str,
        max_workers: int,
        journal: Journal,
        invoker_factory: Callable[[Connection], Invoker] = Invoker,
        rng: random.Random | None = None,
    ) -> None:
        self._config = config
        self._connection = connection
        self.job_id = job_id
        self.journal = journal
        self._rng = rng or random.Random()
        self.store = _open_store(connection, connection.prefix)
        budget = EVENT_BUDGET_BYTES[config.mode]
        self.blobs = Blobs(self.store, config.inline_limit_bytes, budget // 4, journal)
        self._event_budget = budget
        self._initializer: Initializer | None = None
        self._invoker_factory = invoker_factory
        self._resolver = Resolver()

        self._lock = threading.Lock()
        self._inbox: deque[Call] = deque()
        self._woken = False
        self._next_seq = 0
        self._feed: SimpleQueue[Callable[[], object] | None] | None = None
        self._closing = False
        self._cancelling = False
        self.broken: BrokenWrenExecutor | None = None

        # From here on: only touched on the event loop.
        self._waiting: deque[Call] = deque()
        self._again: deque[Group] = deque()
        self._window = Window(max_workers)
        self._in_flight = 0
        self._started = 0
        self._durations: dict[str, Durations] = {}
        self._tasks: dict[asyncio.Task[None], Group] = {}

        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._threads = [
            threading.Thread(target=self._run_loop, name=f"wren-dispatcher-{job_id}"),
            threading.Thread(target=self._resolver.run, name=f"wren-resolver-{job_id}"),
        ]
        for thread in self._threads:
            thread.start()
        _live.add(self)

    # ---- from any thread

    def set_initializer(self, initializer: Initializer) -> None:
        """Have it run once per execution environment before the first call there; to be set before any call."""
        self._initializer = initializer

    def new_seq(self) -> int:
        """Number for another call."""
        with self._lock:
            self._next_seq += 1
            return self._next_seq - 1

    def submit(self, call: Call) -> None:
        """Queue a call.

        Raises:
            RuntimeError: The dispatcher is closed.
            BrokenWrenExecutor: Its initializer failed.
        """
        with self._lock:
            if self.broken is not None:
                raise BrokenWrenExecutor(str(self.broken))
            if self._closing:
                what = "interpreter shutdown" if _exiting.is_set() else "shutdown"
                raise RuntimeError(f"cannot schedule new futures after {what}")
            self._inbox.append(call)
            self._wake_locked()
        self.journal.add("call.submitted")

    def feed(self, step: Callable[[], object]) -> None:
        """Run `step` on the feeder thread, after those fed before it; an exception it raises is logged."""
        with self._lock:
            if self._closing:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if self._feed is None:
                self._feed = SimpleQueue()
                feeder = threading.Thread(
                    target=_run_feed, args=(self._feed,), name=f"wren-feeder-{self.job_id}", daemon=True
                )
                self._threads.append(feeder)
                feeder.start()
            self._feed.put(step)

    def abandon(self, futures: Collection[Future[Any]]) -> None:
        """Cancel those that no invocation carries yet, and stop waiting for those that one does.

        Their slots are free at once. Lambda cannot be told to stop: it runs them to their end.
        """
        running = {future for future in futures if not future.cancel()}
        with self._lock, contextlib.suppress(RuntimeError):  # the loop has ended, and all futures with it
            self._loop.call_soon_threadsafe(self._on_abandoned, running)

    def close(self, *, wait: bool, cancel: bool) -> None:
        """Take no more calls; end the threads when those that there are have ended.

        Args:
            wait: Wait for that.
            cancel: Cancel the calls that no invocation carries yet.
        """
        with self._lock:
            self._closing = True
            self._cancelling = self._cancelling or cancel
            if self._feed is not None:
                self._feed.put(None)
            self._wake_locked()
        if wait:
            for thread in self._threads:
                if thread is not threading.current_thread():
                    thread.join()

    def _wake_locked(self) -> None:
        """Have the event loop look at the queue; many wake-ups before it does are one."""
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._on_wake)
            except RuntimeError:  # the loop has ended: there is nothing left to look at
                self._woken = False

    # ---- on the event loop

    def _run_loop(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main())
        except BaseException as error:
            logging.getLogger("wren_backends").critical("dispatcher.crashed job=%s", self.job_id, exc_info=error)
            self._abandon_all(BrokenWrenExecutor(f"the dispatcher of job {self.job_id} crashed: {error!r}"))
        finally:
            self._resolver.stop()
            _live.discard(self)

    def _abandon_all(self, error: BrokenWrenExecutor) -> None:
        """The event loop is gone: nothing that waits may wait for ever."""
        with self._lock:
            self.broken = error
            left, self._inbox = [*self._waiting, *self._inbox], deque()
        self._fail([call for call in left if call.future.set_running_or_notify_cancel()], error)
        self._fail([call for group in self._again for call in group.calls], error)

    async def _main(self) -> None:
        invoker = self._invoker_factory(self._connection)
        root = _open_store(self._connection, "") if self._config.mode == "s3" else None
        watcher = Watcher(self.store, root, self.job_id, self._connection.function, self.journal)
        self._carrier = Carrier(
            self._config,
            self._connection,
            self.job_id,
            store=self.store,
            blobs=self.blobs,
            invoker=invoker,
            watcher=watcher,
            journal=self.journal,
            rng=self._rng,
            on_throttled=self._on_throttled,
        )
        try:
            while not (self._closing and self._idle()):
                self._changed.clear()
                self._pump()
                if self._closing and self._idle():
                    break
                await self._changed.wait()
        finally:
            await watcher.close()
            await invoker.close()

    def _idle(self) -> bool:
        return not (self._inbox or self._waiting or self._again or self._tasks)

    def _on_wake(self) -> None:
        with self._lock:
            self._woken = False
        self._changed.set()

    def _pump(self) -> None:
        """Start as many invocations as may be."""
        while self._inbox:
            self._waiting.append(self._inbox.popleft())
        if self._cancelling or self.broken:
            self._drop_waiting()
        while self._in_flight < self._window.size and (group := self._next_group()) is not None:
            self._in_flight += 1
            self._started += 1
            task = self._loop.create_task(self._carry(group, self._started))
            self._tasks[task] = group
            task.add_done_callback(self._on_carried)

    def _on_abandoned(self, futures: set[Future[Any]]) -> None:
        for task, group in self._tasks.items():
            if all(call.future in futures for call in group.calls):
                task.cancel()
        self._changed.set()

    def _on_carried(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        self._in_flight -= 1
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logging.getLogger("wren_backends").error("invocation.crashed error=%r", error, exc_info=error)

    def _drop_waiting(self) -> None:
        while self._waiting:
            call = self._waiting.popleft()
            if self.broken is not None and not self._cancelling:
                if call.future.set_running_or_notify_cancel():
                    self._resolver.fail(call, BrokenWrenExecutor(str(self.broken)))
            else:
                call.future.cancel()
                call.future.set_running_or_notify_cancel()

    def _next_group(self) -> Group | None:
        if self._again:
            return self._again.popleft()
        first = self._next_call()
        if first is None:
            return None
        known = self._durations.get(first.function.key) or Durations()
        size = self._window.size
        most = calls_to_carry(
            len(self._waiting) + 1, size - self._in_flight, size, self._config.calls_per_invocation, known
        )
        calls, room = [first], self._event_budget - first.size
        while len(calls) < most and self._waiting and first.fits_with(self._waiting[0]):
            room -= self._waiting[0].size
            if room < 0:
                break
            call = self._next_call(only_first=True)
            if call is not None:
                calls.append(call)
        return Group(calls)

    def _next_call(self, *, only_first: bool = False) -> Call | None:
        """The next waiting call, RUNNING from now on; those that were cancelled are dropped on the way."""
        while self._waiting:
            call = self._waiting.popleft()
            if call.future.set_running_or_notify_cancel():
                return call
            if only_first:
                return None
        return None

    async def _carry(self, group: Group, number: int) -> None:
        """Bring a group's outcomes home, or its error, or see to it that its calls travel again."""
        try:
            trip = await self._carrier.carry(group, number, self._initializer)
        except _REGROUPED as error:
            self._regroup(group, error)
        except asyncio.CancelledError:
            self._fail(group.calls, CancelledError(f"{group.label} was abandoned"))
            raise
        except WrenError as error:
            if isinstance(error, BrokenWrenExecutor) and self.broken is None:
                self.broken = error
                logging.getLogger("concurrent.futures").critical("Exception in initializer:\n%s", error)
            self._fail(group.calls, error)
        except Exception as error:
            self._fail(group.calls, InvocationError(f"{group.label}: {type(error).__name__}: {error}"))
            raise
        else:
            self._learn(group, trip, number)
            await self._deliver(group, trip.frame)

    def _on_throttled(self, number: int) -> None:
        if self._window.throttled(number, self._in_flight, self._started + 1):
            self.journal.say("window.shrunk", logging.INFO, size=self._window.size)

    def _regroup(self, group: Group, error: WrenError) -> None:
        """An environment died under a group: its calls travel again alone, or have this for their end."""
        if len(group.calls) > 1:
            self.journal.say("invocation.split", logging.INFO, calls=len(group.calls), error=type(error).__name__)
            self._again.extend(Group([call], group.attempt + 1) for call in group.calls)
        elif isinstance(error, EnvironmentLostError) and group.attempt < self._config.max_attempts:
            self.journal.say("invocation.retried", logging.INFO, attempt=group.attempt + 1, reason="environment_lost")
            self._again.append(Group(group.calls, group.attempt + 1))
        else:
            self._fail(group.calls, type(error)(f"{error} (attempt {group.attempt} of {self._config.max_attempts})"))

    def _fail(self, calls: list[Call], error: WrenError | CancelledError) -> None:
        for call in calls:
            self.journal.say("call.failed", call=call.label, error=type(error).__name__)
            self._resolver.fail(call, type(error)(*error.args))

    def _learn(self, group: Group, trip: Trip, number: int) -> None:
        self._window.succeeded()
        frame, took_s = trip.frame, trip.took_s
        calls_s = sum(outcome.seconds for outcome in frame.outcomes)
        known = self._durations.setdefault(group.calls[0].function.key, Durations())
        if len(self._durations) > _REMEMBERED_FUNCTIONS:
            del self._durations[next(iter(self._durations))]
        known.learn(len(group.calls), calls_s, took_s)
        add = self.journal.add
        add("call.seconds", calls_s)
        add("call.cpu_s", sum(outcome.cpu_s for outcome in frame.outcomes))
        add("environment.cold_started", frame.events_before == 0)
        for verb, count in frame.s3_requests.items():
            add(f"s3.worker.{verb}", count)
        self.journal.say(
            "invocation.finished",
            number=number,
            calls=len(group.calls),
            first_seq=group.first_seq,
            attempt=group.attempt,
            took_s=round(took_s, 6),
            calls_s=round(calls_s, 6),
            environment=frame.environment_id,
            cold=frame.events_before == 0,
            rss_bytes=frame.rss_bytes,
        )

    async def _deliver(self, group: Group, frame: Frame) -> None:
        outcomes = {outcome.seq: outcome for outcome in frame.outcomes}
        for call in group.calls:
            outcome = outcomes.get(call.seq)
            if outcome is None:
                # What is committed under this number is from an attempt with other company; this call was not in it.
                self._again.append(Group([call], group.attempt + 1))
            elif outcome.kind == "error" and call.retries_left > 0:
                call.retries_left -= 1
                call.seq = self.new_seq()
                self.journal.say("call.retried", logging.INFO, call=call.label, retries_left=call.retries_left)
                self._again.append(Group([call]))
            else:
                await self._hand_over(call, outcome, frame)

    async def _hand_over(self, call: Call, outcome: Outcome, frame: Frame) -> None:
        if outcome.reason == "missing_blob":
            for part in (*call.function.payload, *call.arguments):
                if isinstance(part, BlobRef):
                    self.blobs.forget(part)
        try:
            parts = await self._carrier.fetch(outcome.payload)
        except codec.TamperedError as error:
            self._fail([call], TamperedObjectError(f"{call.label}: {error}. Somebody else writes to the bucket"))
        except ObjectStoreError as error:
            self._fail([call], StorageError(f"{call.label}: its result cannot be fetched: {error}"))
        else:
            self.journal.say("call.finished", seq=call.seq, kind=outcome.kind)
            self._resolver.resolve(call, outcome, parts, frame)


def _run_feed(feed: SimpleQueue[Callable[[], object] | None]) -> None:
    while (step := feed.get()) is not None:
        try:
            step()
        except Exception:
            logging.getLogger("wren_backends").exception("feed.failed")
        del step


def _open_store(connection: Connection, prefix: str) -> ObjectStore:
    return ObjectStore.open_s3(
        connection.bucket,
        prefix,
        region=connection.region,
        endpoint_url=connection.s3_url,
        **connection.s3_credentials,
    )


_live: weakref.WeakSet[Dispatcher] = weakref.WeakSet()
_exiting = threading.Event()


def _close_all() -> None:
    """At interpreter exit, before non-daemon threads are joined: what was submitted is finished first."""
    _exiting.set()
    for dispatcher in list(_live):
        dispatcher.close(wait=True, cancel=False)


def _forget_all() -> None:
    """A forked child has none of the threads."""
    _live.clear()


# atexit would run only after the threads were joined, which would be never; concurrent.futures does the same.
threading._register_atexit(_close_all)  # type: ignore[attr-defined]
os.register_at_fork(after_in_child=_forget_all)
