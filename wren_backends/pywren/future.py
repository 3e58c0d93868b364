"""`ResponseFuture`: PyWren's future, which can be pickled and read by another process."""

from __future__ import annotations

import enum
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from typing import Any

from lambda_worker.protocol import IN_WORKER_VARIABLE
from wren_backends.config import Config
from wren_backends.errors import ConfigError, SerializationError
from wren_backends.pywren import known
from wren_backends.pywren.callfuture import CallFuture
from wren_backends.pywren.following import Place, follow
from wren_backends.pywren.status import invoke_status, run_status


class JobState(enum.Enum):
    """How far a call is."""

    new = 1
    invoked = 2
    running = 3
    success = 4
    error = 5


class ResponseFuture:
    """What became of one call, or will.

    It can be pickled, while the call runs too if the mode is `s3`, and read by a process that uses the same cloud.

    Args:
        call_id: The call's number within its map, five digits.
        callset_id: The map.
        invoke_metadata: What is known of its submission: the beginning of `invoke_status`.
        place: Where its outcome will lie; None if nowhere but here.
        future: Holds the outcome.

    Attributes:
        call_id: As above.
        callset_id: As above.
    """

    def __init__(
        self,
        call_id: str,
        callset_id: str,
        invoke_metadata: Mapping[str, Any],
        place: Place | None,
        future: CallFuture,
    ) -> None:
        self.call_id = call_id
        self.callset_id = callset_id
        self._metadata = dict(invoke_metadata)
        self._place = place
        self._seq: int | None = None
        self._lock, self._pid = threading.Lock(), os.getpid()
        self._kept: CallFuture | None = future
        known.futures[callset_id, call_id] = future

    @property
    def config(self) -> Config | None:
        """Settings with which its outcome is found; None if it lies nowhere but here."""
        return self._place.config if self._place else None

    @property
    def _future(self) -> CallFuture:
        """What holds the outcome; one that comes from another process is looked for when it is first needed."""
        with self._lock:
            if self._kept is None:
                self._kept = self._find()
            if self._pid != os.getpid() and not self._kept.done():
                raise known.forked(str(self))
            return self._kept

    def _find(self) -> CallFuture:
        if os.environ.get(IN_WORKER_VARIABLE):
            raise ConfigError(
                f"{self} cannot be read inside a call: read it in the client and pass on its result(), or use "
                "Executor.reduce"
            )
        here = known.futures.get((self.callset_id, self.call_id))
        if here is not None:
            return here
        known.check_not_forked(str(self))
        assert self._place is not None, "what has no place is not pickled without its outcome"
        assert self._seq is not None, "as above"
        return follow(self._place, self._seq)

    def result(
        self,
        timeout: float | None = None,
        check_only: bool = False,
        throw_except: bool = True,
        storage_handler: object = None,
    ) -> Any:
        """What the call returned.

        Args:
            timeout: Seconds to wait at most; None: until the call has ended.
            check_only: Do not wait: return whether the call has ended.
            throw_except: Raise what the call raised; else return None in its place.
            storage_handler: PyWren's; has no meaning here.

        Raises:
            TimeoutError: It has not ended by then.
            CancelledError: It was cancelled.
            Exception: What the call raised, with the remote traceback as its cause, or why it has no outcome.
        """
        if check_only:
            return self.done()
        self._future.demand()
        error = self._error(timeout)
        if error is None:
            return self._future.result()
        if throw_except:
            raise error
        return None

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the call raised, or why it has no outcome; None if it returned.

        Args:
            timeout: Seconds to wait at most.

        Raises:
            TimeoutError: It has not ended by then.
            CancelledError: It was cancelled.
        """
        self._future.demand()
        error = self._error(timeout)
        if isinstance(error, CancelledError):
            raise error
        return error

    def _error(self, timeout: float | None) -> BaseException | None:
        try:
            return self._future.exception(timeout)
        except CancelledError:
            return CancelledError(f"{self} was cancelled before it was sent")

    def done(self) -> bool:
        """Whether the call has ended, in whatever way."""
        return self._future.done()

    def running(self) -> bool:
        """Whether an invocation carries it."""
        return self._future.running()

    def cancel(self, storage_handler: object = None) -> bool:
        """Give the call up: if it was not sent it never is, else nobody waits for it any more.

        Lambda cannot be told to stop a call that has begun: it runs to its end and is billed. Only the process that
        made the call can do this.

        Args:
            storage_handler: PyWren's; has no meaning here.

        Returns:
            Whether it is cancelled now.
        """
        if self._seq is not None and (self.callset_id, self.call_id) not in known.futures:
            return False
        future = self._future
        if not future.done() and not future.cancel():
            future.abandon()
        return future.give_up() or self.cancelled()

    def cancelled(self) -> bool:
        """Whether the call was given up."""
        return self.done() and isinstance(self._error(0), CancelledError)

    def succeeded(self) -> bool:
        """Whether the call has returned."""
        return self.done() and self._error(0) is None

    def errored(self) -> bool:
        """Whether the call has ended without returning."""
        return self.done() and self._error(0) is not None

    def add_done_callback(self, fn: Callable[[ResponseFuture], object]) -> None:
        """Have `fn` called with this future when the call has ended; at once if it has."""
        self._future.add_done_callback(lambda _: fn(self))

    @property
    def run_status(self) -> dict[str, Any] | None:
        """What is known of how it ran, under PyWren's names; None as long as it has not ended."""
        if not self.done():
            return None
        group = self._place.log_group if self._place else ""
        return run_status(self._future, self._error(0), self.invoke_status or {}, group)

    @property
    def invoke_status(self) -> dict[str, Any] | None:
        """What is known of how it was sent, under PyWren's names; None as long as it has not ended."""
        return invoke_status(self._future, self._metadata) if self.done() else None

    @property
    def _state(self) -> JobState:
        if self.done():
            return JobState.success if self.succeeded() else JobState.error
        return JobState.running if self.running() else JobState.invoked

    def __repr__(self) -> str:
        return f"<ResponseFuture {self.call_id} of {self.callset_id}>"

    # ---- to and from other processes

    def __getstate__(self) -> dict[str, Any]:
        state = {
            "call_id": self.call_id,
            "callset_id": self.callset_id,
            "metadata": self._metadata,
            "place": self._place,
            "seq": self._seq,
            "ended": None,
        }
        future = self._kept
        if future is None:
            return state
        if future.done():
            return {**state, "ended": future.to_pickle()}
        seq = future.seq if future.seq is not None else self._seq
        if seq is None or self._place is None or self._place.config.mode != "s3":
            raise SerializationError(
                f"{self} cannot be pickled before it has ended: only calls of mode `s3` leave their outcomes where "
                "another process finds them. Leave out mode=, or wait for it first"
            )
        return {**state, "seq": seq}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.call_id, self.callset_id = state["call_id"], state["callset_id"]
        self._metadata, self._place, self._seq = state["metadata"], state["place"], state["seq"]
        self._lock, self._pid, self._kept = threading.Lock(), os.getpid(), None
        if state["ended"] is not None:
            self._kept = CallFuture.of_pickle(*state["ended"])
