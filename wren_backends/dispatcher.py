"""A call's life from `submit` to its resolved future. Threads start here and in `attached.py`.

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
sent again, and frees its slot meanwhile; a group that dies is split, so that one bad call costs no other. All of this
happens in `engine.py`; here are the threads, and the doors between them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import threading
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from lambda_worker.protocol import BlobRef, Bytes, Payload
from wren_backends import loops
from wren_backends.calls import Call, Numbers
from wren_backends.config import Config
from wren_backends.connection import Connection, open_store
from wren_backends.echo import Echo
from wren_backends.engine import Engine
from wren_backends.errors import BrokenWrenExecutor
from wren_backends.events import Journal, logger
from wren_backends.invoker import Invoker
from wren_backends.resolver import Resolver


class Dispatcher:
    """Carries the calls of one job.

    Args:
        config: Settings.
        connection: Function and bucket.
        job_id: The job's id.
        max_workers: Most invocations in flight.
        journal: Is told what happens.
        larger: A function with more memory for calls that ran out of it.
        invoker_factory: Makes an invoker, on the event loop.
        rng: Source of jitter.
    """

    def __init__(
        self,
        config: Config,
        connection: Connection,
        job_id: str,
        max_workers: int,
        journal: Journal,
        larger: Connection | None = None,
        invoker_factory: Callable[[Connection], Invoker] = Invoker,
        rng: random.Random | None = None,
    ) -> None:
        self.job_id = job_id
        self.journal = journal
        self.numbers = Numbers()
        functions = (connection, *([larger] if larger else []))
        self._echo = Echo(functions, job_id, lambda: self._engine.is_idle) if config.echo_output else None
        self._resolver = Resolver(self._echo)
        self._pid = os.getpid()
        self._changed = asyncio.Event()
        self._engine = Engine(
            config,
            connection,
            larger,
            job_id,
            max_workers,
            journal,
            store=open_store(connection, connection.prefix, config.retry_budget_s),
            resolver=self._resolver,
            numbers=self.numbers,
            wake=self._changed.set,
            invoker_factory=invoker_factory,
            rng=rng or random.Random(),
        )
        self.blobs = self._engine.blobs
        self.set_initializer = self._engine.set_initializer

        # A finalizer may come by while this thread holds it: garbage is collected wherever something is made.
        self._lock = threading.RLock()
        self._inbox: deque[Call] = deque()
        self._woken = False
        self._feed: SimpleQueue[Callable[[], object] | None] | None = None
        self._feeder: threading.Thread | None = None
        self._fed = 0
        self._closing = False
        self._cancelling = False

        self._loop = loops.Loop()
        self._threads = [
            threading.Thread(target=self._run_loop, name=f"wren-dispatcher-{job_id}"),
            threading.Thread(target=self._resolver.run, name=f"wren-resolver-{job_id}"),
        ]
        if self._echo is not None:
            self._threads.append(threading.Thread(target=self._echo.run, name=f"wren-echo-{job_id}"))
        self._start()
        with _live_lock:
            _live.add(self)

    def _start(self) -> None:
        """Start the threads; if the system has no more of them, none is left behind that the process would wait for."""
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError:
            self._threads = [thread for thread in self._threads if thread.ident is not None]
            if self._threads:
                self.close(wait=True, cancel=True)
            else:
                self._loop.close()
            raise

    # ---- from any thread

    @property
    def broken(self) -> BrokenWrenExecutor | None:
        """Why no more calls are taken."""
        return self._engine.broken

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
        with self._lock:
            self.check_open()
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

    def abandon(self, futures: Collection[Future[Any]] | None = None) -> None:
        """Cancel those that no invocation carries yet, and stop waiting for those that one does.

        Their slots are free at once. Workers find out between the calls of an invocation, and finish what they are at.

        Args:
            futures: Of calls of this dispatcher; None: of all of them.
        """
        if self._pid != os.getpid():
            return
        if futures is not None:
            futures = {future for future in futures if not future.cancel() and not future.done()}
            if not futures:
                return
        with self._lock, contextlib.suppress(RuntimeError):  # the loop has ended, and all futures with it
            self._loop.call_soon_threadsafe(self._on_abandoned, futures)

    def sweep(self, refs: Collection[BlobRef]) -> None:
        """Delete objects that nobody needs any more, soon; see `Engine.sweep`."""
        if self._pid == os.getpid() and refs:
            with self._lock, contextlib.suppress(RuntimeError):  # the loop has ended: they go with the lifecycle rule
                self._loop.call_soon_threadsafe(self._engine.sweep, list(refs))

    def fetch(self, payload: Payload) -> Future[list[Bytes]]:
        """Begin to fetch a payload's parts; the future raises TamperedError, ObjectStoreError.

        Raises:
            RuntimeError: As `check_open` does.
            BrokenWrenExecutor: As `check_open` does.
        """
        with self._lock:
            self.check_open()
            return asyncio.run_coroutine_threadsafe(self._engine.fetch(payload), self._loop)

    def missing(self, refs: Collection[BlobRef]) -> Future[set[BlobRef]]:
        """Begin to look which of these are not in the bucket; the future raises ObjectStoreError; raises as `fetch`."""
        with self._lock:
            self.check_open()
            return asyncio.run_coroutine_threadsafe(self._engine.missing(refs), self._loop)

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
            self._join()

    def _join(self) -> None:
        try:
            for thread in self._threads:
                if thread is not threading.current_thread():
                    thread.join()
        except KeyboardInterrupt:  # whoever does not want to wait any more does not want the results either
            self.abandon()
            raise

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
            self._resolver.stop()
            if self._echo is not None:
                self._echo.stop()
            self.journal.close()
            with _live_lock:
                _live.discard(self)

    def _give_up(self, error: BrokenWrenExecutor) -> None:
        with self._lock:
            self._take_in()
            self._engine.give_up(error)

    async def _main(self) -> None:
        await self._engine.open()
        try:
            while True:
                self._changed.clear()
                self._take_in()
                if self.broken is not None:
                    self._engine.drop_waiting(cancel=self._cancelling)
                self._engine.pump()
                if self._cancelling:
                    # After that: calls that found a free slot have begun, as in a pool of threads, however soon
                    # `shutdown` came after them.
                    self._engine.drop_waiting(cancel=True)
                if self._closing and self._is_idle():
                    await self._engine.finish()
                    break
                await self._changed.wait()
        finally:
            await self._engine.close()

    def _on_abandoned(self, futures: Collection[Future[Any]] | None) -> None:
        self._take_in()
        if futures is None:
            self._engine.drop_waiting(cancel=True)
        self._engine.abandon(futures)

    def _take_in(self) -> None:
        while self._inbox:
            self._engine.add(self._inbox.popleft())

    def _is_idle(self) -> bool:
        with self._lock:
            return not (self._fed or self._inbox) and self._engine.is_idle

    def _on_wake(self) -> None:
        with self._lock:
            self._woken = False
        self._changed.set()


_live: set[Dispatcher] = set()
_live_lock = threading.Lock()
_exiting = threading.Event()


def _close_all() -> None:
    """At interpreter exit, before non-daemon threads are joined: what was submitted is finished first.

    But not when Ctrl-C ended the program.
    """
    _exiting.set()
    with _live_lock:
        left = list(_live)
    # `sys.last_exc` is 3.12's name for it
    interrupted = isinstance(getattr(sys, "last_exc", getattr(sys, "last_value", None)), KeyboardInterrupt)
    for dispatcher in left:
        if interrupted:
            dispatcher.abandon()
        dispatcher.close(wait=True, cancel=False)


def _forget_all() -> None:
    """A forked child has none of the threads."""
    global _live_lock  # noqa: PLW0603  a thread that the child does not have may have held it
    _live_lock = threading.Lock()
    _live.clear()


# atexit would run only after the threads were joined, which would be never; concurrent.futures does the same.
threading._register_atexit(_close_all)  # type: ignore[attr-defined]
os.register_at_fork(after_in_child=_forget_all)
