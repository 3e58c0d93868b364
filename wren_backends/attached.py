"""`AttachedJob`: the futures of a job that another process made.

As with the dispatcher, one thread has the event loop and one runs all of the user's code: unpickling, and the futures'
callbacks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import weakref
from concurrent.futures import CancelledError, Future
from concurrent.futures import wait as wait_for_futures
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from lambda_worker.protocol import Bytes, Frame, Outcome, ProtocolError, check_job_id, number_of
from lambda_worker.timed import without_times
from wren_backends import loops
from wren_backends.connection import Connection, open_store
from wren_backends.errors import ConfigError, InvocationError, StorageError, TamperedObjectError, WrenError
from wren_backends.events import PROCESS, Journal, Listener, logger
from wren_backends.follower import Follower
from wren_backends.made import MadeValues
from wren_backends.parcels import land
from wren_backends.record import JobRecord
from wren_backends.resolver import Resolver


@dataclass(eq=False, slots=True)
class _Call:
    """A call of the job.

    Attributes:
        seq: Its number.
        future: What the user holds.
    """

    seq: int
    future: Future[Any]

    @property
    def label(self) -> str:
        return f"call {self.seq}"


class AttachedJob:
    """A job that another process made, to be read and waited for; `WrenExecutor.attach` makes one.

    It is a context manager, and has to be closed. Closing it, or the end of this process, leaves the job as it is.

    Args:
        connection: Function and bucket.
        job_id: The job.
        patience_s: See `WrenExecutor.attach`.
        forward_output: Show what calls printed and warned.
        on_event: Called with each `Happening`, from threads of ours.
        with_times: Leave the times in place that come along with what PyWren's calls return or raise.

    Raises:
        UnknownJobError: There are no objects of such a job.
        ConfigError: It is not a job's id, or the job ran on another function.
        StorageError: The bucket cannot be read.
    """

    def __init__(
        self,
        connection: Connection,
        job_id: str,
        *,
        patience_s: float | None = None,
        forward_output: bool = True,
        on_event: Listener | None = None,
        with_times: bool = False,
    ) -> None:
        self._with_times = with_times
        self._store = open_store(connection, connection.prefix)
        self.job_id = checked_job_id(job_id)
        self.journal = Journal((on_event,) if on_event else (), parent=PROCESS)
        self._forward_output = forward_output
        self._calls: dict[int, _Call] = {}
        self._ended: Exception | None = None
        self._lock = threading.Lock()
        self._resolver = Resolver()
        self._opened: Future[None] = Future()
        self._caught_up = threading.Event()
        self._loop = loops.Loop()
        self._closed = asyncio.Event()
        self._follower = Follower(
            connection,
            self.job_id,
            patience_s=patience_s,
            journal=self.journal,
            on_known=self._add,
            on_outcome=self._resolve,
            on_failed=self._fail,
        )
        self._threads = [
            threading.Thread(target=self._run, name=f"wren-attached-{self.job_id}"),
            threading.Thread(target=self._resolver.run, name=f"wren-resolver-{self.job_id}"),
        ]
        for thread in self._threads:
            thread.start()
        _live.add(self)
        try:
            self._opened.result()
        except BaseException:
            self.close()
            raise

    @property
    def record(self) -> JobRecord | None:
        """What the job's client wrote down of it; None if there is nothing, or nothing that can be read."""
        return self._follower.record

    @property
    def futures(self) -> dict[int, Future[Any]]:
        """A Future for each call known so far, by the call's number, from 0 in the order of submission.

        The numbers come from the job's record and from what is committed. They cannot be cancelled.
        """
        with self._lock:
            return {seq: self._calls[seq].future for seq in sorted(self._calls)}

    def future(self, seq: int) -> Future[Any]:
        """The Future of call number `seq`, even if nothing in the bucket tells of that call yet."""
        with self._lock:
            known = self._calls.get(seq)
            if known is None:
                known = _Call(seq, Future())
                known.future.set_running_or_notify_cancel()
                self._calls[seq] = known
                if self._ended is not None:
                    known.future.set_exception(self._ended)
        with contextlib.suppress(RuntimeError):  # the loop has ended, and `_end` has seen to the call
            self._loop.call_soon_threadsafe(self._follower.expect, seq)
        return known.future

    def can_tell(self, seq: int) -> bool:
        """Whether `future(seq)` tells, or will, what became of a call, rather than that S3 could not be asked."""
        with self._lock:
            known, is_over = self._calls.get(seq), self._ended is not None
        if known is None or not known.future.done():
            return not is_over
        error = known.future.exception()
        return not isinstance(error, StorageError) or isinstance(error, TamperedObjectError)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every call that is known has ended; returns whether that is so after `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while waiting := [future for future in self.futures.values() if not future.done()]:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return False
            wait_for_futures(waiting, left)
        return True

    def committed(self, timeout: float | None = None) -> dict[int, Future[Any]]:
        """The futures that are done, at least those whose outcome, or failure, was in the bucket when this was made.

        Args:
            timeout: Seconds to wait for these at most.

        Raises:
            TimeoutError: They could not be had in time.
        """
        if not self._caught_up.wait(timeout):
            raise TimeoutError(f"the outcomes of job {self.job_id} could not be read within {timeout} s")
        return {seq: future for seq, future in self.futures.items() if future.done()}

    def results(self, timeout: float | None = None) -> dict[int, Any]:
        """What became of every call that is known, by its number: its value, or the exception that it ended in.

        Args:
            timeout: Seconds to wait for all of them at most.

        Raises:
            TimeoutError: Some have not ended by then; `futures` has those that have.
        """
        if not self.wait(timeout):
            futures = self.futures.values()
            left = sum(not future.done() for future in futures)
            raise TimeoutError(f"{left} of {len(futures)} calls of job {self.job_id} have no outcome after {timeout} s")
        return {seq: ended(future) for seq, future in self.futures.items()}

    def close(self) -> None:
        """Stop looking. The job goes on as it is; futures that wait end in CancelledError."""
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._closed.set)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def __enter__(self) -> AttachedJob:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- on the event loop

    def _run(self) -> None:
        end: Exception = CancelledError(f"the attached job {self.job_id} was closed")
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main())
        except BaseException as error:  # noqa: BLE001  it is told to everybody who waits
            logger.debug("attached.failed job=%s", self.job_id, exc_info=error)
            end = error if isinstance(error, WrenError) else InvocationError(f"job {self.job_id}: {error!r}")
        finally:
            self._end(end)

    async def _main(self) -> None:
        work = asyncio.create_task(self._work())
        closed = asyncio.create_task(self._closed.wait())
        await asyncio.wait({work, closed}, return_when=asyncio.FIRST_COMPLETED)
        for task in (work, closed):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work

    async def _work(self) -> None:
        await self._follower.open()
        self._opened.set_result(None)
        await self._follower.follow(on_look=self._look_done)

    def _look_done(self) -> None:
        """What a look has found is in the resolver's queue: say so behind it."""
        if not self._caught_up.is_set():
            self._resolver.then(self._caught_up.set)

    def _end(self, error: Exception) -> None:
        if not self._opened.done():
            self._opened.set_exception(error)
        with self._lock:
            left, self._ended = list(self._calls.values()), error
        for call in left:
            self._resolver.fail_waiting(call, error)
        self._resolver.then(self._caught_up.set)
        self._resolver.stop()
        self.journal.close()

    def _add(self, seqs: list[int]) -> None:
        self.journal.add("call.submitted", len(seqs))
        with self._lock:
            calls = {seq: _Call(seq, Future()) for seq in seqs if seq not in self._calls}
            for call in calls.values():
                call.future.set_running_or_notify_cancel()  # nobody can cancel it from here
            self._calls.update(calls)

    def _resolve(self, outcome: Outcome, parts: list[Bytes], frame: Frame) -> None:
        if not self._forward_output:
            outcome = replace(outcome, stdout="", stderr="", caught=())

        def finish(found: Any) -> Any:
            if outcome.apart:
                return MadeValues(land(found, outcome, frame.environment_id, needs_modules=False).parcels, self._store)
            return found if self._with_times else without_times(found)

        self._resolver.resolve(self._calls[number_of(outcome.seq)], outcome, parts, frame, finish)

    def _fail(self, seq: int, error: WrenError) -> None:
        self._resolver.fail(self._calls[seq], error)


def ended(future: Future[Any]) -> Any:
    """The value of a future that is done, or the exception that it holds."""
    error = future.exception()
    return future.result() if error is None else error


def checked_job_id(job_id: str) -> str:
    """Return `job_id` if it is one; it becomes part of object keys.

    Raises:
        ConfigError: It is not.
    """
    try:
        return check_job_id(job_id)
    except ProtocolError as error:
        raise ConfigError(f"{error}: `wren jobs list` shows those there are") from None


_live: weakref.WeakSet[AttachedJob] = weakref.WeakSet()


def _close_all() -> None:
    """At interpreter exit, before non-daemon threads are joined."""
    for job in list(_live):
        job.close()


# As in dispatcher.py: atexit would run only after the threads were joined, which would be never.
threading._register_atexit(_close_all)  # type: ignore[attr-defined]
os.register_at_fork(after_in_child=_live.clear)
