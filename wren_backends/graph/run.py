"""A graph's life, from dask's nodes to the values that were asked for.

      plan.py                      board.py, grow.py                      run.py
    +----------------+   ready   +--------------------------+   step   +----------------------------+
    | work           |---------->| first in dask's order,   |--------->| a call: its tasks, parcels |--> environment
    | data, aliases  |           | and what goes along      |          | of what they need          |        |
    | gathered here  |           +--------------------------+          +----------------------------+        |
    +----------------+                ^        values nobody needs             ^       |       runs the tasks, puts
            |                         | sizes  are let go of                   |       |       large values into S3
            v                         |                                        |       v                     |
      what was asked for <-- opened <-- parcels, one for each value that is needed elsewhere <---------------+

The client holds parcels: names of objects in S3, and small values as they travel (`inline.py` bounds those). It opens
what was asked for, and what a callback wants to see. A task that is ready is sent at once; dask's order decides which.

When a value that a call needs has gone from the bucket, the task that made it is done again, and what that needs. A
step that ran out of memory or time is done again task by task. At the end, however it comes, what the graph's calls
left in S3 is deleted, but for what is persisted.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any

from dask._task_spec import DataNode
from dask.typing import Key

from lambda_worker.batches import run_step
from lambda_worker.protocol import FRAME_BUDGET_BYTES, BlobRef
from wren_backends.calls import is_repeatable
from wren_backends.errors import InvocationTimeoutError, OutOfMemoryError, StorageError, TamperedObjectError
from wren_backends.executor import Prepared, WrenExecutor
from wren_backends.graph.annotations import Annotations, Traits
from wren_backends.graph.board import Board
from wren_backends.graph.costs import WORTH_S, Costs, cuts
from wren_backends.graph.grow import Limits, grow
from wren_backends.graph.holdings import GoneError, Holdings, LostPersistedError
from wren_backends.graph.persisted import Persisted
from wren_backends.graph.plan import Plan
from wren_backends.graph.step import Step, is_one_branch, nodes_of
from wren_backends.graph.watch import Watch
from wren_backends.parcels import Landed, Parcel
from wren_backends.tracebacks import with_remote_frames

_AHEAD = 4
"""Steps handed to the dispatcher per slot: enough for it to group small ones, few enough that dask's order decides."""

_FEWEST_AHEAD = 256
_LONG_S = 0.1
_PATIENCE_S = 10 * WORTH_S
"""Tasks that were sent together because they seemed small, and are not, are sent anew after so long."""

_SHARE_OF_TIME_LIMIT = 0.25
_USUAL = Traits()

_costs = Costs()


