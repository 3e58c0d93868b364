"""The future beneath a `ResponseFuture`: a standard one that keeps the times and can be given up while it runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection
from concurrent.futures import CancelledError, Future
from typing import Any

from lambda_worker import codec
from lambda_worker.timed import Timed, take_status
from wren_backends.calls import Call
from wren_backends.executor import InterruptibleFuture
from wren_backends.origin import Origin, keep_origin, origin_of

Abandon = Callable[[Collection[Future[Any]] | None], None]


class CallFuture(InterruptibleFuture[Any]):
    """Holds the value itself of a call of a `TimedFunction`, and its status apart.

    Args:
        abandon: Gives up the futures it is given, or all of their executor, so that their slots are free.
        demand: Called when somebody begins to wait, for calls that run only then.

    Attributes:
        submitted_at: When the call was handed over, seconds since 1970 by this machine's clock, as those below.
        sent_at: When an invocation began to carry it; None before.
        done_at: When it ended here; None before.
        status: What the worker said of it.
    """

    def __init__(self, abandon: Abandon, demand: Callable[[], None] | None = None) -> None:
        super().__init__(lambda: abandon(None))
        self._abandon_some = abandon
        self.submitted_at = time.time()
        self.sent_at: float | None = None
        self.done_at: float | None = None
        self.status: dict[str, Any] = {}
        self._demand = demand
        self._claimed = False
        self._call: Call | None = None
        self._seq: int | None = None

    def to_pickle(self) -> tuple[Any, ...]:
        """What `of_pickle` makes one like this of that has ended."""
        error: BaseException | None = CancelledError("the call was cancelled before it was sent")
        if not self.cancelled():
            error = self.exception()
        times = self.submitted_at, self.sent_at, self.done_at
        if error is None:
            return self.result(), None, times, self.status, origin_of(self)
        # Exceptions as workers send them: whatever their `__init__` wants, and their cause is the remote traceback.
        chain = [codec.dump_error(error)]
        if error.__cause__ is not None:
            with contextlib.suppress(Exception):
                chain.append(codec.dump_error(error.__cause__))
        pickles = [tuple(map(bytes, one)) for one in chain]
        return None, pickles, times, self.status, origin_of(self)

    @classmethod
    def of_pickle(
        cls,
        value: Any,
        errors: list[tuple[bytes, ...]] | None,
        times: tuple[float, float | None, float | None],
        status: dict[str, Any],
        origin: Origin | None,
    ) -> CallFuture:
        """One that has ended elsewhere.

        Args:
            value: What it holds.
            errors: What it holds instead, and the cause of that, each pickled.
            times: When it was submitted, sent and done.
            status: What the worker said of it.
            origin: Where it ran.
        """
        made = cls(abandon=lambda _: None)
        made.set_running_or_notify_cancel()
        keep_origin(made, origin)
        if errors is None:
            made.set_result(value)
        else:
            error, *causes = (codec.loads(one) for one in errors)
            error.__cause__ = causes[0] if causes else None
            made.set_exception(error)
        made.submitted_at, made.sent_at, made.done_at = times
        made.status = status
        return made

    def abandon(self) -> None:
        """Free its slot, if an invocation carries it."""
        self._abandon_some([self])

    def demand(self) -> None:
        """Somebody is about to wait."""
        if self._demand is not None and not self.done():
            self._demand()

    def carries(self, call: Call) -> None:
        """This is the call."""
        self._call = call

    @property
    def seq(self) -> int | None:
        """The call's number within its job; None if it was never queued."""
        return self._call.number if self._call is not None else self._seq

    def set_running_or_notify_cancel(self) -> bool:
        """As `Future.set_running_or_notify_cancel`."""
        running = super().set_running_or_notify_cancel()
        if running:
            self.sent_at = time.time()
        else:
            self._let_go()
        return running

    def set_result(self, result: Any) -> None:
        """As `Future.set_result`; what comes after the call was given up is dropped."""
        if self._claim():
            if isinstance(result, Timed):
                result, self.status = result.value, result.status
            super().set_result(result)

    def set_exception(self, exception: BaseException | None) -> None:
        """As `Future.set_exception`; what comes after the call was given up is dropped."""
        if self._claim():
            if exception is not None:
                self.status = take_status(exception)
            super().set_exception(exception)

    def give_up(self) -> bool:
        """End it in CancelledError though it runs; returns whether that was still possible."""
        if self.cancel():
            self.done_at = time.time()
            return True
        if not self._claim():
            return False
        super().set_exception(CancelledError("the call was cancelled while it ran"))
        return True

    def _claim(self) -> bool:
        """Whether the caller is the first to end this; the engine and the user may both want to."""
        with self._condition:
            if self._claimed or self.done():
                return False
            self._claimed, self.done_at = True, time.time()
        self._let_go()
        return True

    def _let_go(self) -> None:
        """Keep of the call its number alone."""
        if self._call is not None:
            self._seq, self._call = self._call.number, None
