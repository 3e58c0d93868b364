"""Calls on their way: sent, sent again, given a second attempt, delivered, ended. Belongs to one event loop's thread.

An **invocation** is one attempt at a group and has an asyncio task; whatever ends it, `_on_ended` sees to it that no
call of its group is left without an outcome.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from concurrent.futures import CancelledError, Future
from random import Random
from typing import Any

from lambda_worker import codec
from lambda_worker.objects import ObjectStore
from lambda_worker.protocol import (
    EVENT_BUDGET_BYTES,
    BlobRef,
    Bytes,
    Payload,
    seq_when_sent_anew,
)
from wren_backends import collector, faults
from wren_backends.backups import Backups
from wren_backends.blobs import Blobs
from wren_backends.calls import Call, Group, Invocation, Numbers, event_size
from wren_backends.carrier import ENVIRONMENT_ENDED, Carrier, Initializer, Trip
from wren_backends.config import Config
from wren_backends.connection import Connection, open_store
from wren_backends.delivery import Delivery, attempts_at
from wren_backends.errors import (
    BrokenWrenExecutor,
    EnvironmentLostError,
    InvocationError,
    OutOfMemoryError,
    WrenError,
)
from wren_backends.events import Journal, logger
from wren_backends.gather import gather_some
from wren_backends.invoker import MISSING_BLOB, NO_S3, InvokeFault, Invoker
from wren_backends.ranges import Ranges
from wren_backends.recorder import Recorder
from wren_backends.resolver import Resolver
from wren_backends.retry import Throttling, backoff_s
from wren_backends.schedule import Schedule, again
from wren_backends.stopper import Stopper
from wren_backends.sweeper import Sweeper
from wren_backends.vigil import Vigil
from wren_backends.watcher import Watcher

_MANY = 64
"""Invocations in flight from which on the garbage collector is minded."""

_LOST_BACKOFF = 3


class Engine:
    """Carries the calls of one job; to be made anywhere, and used on one event loop from `open` on.

    Args:
        config: Settings.
        connection: Function and bucket.
        larger: A function with more memory for calls that ran out of it.
        job_id: The job's id.
        max_workers: Most invocations in flight.
        journal: Is told what happens.
        store: The project's prefix of the bucket.
        resolver: Where outcomes go.
        numbers: Of the job's calls.
        wake: Called when there may be something to pump.
        invoker_factory: Makes an invoker, on the event loop.
        rng: Source of jitter.
    """

    def __init__(
        self,
        config: Config,
        connection: Connection,
        larger: Connection | None,
        job_id: str,
        max_workers: int,
        journal: Journal,
        *,
        store: ObjectStore,
        resolver: Resolver,
        numbers: Numbers,
        wake: Callable[[], None],
        invoker_factory: Callable[[Connection], Invoker],
        rng: Random,
    ) -> None:
        self._config = config
        self._connection = connection
        self._larger = larger
        self._job_id = job_id
        self._journal = journal
        self._store = store
        self._resolver = resolver
        self._numbers = numbers
        self._wake = wake
        self._invoker_factory = invoker_factory
        self._rng = rng
        event_bytes = EVENT_BUDGET_BYTES[config.mode]
        self.blobs = Blobs(store, config.inline_limit_bytes, event_bytes // 4, journal)
        self.broken: BrokenWrenExecutor | None = None
        self._initializer: Initializer | None = None
        # Where a call must not run twice, it must not share the fate of others either.
        together = config.calls_per_invocation if config.max_attempts > 1 else 1
        self._ended = Ranges()
        self._schedule = Schedule(max_workers, together, event_bytes, lambda call: self._ended.add(call.number))
        self._delivery = Delivery(config, journal, self._schedule, self.blobs, self._ended, resolver, self.fetch)
        self._tasks: dict[asyncio.Task[None], Invocation] = {}
        self._resting: dict[Group, asyncio.TimerHandle] = {}
        self._started = 0
        self._throttling = Throttling(rng)
        self._relaxed = False

    def set_initializer(self, initializer: Initializer) -> None:
        """Have it run once per execution environment before the first call there; to be set before any call."""
        self._initializer = initializer
        self._schedule.reserve(event_size(initializer.payload))

    async def open(self) -> None:
        """Get ready, on the event loop that is running."""
        self._loop = asyncio.get_running_loop()
        connections = [one for one in (self._connection, self._larger) if one]
        self._recorder = Recorder(
            self._store,
            self._config,
            self._job_id,
            [one.function for one in connections],
            count=lambda: self._numbers.given,
            ended=self._ended,
            is_idle=lambda: self.is_idle,
            journal=self._journal,
        )
        self._carrier = self._open_carrier(self._connection)
        self._larger_carrier = self._open_carrier(self._larger) if self._larger else None
        keys = [codec.job_key(one.function_key, self._job_id) for one in connections]
        self._stopper = Stopper(self._store, self._job_id, keys, self._journal)
        self._sweeper = Sweeper(self._store, self._journal)
        self._backups = Backups(
            self._config,
            self._schedule,
            self._tasks,
            start=lambda group: self._start(group, is_backup=True),
            journal=self._journal,
        )
        self._vigil = Vigil(
            self._connection,
            self._config.retry_budget_s,
            self._tasks,
            lambda: self.is_idle,
            self._on_cloud_gone,
            self._journal,
        )

    def _open_carrier(self, connection: Connection) -> Carrier:
        budget_s = self._config.retry_budget_s
        root = open_store(connection, "", budget_s) if self._config.mode == "s3" else None
        return Carrier(
            self._config,
            connection,
            self._job_id,
            store=self._store,
            blobs=self.blobs,
            invoker=self._invoker_factory(connection),
            watcher=Watcher(self._store, root, self._job_id, connection.function, self._journal, budget_s),
            journal=self._journal,
        )

    async def finish(self) -> None:
        """Every call has ended: leave word of it, if there is still a place for it."""
        if self._connection.is_gone():
            return
        await self._stopper.flush()
        await self._sweeper.flush()
        await self._recorder.close()

    async def close(self) -> None:
        """Close what `open` opened."""
        self._vigil.close()
        self._backups.close()
        if self._relaxed:
            collector.restore()
        for carrier in (self._carrier, self._larger_carrier):
            if carrier is not None:
                await carrier.close()

    @property
    def is_idle(self) -> bool:
        """Whether no call waits, travels or rests."""
        return not (self._schedule or self._tasks or self._resting)

    def add(self, call: Call) -> None:
        """Queue a call."""
        call.queued_at = self._loop.time()
        self._schedule.add(call)

    def pump(self) -> None:
        """Start as many invocations as may be."""
        if self.is_idle:
            self._throttling.relieved()
        if self._throttling.is_pausing(self._loop.time()):
            return
        while (group := self._schedule.next_group(len(self._tasks))) is not None:
            self._start(group)
        self._mind_collector()
        self._backups.mind()
        self._vigil.keep()

    def drop_waiting(self, *, cancel: bool) -> None:
        """End the calls that were never sent, by cancellation or because the executor is broken.

        Both run the users' callbacks, so they are the resolver's work.
        """
        for call in self._schedule.clear():
            self._ended.add(call.number)
            if cancel:
                self._resolver.cancel(call)
            elif call.future.set_running_or_notify_cancel():
                self._resolver.fail(call, BrokenWrenExecutor(str(self.broken)))

    def give_up(self, error: BrokenWrenExecutor) -> None:
        """The event loop is gone: nothing that waits may wait for ever."""
        self.broken = error
        self._delivery.fail(
            [call for call in self._schedule.clear() if call.future.set_running_or_notify_cancel()], error
        )
        under_way = [invocation.group for invocation in self._tasks.values()]
        for group in (*under_way, *self._resting, *self._schedule.clear_again()):
            self._delivery.fail(group.stranded, error)

    def _on_cloud_gone(self, error: BrokenWrenExecutor) -> None:
        """The local cloud has ended: nothing that was sent there comes back, and nothing need be sent."""
        self.give_up(error)
        for task in self._tasks:
            task.cancel()
        for handle in self._resting.values():
            handle.cancel()
        self._resting.clear()
        self._wake()

    def sweep(self, refs: Collection[BlobRef]) -> None:
        """Delete objects that calls of this job made and that nobody needs any more."""
        self._sweeper.sweep(refs)

    async def fetch(self, payload: Payload) -> list[Bytes]:
        """Content of a payload's parts, authenticated; raises TamperedError, ObjectStoreError."""
        parts = await self._carrier.fetch(payload)
        self._journal.add("bytes.received", sum(part.size for part in payload if isinstance(part, BlobRef)))
        return parts

    async def missing(self, refs: Collection[BlobRef]) -> set[BlobRef]:
        """Those of `refs` that are not in the bucket; raises ObjectStoreError."""
        there = await gather_some(self._store.has_async, refs)
        return {ref for ref, found in zip(refs, there, strict=True) if not found}

    # ---- starting and stopping

    def _start(self, group: Group, *, is_backup: bool = False) -> None:
        self._started += 1
        invocation = Invocation(group, group.attempt, self._started, self._loop.time(), is_backup)
        task = self._loop.create_task(self._carry(invocation))
        self._tasks[task] = invocation
        task.add_done_callback(self._on_ended)

    def _mind_collector(self) -> None:
        many = len(self._tasks) >= (_MANY // 2 if self._relaxed else _MANY)
        if many != self._relaxed:
            self._relaxed = many
            collector.relax() if many else collector.restore()

    def abandon(self, futures: Collection[Future[Any]] | None) -> None:
        """Let go of everything in flight that serves nobody but `futures`; None: of everything.

        Their slots are free at once. Workers find out between the calls of an invocation; Lambda itself cannot be told.
        """

        def serves_nobody_else(group: Group) -> bool:
            return futures is None or all(call.future in futures for call in group.calls)

        stopped: list[Call] = []
        for task, invocation in self._tasks.items():
            if serves_nobody_else(invocation.group):
                if self._config.mode == "s3" or len(invocation.group.calls) > 1:
                    stopped += invocation.group.stranded
                task.cancel()
        for group in [one for one in self._resting if serves_nobody_else(one)]:
            self._resting.pop(group).cancel()
            self._abandon(group.stranded)
        self._abandon([call for group in self._schedule.withdraw(serves_nobody_else) for call in group.stranded])
        self._stopper.stop(call.seq for call in stopped)
        self._wake()

    def _abandon(self, calls: Collection[Call]) -> None:
        for call in calls:
            self._delivery.fail([call], CancelledError(f"{call.label} was abandoned"))

    def _on_ended(self, task: asyncio.Task[None]) -> None:
        invocation = self._tasks.pop(task)
        group = invocation.group
        self._wake()
        if self._backups.has_rival(invocation):
            return
        if task.cancelled():
            self._abandon(group.stranded)
        elif (error := task.exception()) is not None:
            logger.error("invocation.crashed calls=%s", group.label, exc_info=error)
            for call in group.stranded:
                self._delivery.fail([call], InvocationError(f"{call.label}: {type(error).__name__}: {error}"))

    # ---- the life of an invocation

    async def _carry(self, invocation: Invocation) -> None:
        """Bring a group's outcomes home, or its error, or see to it that its calls travel again."""
        group = invocation.group
        try:
            await self._recorder.begin(group.label)
            trip = await self._carrier_of(group).carry(group, invocation.attempt, self._initializer)
        except InvokeFault as fault:
            self._refused(invocation, fault)
        except WrenError as error:
            if self._backups.has_rival(invocation):
                self._backups.say_dropped(invocation, type(error).__name__)
            else:
                self._lost(group, error)
        else:
            if self._backups.has_rival(invocation) and any(one.reason == "time_limit" for one in trip.frame.outcomes):
                self._backups.say_dropped(invocation, "time_limit")  # the other may well make it
                return
            self._backups.end_rivals(invocation)
            self._learn(invocation, trip)
            await self._delivery.deliver(group, trip.frame)

    def _carrier_of(self, group: Group) -> Carrier:
        return self._larger_carrier if group.enlarged and self._larger_carrier else self._carrier

    def _refused(self, invocation: Invocation, fault: InvokeFault) -> None:
        """An invocation brought no response: send it again later, or end it."""
        group, now = invocation.group, self._loop.time()
        if fault.kind == "throttled":
            self._throttled(invocation, fault, now)
        elif self._backups.has_rival(invocation):
            self._backups.say_dropped(invocation, fault.code)
        elif fault.kind == "rejected":
            if fault.is_too_large and len(group.calls) > 1:
                self._schedule.split(group, group.attempt, group.deaths)
            else:
                self._delivery.fail(
                    group.stranded, faults.invoke_fault(fault, group.label, self._function_of(group), 0)
                )
        else:
            self._back_off(invocation, fault, now)

    def _back_off(self, invocation: Invocation, fault: InvokeFault, now: float) -> None:
        group = invocation.group
        first = invocation.begun if fault.code == NO_S3 else now  # a worker has tried for a while itself
        since = first if group.refused_since is None else group.refused_since
        lost = fault.kind == "lost"
        may_have_run = lost or (fault.kind == "service" and not group.repeatable and fault.code != MISSING_BLOB)
        deaths = group.deaths + may_have_run
        if now - since > self._config.retry_budget_s or deaths >= attempts_at(group, self._config):
            function = self._function_of(group)
            self._delivery.fail(group.stranded, faults.invoke_fault(fault, group.label, function, now - since, deaths))
            return
        changed = again(
            group,
            attempt=group.attempt + (fault.kind != "unsent"),
            deaths=deaths,
            refusals=group.refusals + 1,
            # A lost response may have taken minutes to be given up; those do not count as being refused.
            refused_since=None if lost else since,
        )
        if not lost and fault.code != NO_S3:
            self._vigil.refused(fault, since)
        # A broken connection costs an attempt, so the next one waits for whatever broke it to pass.
        delay_s = backoff_s(changed.refusals + (_LOST_BACKOFF if lost else 0), self._rng)
        self._say_refused(fault, delay_s)
        self._resting[changed] = self._loop.call_later(delay_s, self._on_rested, changed)

    def _function_of(self, group: Group) -> str:
        return self._carrier_of(group).function

    def _on_rested(self, group: Group) -> None:
        del self._resting[group]
        self._schedule.add_again(group)
        self._wake()

    def _throttled(self, invocation: Invocation, fault: InvokeFault, now: float) -> None:
        """There is no concurrency left: wait with everything, and end a call only if nothing at all gets through."""
        group = invocation.group
        if self._schedule.window.throttled(invocation.number, len(self._tasks), self._started + 1):
            self._journal.say("window.shrunk", logging.INFO, size=self._schedule.window.size)
        self._throttling.refused(now, is_alone=len(self._tasks) <= 1)
        spent_s = self._throttling.starved_s(now, group.calls[0].queued_at)
        if spent_s > self._config.retry_budget_s:
            self._delivery.fail(
                group.stranded, faults.invoke_fault(fault, group.label, self._function_of(group), spent_s)
            )
            return
        if self._throttling.since is not None:
            self._vigil.refused(fault, self._throttling.since)
        if (delay_s := self._throttling.pause_s(now)) is not None:
            self._say_refused(fault, delay_s)
            self._loop.call_later(delay_s, self._wake)
        if self._backups.has_rival(invocation):
            self._backups.say_dropped(invocation, fault.code)
        else:
            self._schedule.add_again(again(group, refused_since=None))

    def _say_refused(self, fault: InvokeFault, delay_s: float) -> None:
        self._journal.say("invocation.refused", kind=fault.kind, code=fault.code, delay_s=round(delay_s, 3))

    def _lost(self, group: Group, error: WrenError) -> None:
        """An attempt ended without outcomes, and will not bring any."""
        if isinstance(error, ENVIRONMENT_ENDED):
            self._regroup(group, error)
            return
        if isinstance(error, BrokenWrenExecutor) and self.broken is None:
            self.broken = error
            logging.getLogger("concurrent.futures").critical("Exception in initializer:\n%s", error)
        self._delivery.fail(group.stranded, error)

    def _regroup(self, group: Group, error: WrenError) -> None:
        """An environment died under a group: its calls travel again alone, or have this for their end."""
        attempt, deaths, most = group.attempt + 1, group.deaths + 1, attempts_at(group, self._config)
        if len(group.calls) > 1 and deaths < most:
            self._journal.say("invocation.split", logging.INFO, calls=len(group.calls), error=type(error).__name__)
            self._schedule.split(group, attempt, deaths)
        elif self._may_enlarge(group, error):
            for call in group.stranded:
                self._delivery.send_anew(call, "call.enlarged", enlarged=True)
        elif self._may_repeat(error) and deaths < most:
            self._journal.say("invocation.retried", logging.INFO, attempt=attempt, reason=type(error).__name__)
            # It had been taken in: refusals before that and after it are not in a row.
            self._schedule.add_again(again(group, attempt=attempt, deaths=deaths, refusals=0, refused_since=None))
        elif self._may_repeat(error):
            self._delivery.fail(group.stranded, type(error)(f"{error} (attempt {deaths} of {most})"))
        else:
            self._delivery.fail(group.stranded, error)

    def _may_enlarge(self, group: Group, error: WrenError) -> bool:
        small = self._larger_carrier is not None and not group.enlarged
        can = small and all(seq_when_sent_anew(call.seq) is not None for call in group.calls)
        return can and isinstance(error, OutOfMemoryError) and group.repeatable

    def _may_repeat(self, error: WrenError) -> bool:
        """Whether an attempt at a call that was alone may end better the next time."""
        return isinstance(error, EnvironmentLostError) or self._config.retry_exhausted

    def _learn(self, invocation: Invocation, trip: Trip) -> None:
        group, frame, seconds = invocation.group, trip.frame, [outcome.seconds for outcome in trip.frame.outcomes]
        self._throttling.relieved()
        self._vigil.succeeded()
        self._schedule.window.succeeded(len(self._tasks))
        self._schedule.learn(group, seconds, trip.took_s)
        add = self._journal.add
        add("call.seconds", sum(seconds))
        add("call.cpu_s", sum(outcome.cpu_s for outcome in frame.outcomes))
        add("environment.cold_started", frame.events_before == 0)
        for verb, count in frame.s3_requests.items():
            add(f"s3.worker.{verb}", count)
        for what, amount in frame.reused.items():
            add(f"reused.{what}", amount)
        self._journal.say(
            "invocation.finished",
            number=invocation.number,
            calls=len(group.calls),
            first_seq=group.first_seq,
            attempt=invocation.attempt,
            took_s=round(trip.took_s, 6),
            calls_s=round(sum(seconds), 6),
            environment=frame.environment_id,
            cold=frame.events_before == 0,
            rss_bytes=frame.rss_bytes,
            reused=frame.reused.get("blobs", 0),
            reused_bytes=frame.reused.get("bytes", 0),
        )