class Computation:
    """One computation of a graph.

    Args:
        plan: The graph.
        executor: Runs the calls.
        watch: The callbacks.
        annotations: Of the graph.
        rerun_locally: Run a failed step again in this process.
        keep: Leave intermediate values in S3.
        leave: Leave what was asked for where it is made, for `leave`.
    """

    def __init__(
        self,
        plan: Plan,
        executor: WrenExecutor,
        watch: Watch,
        annotations: Annotations,
        *,
        rerun_locally: bool = False,
        keep: bool = False,
        leave: bool = False,
    ) -> None:
        self._plan = plan
        self._executor = executor
        self._watch = watch
        self._rerun_locally = rerun_locally
        self._keep = keep
        self._leave = leave
        config, connection = executor.config, executor.connection
        self._traits = annotations.traits(plan.work, connection, config.retry_memory_mb)
        self._board = Board(plan, annotations.priorities(plan.work))
        self._held = Holdings(executor)
        self._limits = Limits(
            longest_s=_SHARE_OF_TIME_LIMIT * connection.timeout_s,
            cost=self._cost,
            alike=self._alike,
            alone=self._goes_alone,
            cuts=lambda key: cuts(plan.nodes[key]),
        )
        self._shown: dict[Key, Any] = {}
        self._alone: set[Key] = set()
        self._recovered: Counter[Key] = Counter()
        self._running: dict[Future[Landed], tuple[Step, Mapping[Key, Parcel]]] = {}
        self._done: SimpleQueue[Future[Landed]] = SimpleQueue()
        self._prepared: Prepared | None = None
        self._step_s = 0.0
        self._take_data()

    def _take_data(self) -> None:
        unreadable = self._held.unreadable(self._all_persisted(), looking=False)
        if unreadable:
            raise LostPersistedError(unreadable)
        for key in self._plan.data:
            if key not in self._held:
                self._held.give(key, self._plan.nodes[key].value)
                self._board.available[key] = self._held.size(key)

    # ---- what callers want

    def values(self) -> dict[Key, Any]:
        """The wanted values."""
        try:
            while True:
                self._work()
                try:
                    return self._gather()
                except GoneError as gone:
                    self._recover(self._held.lost_beside(gone.key, self._plan.home), gone)
        finally:
            self._end(spared=())

    def leave(self) -> dict[Key, Parcel | DataNode]:
        """The wanted values as they are: parcels, whose objects are the caller's from here on, or the client's data."""
        spared: list[BlobRef] = []
        try:
            self._work()
            found: dict[Key, Parcel | DataNode] = {}
            for key in self._plan.wanted:
                is_here, value = self._held.source(self._plan.resolve(key))
                found[key] = DataNode(key, value) if is_here else value
                spared += [] if is_here else value.own_refs
            return found
        finally:
            self._end(spared)

    def _end(self, spared: Iterable[BlobRef]) -> None:
        self._executor.abandon(self._running)  # on an error or KeyboardInterrupt; otherwise nothing runs
        if self._keep:
            return
        self._held.discard(spared)
        for future in self._running:  # some may have ended, or be about to
            future.add_done_callback(partial(_discard_late, self._executor))

    # ---- sending

    def _work(self) -> None:
        """Run tasks until all are done."""
        while not self._board.is_done:
            while (first := self._next()) is not None:
                if first in self._plan.stores:
                    self._store(first)
                else:
                    self._send(self._step(grow(self._board, first, self._limits)))
            if self._board.is_done:
                return
            if not self._running:
                raise ValueError("Found no accessible jobs in dask: there is a cycle in the graph")
            future = self._done.get()
            self._take_in(future, *self._running.pop(future))

    def _next(self) -> Key | None:
        """The task that goes next, if one is ready and there is any sense in sending it now."""
        if len(self._running) >= self._most_ahead() or (first := self._board.pop()) is None:
            return None
        is_known = first in self._plan.stores or _costs.knows(first, self._plan.nodes[first])
        if is_known or len(self._running) < self._executor._max_workers:
            return first
        self._board.release([first])  # no slot is free, and what comes next may tell that it need not go alone
        return None

    def _most_ahead(self) -> int:
        many = _AHEAD * self._executor._max_workers
        return many if self._step_s > _LONG_S else max(_FEWEST_AHEAD, many)

    def _step(self, keys: list[Key]) -> Step:
        inside = set(keys)
        needs = dict.fromkeys(one for key in keys for one in self._plan.needs[key] if one not in inside)
        outputs, promised = {}, []
        for key in keys:
            users = len(self._board.users(key) - inside)
            if key in self._plan.home and not users and not self._leave:
                outputs[key] = FRAME_BUDGET_BYTES  # it is on its way to this process
            elif users or key in self._plan.home or self._watch.wants_values:
                outputs[key] = self._held.inline.promise(users, _costs.size_of(key, self._plan.nodes[key]))
                promised.append(key)
        travelling = tuple(one for one in needs if not self._plan.is_trivial(one))
        patience_s = math.inf if is_one_branch(keys, self._plan) else _PATIENCE_S
        return Step(tuple(keys), nodes_of(keys, self._plan), travelling, outputs, promised, patience_s)

    def _send(self, step: Step) -> None:
        self._board.claim(step.keys)
        self._watch.sent(step.keys)
        parcels = {key: self._held.parcel(key) for key in step.needs}
        if self._prepared is None:
            self._prepared = self._executor.prepare(run_step)
        traits = self._traits.get(step.keys[0], _USUAL)
        future: Future[Landed] = self._executor.submit_with(
            self._prepared,
            (step.nodes, parcels, tuple(step.outputs.items()), step.patience_s),
            {},
            name=step.name,
            kind=step.kind(self._plan),
            needs_modules=any(parcel.needs_modules for parcel in parcels.values()),
            repeatable=all(map(self._is_repeatable, step.keys)),
            retries=traits.retries,
            apart=True,
            enlarged=traits.enlarged,
        )
        self._running[future] = step, parcels
        future.add_done_callback(self._done.put)

    def _store(self, key: Key) -> None:
        """Run a task in this process, now that its chunk is there."""
        self._board.claim([key])
        self._watch.sent([key])
        self._try_here(Step((key,), (), (), {key: 0}, (), 0.0))

    def _cost(self, key: Key) -> float:
        return _costs.of(key, self._plan.nodes[key])

    def _alike(self, one: Key, other: Key) -> bool:
        return self._traits.get(one, _USUAL) == self._traits.get(other, _USUAL)

    def _goes_alone(self, key: Key) -> bool:
        alone = key in self._alone or key in self._plan.stores
        return alone or self._watch.wants_values or not self._is_repeatable(key)

    def _is_repeatable(self, key: Key) -> bool:
        return is_repeatable(self._plan.nodes[key].func)

    # ---- taking in

    def _take_in(self, future: Future[Landed], step: Step, parcels: Mapping[Key, Parcel]) -> None:
        error = future.exception()
        if error is None:
            self._arrived(future.result(), step)
            return
        for key in step.promised:
            self._held.inline.settle(step.outputs[key], 0)
        if isinstance(error, StorageError) and not isinstance(error, TamperedObjectError):
            self._recover(self._held.lost(parcels), error)
            self._board.release(step.keys)
        elif isinstance(error, InvocationTimeoutError | OutOfMemoryError) and len(step.keys) > 1:
            self._executor.journal.say("step.split", logging.INFO, tasks=len(step.keys), error=type(error).__name__)
            self._alone.update(step.keys)
            self._board.release(step.keys)
        elif self._rerun_locally:
            self._try_here(step)
        else:
            raise with_remote_frames(error)

    def _arrived(self, landed: Landed, step: Step) -> None:
        seconds = step.seconds(landed.note)
        for key, took_s in seconds.items():
            _costs.learn(key, self._plan.nodes[key], took_s)
        self._step_s += 0.1 * (sum(seconds.values()) - self._step_s)
        promised = {key: size for key, size in step.outputs.items() if key in step.promised}
        for key, parcel in landed.parcels.items():
            _costs.learn_size(key, self._plan.nodes[key], parcel.size)
            self._held.land(key, parcel, promised.pop(key, None))
        for size in promised.values():  # of what came back undone
            self._held.inline.settle(size, 0)
        try:
            self._watch.finished({key: self._opener(key) for key in seconds}, landed.environment)
        except GoneError as gone:  # a callback looks at values: the task was in a call of its own, and goes again
            self._count_lost([gone.key], gone)
            self._held.forget_parcel(gone.key)
            self._board.release(step.keys)
            return
        self._finish(seconds, {key: self._held.size(key) for key in landed.parcels})
        self._board.release([key for key in step.keys if key not in seconds])

    def _finish(self, keys: Iterable[Key], sizes: Mapping[Key, int]) -> None:
        for key in self._board.finish(keys, sizes):
            self._held.forget(key)

    def _opener(self, key: Key) -> Any:
        def value() -> Any:
            if key not in self._shown:
                self._shown[key] = self._held.open([key])[key]
            return self._shown[key] if key in self._plan.home else self._shown.pop(key)

        return value

    def _try_here(self, step: Step) -> None:
        needs = dict.fromkeys(one for key in step.keys for one in self._plan.needs[key] if one not in step.keys)
        try:
            values = self._held.open(needs)
        except GoneError as gone:
            self._recover(self._held.lost_beside(gone.key, needs), gone)
            self._board.release(step.keys)
        else:
            self._run_here(step, values)

    def _run_here(self, step: Step, values: dict[Key, Any]) -> None:
        """Run a step in this process: a store, or what failed, where a debugger can look at it."""
        for key in step.keys:
            values[key] = self._call(key, values)
        for key in step.outputs:
            self._held.give(key, values[key])
        self._watch.finished({key: partial(values.__getitem__, key) for key in step.keys}, "here")
        self._finish(step.keys, dict.fromkeys(step.outputs, 0))

    def _call(self, key: Key, values: Mapping[Key, Any]) -> Any:
        node = self._plan.nodes[key]
        try:
            return node({one: values[self._plan.resolve(one)] for one in node.dependencies})
        except BaseException as error:
            with contextlib.suppress(Exception):  # exceptions may be frozen
                error.add_note(f"raised by the task of dask key {key!r}")
            raise

    # ---- what was lost

    def _recover(self, lost: list[Key] | None, error: BaseException) -> None:
        """See to it that values which are gone are made again; raises `error` if that is of no use.

        Where others have found out before, which None says, their recovery is enough.
        """
        if lost is None:
            return
        self._count_lost(lost, error)
        persisted = [self._plan.nodes[key].value for key in lost if self._is_persisted(key)]
        if persisted:
            # Where one is gone others are, and the graph begins anew for all of them.
            found = self._held.unreadable(self._all_persisted(), looking=True)
            raise LostPersistedError(list({one.key: one for one in [*persisted, *found]}.values()))
        for key in lost:
            self._held.forget_parcel(key)
        again = self._board.lose([key for key in lost if key in self._plan.work])
        self._take_data()
        self._executor.journal.say("intermediates.lost", logging.INFO, keys=len(lost), tasks=len(again))

    def _count_lost(self, lost: list[Key], error: BaseException) -> None:
        """Values are gone; raises `error` if there are none, or if one of them is gone too often."""
        self._recovered.update(lost)
        if not lost or max(self._recovered[key] for key in lost) > self._executor.config.max_attempts:
            raise error

    def _all_persisted(self) -> list[Persisted]:
        return [self._plan.nodes[key].value for key in self._plan.data if self._is_persisted(key)]

    def _is_persisted(self, key: Key) -> bool:
        return key in self._plan.data and isinstance(self._plan.nodes[key].value, Persisted)

    # ---- what was asked for

    def _gather(self) -> dict[Key, Any]:
        found: dict[Key, Any] = {}
        for key in sorted(self._plan.here, key=self._plan.rank.__getitem__):
            self._watch.sent([key])
            found[key] = self._call(key, self._open(self._plan.needs[key]))
            self._watch.finished({key: partial(found.__getitem__, key)}, "here")
        sources = {key: self._plan.resolve(key) for key in self._plan.wanted if key not in found}
        values = found | self._open(dict.fromkeys(source for source in sources.values() if source not in found))
        return found | {key: values[source] for key, source in sources.items()}

    def _open(self, keys: Iterable[Key]) -> dict[Key, Any]:
        """Values in this process, of which some may have been shown to a callback before."""
        shown = {key: self._shown[key] for key in keys if key in self._shown}
        return shown | self._held.open([key for key in keys if key not in shown])


def _discard_late(executor: WrenExecutor, future: Future[Landed]) -> None:
    """Nobody waits any more for what a call has made."""
    if not future.cancelled() and future.exception() is None:
        executor.discard([ref for parcel in future.result().parcels.values() for ref in parcel.own_refs])
