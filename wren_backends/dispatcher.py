"""The engine: a call's life from `submit` to its resolved future. The only file that starts threads.

      user's thread            event loop thread                                   resolver thread
    +---------------+      +-----------------------------------------------+      +-----------------+
    | pickle, hash  | call | schedule -> group -> upload blobs -> invoke --|-> Lambda environment    |
    | Future made   |----->|  PENDING    RUNNING      (S3)      ^   |      |      |                 |
    +---------------+      |                                    |   v      |      |                 |
                           |                back off, re-send <-+  reply   | call,| unpickle,       |
                           |  watcher (S3) <- lost, `s3` mode ------+      |----->| set the Future, |
                           |       +--------> frame -> fetch blobs --------|frame | run callbacks   |
                           +-----------------------------------------------+      +-----------------+

A call waits in the schedule until an invocation may be started; only then is its future RUNNING and past cancelling.
Calls that wait while all slots are taken travel together (`retry.calls_to_carry`). What the infrastructure broke is
sent again, and frees its slot meanwhile; a group that dies is split, so that one bad call costs no other.

Every group has one task. Whatever ends it, `_on_carried` sees to it that no call of it is left without an outcome.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import threading
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import CancelledError, Future
from queue import SimpleQueue
from typing import Any

from lambda_worker import codec
from lambda_worker.objects import ObjectStoreError
from lambda_worker.protocol import EVENT_BUDGET_BYTES, Frame, Outcome
from wren_backends import collector, faults
from wren_backends.blobs import Blobs
from wren_backends.calls import Call, Group, event_size
from wren_backends.carrier import Carrier, Initializer, Trip
from wren_backends.config import Config
from wren_backends.connection import Connection
from wren_backends.connection import open_store as _open_store
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
from wren_backends.events import Journal, logger
from wren_backends.invoker import InvokeFault, Invoker
from wren_backends.recorder import Recorder
from wren_backends.resolver import Resolver
from wren_backends.retry import backoff_s
from wren_backends.schedule import Schedule, again
from wren_backends.watcher import Watcher

_MANY = 64
"""Invocations in flight from which on the garbage collector is minded."""

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
        self._store = _open_store(connection, connection.prefix)
        self._event_bytes = EVENT_BUDGET_BYTES[config.mode]
        self.blobs = Blobs(self._store, config.inline_limit_bytes, self._event_bytes // 4, journal)
        self._invoker_factory = invoker_factory
        self._initializer: Initializer | None = None
        self._resolver = Resolver()
        self._pid = os.getpid()

        self._lock = threading.Lock()
        self._inbox: deque[Call] = deque()
        self._woken = False
        self._next_seq = 0
        self._feed: SimpleQueue[Callable[[], object] | None] | None = None
        self._feeder: threading.Thread | None = None
        self._fed = 0
        self._closing = False
        self._cancelling = False
        self.broken: BrokenWrenExecutor | None = None

        # From here on: only touched on the event loop.
        # Where a call must not run twice, it must not share the fate of others either.
        together = config.calls_per_invocation if config.max_attempts > 1 else 1
        self._schedule = Schedule(max_workers, together, self._event_bytes)
        self._tasks: dict[asyncio.Task[None], Group] = {}
        self._resting: dict[Group, asyncio.TimerHandle] = {}
        self._started = 0
        self._throttles = 0
        self._starved_since: float | None = None
        self._paused_until = 0.0
        self._relaxed = False

        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._threads = [
            threading.Thread(target=self._run_loop, name=f"wren-dispatcher-{job_id}"),
            threading.Thread(target=self._resolver.run, name=f"wren-resolver-{job_id}"),
        ]
        for thread in self._threads:
            thread.start()
        with _live_lock:
            _live.add(self)

    # ---- from any thread

    def set_initializer(self, initializer: Initializer) -> None:
        """Have it run once per execution environment before the first call there; to be set before any call."""
        self._initializer = initializer
        self._schedule.reserve(event_size(initializer.payload))

    def new_seq(self) -> int:
        """Number for another call."""
        with self._lock:
            self._next_seq += 1
            return self._next_seq - 1

    def check_open(self) -> None:
        """Whether `submit` would take a call.

        Raises:
            RuntimeError: The dispatcher is closed, or belongs to the process that was forked from.
            BrokenWrenExecutor: Its initializer failed.
        """
        if self._pid != os.getpid():
            raise RuntimeError("this executor belongs to the process that was forked from: make a new one here")
        if self.broken is not None:
            raise BrokenWrenExecutor(str(self.broken))
        # What was fed before the end still goes through, as what was submitted before it does.
        if self._closing and threading.current_thread() is not self._feeder:
            what = "interpreter shutdown" if _exiting.is_set() else "shutdown"
            raise RuntimeError(f"cannot schedule new futures after {what}")

    def submit(self, call: Call) -> None:
        """Queue a call; raises as `check_open` does."""
        with self._lock:
            self.check_open()
            self._inbox.append(call)
            self._wake_locked()
        self.journal.add("call.submitted")

    def feed(self, step: Callable[[], object]) -> None:
        """Run `step` on the feeder thread, after those fed before it; an exception it raises is logged.

        Raises:
            RuntimeError: As `check_open` does.
        """
        self.check_open()
        with self._lock:
            if self._feed is None:
                feed: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
                feeder = threading.Thread(target=self._run_feed, args=(feed,), name=f"wren-feeder-{self.job_id}")
                feeder.start()
                self._feed, self._feeder = feed, feeder
                self._threads.append(feeder)
            self._fed += 1
            self._feed.put(step)

    def _run_feed(self, feed: SimpleQueue[Callable[[], object] | None]) -> None:
        while (step := feed.get()) is not None:
            try:
                step()
            except Exception:  # noqa: BLE001  a step answers for itself; this thread goes on
                logger.exception("feed.failed job=%s", self.job_id)
            del step
            with self._lock:
                self._fed -= 1
                if not self._fed:
                    self._wake_locked()

    def abandon(self, futures: Collection[Future[Any]]) -> None:
        """Cancel those that no invocation carries yet, and stop waiting for those that one does.

        Their slots are free at once. Lambda cannot be told to stop: it runs them to their end.
        """
        running = {future for future in futures if not future.cancel() and not future.done()}
        if not running or self._pid != os.getpid():
            return
        with self._lock, contextlib.suppress(RuntimeError):  # the loop has ended, and all futures with it
            self._loop.call_soon_threadsafe(self._on_abandoned, running)

    def close(self, *, wait: bool, cancel: bool) -> None:
        """Take no more calls; end the threads when those that there are have ended.

        Args:
            wait: Wait for that.
            cancel: Cancel the calls that no invocation carries yet.
        """
        if self._pid != os.getpid():
            return
        with self._lock:
            if self._feed is not None and not self._closing:
                self._feed.put(None)
            self._closing = True
            self._cancelling = self._cancelling or cancel
            self._wake_locked()
        if wait:
            for thread in self._threads:
                if thread is not threading.current_thread():
                    thread.join()

    def _wake_locked(self) -> None:
        """Have the event loop look at the queue; many wake-ups before it does are one."""
        if not self._woken:
            with contextlib.suppress(RuntimeError):  # the loop has ended: there is nothing left to look at
                self._loop.call_soon_threadsafe(self._on_wake)
                self._woken = True

    # ---- on the event loop

    def _run_loop(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main())
        except BaseException as error:  # noqa: BLE001  it is told to everybody who waits
            logger.critical("dispatcher.crashed job=%s", self.job_id, exc_info=error)
            self._give_up(BrokenWrenExecutor(f"the dispatcher of job {self.job_id} crashed: {error!r}"))
        finally:
            if self._relaxed:
                collector.restore()
            self._resolver.stop()
            self.journal.close()
            with _live_lock:
                _live.discard(self)

    def _give_up(self, error: BrokenWrenExecutor) -> None:
        """The event loop is gone: nothing that waits may wait for ever."""
        with self._lock:
            self.broken = error
            left, self._inbox = [*self._schedule.clear(), *self._inbox], deque()
        self._fail([call for call in left if call.future.set_running_or_notify_cancel()], error)
        for group in (*self._tasks.values(), *self._resting, *self._schedule.clear_again()):
            self._fail(group.stranded, error)

    async def _main(self) -> None:
        invoker = self._invoker_factory(self._connection)
        root = _open_store(self._connection, "") if self._config.mode == "s3" else None
        function = self._connection.function
        self._recorder = Recorder(
            self._store, self._config, self.job_id, function, lambda: self._next_seq, self.journal
        )
        watcher = Watcher(self._store, root, self.job_id, function, self.journal)
        self._carrier = Carrier(
            self._config,
            self._connection,
            self.job_id,
            store=self._store,
            blobs=self.blobs,
            invoker=invoker,
            watcher=watcher,
            journal=self.journal,
        )
        try:
            while True:
                self._changed.clear()
                self._pump()
                if self._closing and self._is_idle():
                    await self._recorder.close()
                    break
                await self._changed.wait()
        finally:
            await watcher.close()
            await invoker.close()

    def _is_idle(self) -> bool:
        with self._lock:
            return not (self._fed or self._inbox or self._schedule or self._tasks or self._resting)

    def _on_wake(self) -> None:
        with self._lock:
            self._woken = False
        self._changed.set()

    def _pump(self) -> None:
        """Start as many invocations as may be."""
        while self._inbox:
            self._schedule.add(self._inbox.popleft())
        if self._cancelling or self.broken is not None:
            self._drop_waiting()
        if self._loop.time() < self._paused_until:
            return
        while (group := self._schedule.next_group(len(self._tasks))) is not None:
            self._started += 1
            task = self._loop.create_task(self._carry(group, self._started))
            self._tasks[task] = group
            task.add_done_callback(self._on_carried)
        self._mind_collector()

    def _mind_collector(self) -> None:
        many = len(self._tasks) >= (_MANY // 2 if self._relaxed else _MANY)
        if many != self._relaxed:
            self._relaxed = many
            collector.relax() if many else collector.restore()

    def _drop_waiting(self) -> None:
        """Cancellations run the users' callbacks, so they are the resolver's work."""
        for call in self._schedule.clear():
            if self._cancelling:
                self._resolver.cancel(call)
            elif call.future.set_running_or_notify_cancel():
                self._resolver.fail(call, BrokenWrenExecutor(str(self.broken)))

    def _on_abandoned(self, futures: set[Future[Any]]) -> None:
        for task, group in self._tasks.items():
            if all(call.future in futures for call in group.calls):
                task.cancel()
        for group in [one for one in self._resting if all(call.future in futures for call in one.calls)]:
            self._resting.pop(group).cancel()
            self._abandon(group.stranded)
        self._abandon(self._schedule.withdraw(futures))
        self._changed.set()

    def _abandon(self, calls: list[Call]) -> None:
        for call in calls:
            self._fail([call], CancelledError(f"{call.label} was abandoned"))

    def _on_carried(self, task: asyncio.Task[None]) -> None:
        group = self._tasks.pop(task)
        self._changed.set()
        if task.cancelled():
            self._abandon(group.stranded)
        elif (error := task.exception()) is not None:
            logger.error("invocation.crashed calls=%s", group.label, exc_info=error)
            for call in group.stranded:
                self._fail([call], InvocationError(f"{call.label}: {type(error).__name__}: {error}"))

    async def _carry(self, group: Group, number: int) -> None:
        """Bring a group's outcomes home, or its error, or see to it that its calls travel again."""
        try:
            await self._recorder.begin(group.label)
            trip = await self._carrier.carry(group, self._initializer)
        except InvokeFault as fault:
            self._refused(group, fault, number)
        except _REGROUPED as error:
            self._regroup(group, error)
        except WrenError as error:
            if isinstance(error, BrokenWrenExecutor) and self.broken is None:
                self.broken = error
                logging.getLogger("concurrent.futures").critical("Exception in initializer:\n%s", error)
            self._fail(group.calls, error)
        else:
            self._learn(group, trip, number)
            await self._deliver(group, trip.frame)

    def _refused(self, group: Group, fault: InvokeFault, number: int) -> None:
        """An invocation brought no response: send it again later, or end it."""
        function, now = self._connection.function, self._loop.time()
        if fault.kind == "throttled":
            self._throttled(group, fault, number, now)
            return
        if fault.kind == "rejected":
            if fault.is_too_large and len(group.calls) > 1:
                self._schedule.split(group, group.attempt, group.deaths)
            else:
                self._fail(group.calls, faults.invoke_fault(fault, group.label, function, 0))
            return
        since = now if group.refused_since is None else group.refused_since
        lost = fault.kind == "lost"
        deaths = group.deaths + lost
        if now - since > self._config.retry_budget_s or deaths >= self._config.max_attempts:
            self._fail(group.calls, faults.invoke_fault(fault, group.label, function, now - since))
            return
        changed = again(
            group,
            attempt=group.attempt + (fault.kind != "unsent"),
            deaths=deaths,
            refusals=group.refusals + 1,
            # A lost response may have taken minutes to be given up; those do not count as being refused.
            refused_since=None if lost else since,
        )
        delay_s = backoff_s(changed.refusals, self._rng)
        self._say_refused(fault, delay_s)
        self._resting[changed] = self._loop.call_later(delay_s, self._on_rested, changed)

    def _on_rested(self, group: Group) -> None:
        del self._resting[group]
        self._schedule.add_again(group)
        self._changed.set()

    def _throttled(self, group: Group, fault: InvokeFault, number: int, now: float) -> None:
        """There is no concurrency left: wait with everything, and end a call only if nothing at all gets through."""
        if self._schedule.window.throttled(number, len(self._tasks), self._started + 1):
            self.journal.say("window.shrunk", logging.INFO, size=self._schedule.window.size)
        if len(self._tasks) > 1:  # others are in flight, which may well be what takes the concurrency
            self._starved_since = None
        elif self._starved_since is None:
            self._starved_since = now
        elif now - self._starved_since > self._config.retry_budget_s:
            error = faults.invoke_fault(fault, group.label, self._connection.function, now - self._starved_since)
            self._fail(group.calls, error)
            return
        if now >= self._paused_until:  # the first of its round
            self._throttles += 1
            delay_s = backoff_s(self._throttles, self._rng)
            self._say_refused(fault, delay_s)
            self._paused_until = now + delay_s
            self._loop.call_later(delay_s, self._changed.set)
        self._schedule.add_again(again(group))

    def _say_refused(self, fault: InvokeFault, delay_s: float) -> None:
        self.journal.say("invocation.refused", kind=fault.kind, code=fault.code, delay_s=round(delay_s, 3))

    def _regroup(self, group: Group, error: WrenError) -> None:
        """An environment died under a group: its calls travel again alone, or have this for their end."""
        attempt, deaths = group.attempt + 1, group.deaths + 1
        more = deaths < self._config.max_attempts
        if len(group.calls) > 1 and more:
            self.journal.say("invocation.split", logging.INFO, calls=len(group.calls), error=type(error).__name__)
            self._schedule.split(group, attempt, deaths)
        elif isinstance(error, EnvironmentLostError) and more:
            self.journal.say("invocation.retried", logging.INFO, attempt=attempt, reason="environment_lost")
            self._schedule.add_again(again(group, attempt=attempt, deaths=deaths))
        elif isinstance(error, EnvironmentLostError):
            text = f"{error} (attempt {deaths} of {self._config.max_attempts})"
            self._fail(group.calls, EnvironmentLostError(text))
        else:
            self._fail(group.calls, error)

    def _fail(self, calls: Collection[Call], error: WrenError | CancelledError) -> None:
        for call in list(calls):
            call.group = None
            self.journal.say("call.failed", call=call.label, error=type(error).__name__)
            self._resolver.fail(call, type(error)(*error.args))

    def _learn(self, group: Group, trip: Trip, number: int) -> None:
        frame, seconds = trip.frame, [outcome.seconds for outcome in trip.frame.outcomes]
        self._throttles, self._starved_since = 0, None
        self._schedule.window.succeeded(len(self._tasks))
        self._schedule.learn(group, seconds, trip.took_s)
        add = self.journal.add
        add("call.seconds", sum(seconds))
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
            took_s=round(trip.took_s, 6),
            calls_s=round(sum(seconds), 6),
            environment=frame.environment_id,
            cold=frame.events_before == 0,
            rss_bytes=frame.rss_bytes,
        )

    async def _deliver(self, group: Group, frame: Frame) -> None:
        outcomes = {outcome.seq: outcome for outcome in frame.outcomes}
        for call in group.stranded:
            outcome = outcomes.get(call.seq)
            if outcome is None:
                # What is committed under this number is from an attempt with other company; this call was not in it.
                self._schedule.add_again(Group([call], group.attempt + 1, group.deaths))
            elif outcome.kind == "error" and call.retries_left > 0:
                call.retries_left -= 1
                self._travel_anew(call, "call.retried")
            elif outcome.reason == "missing_blob" and self._can_send_again(call):
                self._travel_anew(call, "call.sent_again")
            else:
                await self._hand_over(call, outcome, frame)

    def _travel_anew(self, call: Call, said: str) -> None:
        """Give a call a new number: under the old one its first outcome may stand."""
        call.seq = self.new_seq()
        self.journal.say(said, logging.INFO, call=call.label)
        self._schedule.add_again(Group([call]))

    def _can_send_again(self, call: Call) -> bool:
        """Forget blobs that have vanished; whether all of them can be uploaded once more."""
        at_hand = all([self.blobs.forget(ref) for ref in call.blobs()])
        call.sent_again, before = True, call.sent_again
        return at_hand and not before

    async def _hand_over(self, call: Call, outcome: Outcome, frame: Frame) -> None:
        if outcome.reason == "tampered_blob":
            for ref in call.blobs():
                self.blobs.forget(ref, overwrite=True)
        try:
            parts = await self._carrier.fetch(outcome.payload)
        except codec.TamperedError as error:
            self._fail([call], TamperedObjectError(f"{call.label}: {error}. Somebody else writes to the bucket"))
        except ObjectStoreError as error:
            self._fail([call], StorageError(f"{call.label}: its result cannot be fetched: {error}"))
        else:
            call.group = None
            self.journal.say("call.finished", seq=call.seq, kind=outcome.kind)
            self._resolver.resolve(call, outcome, parts, frame)


_live: set[Dispatcher] = set()
_live_lock = threading.Lock()
_exiting = threading.Event()


def _close_all() -> None:
    """At interpreter exit, before non-daemon threads are joined: what was submitted is finished first."""
    _exiting.set()
    with _live_lock:
        left = list(_live)
    for dispatcher in left:
        dispatcher.close(wait=True, cancel=False)


def _forget_all() -> None:
    """A forked child has none of the threads."""
    global _live_lock  # noqa: PLW0603  a thread that the child does not have may have held it
    _live_lock = threading.Lock()
    _live.clear()


# atexit would run only after the threads were joined, which would be never; concurrent.futures does the same.
threading._register_atexit(_close_all)  # type: ignore[attr-defined]
os.register_at_fork(after_in_child=_forget_all)
