"""What a dask worker is answered for a task that ran on Lambda: what distributed's `_run_task_simple` would return."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError, Future
from typing import Any

from distributed import Reschedule
from distributed.core import error_message
from distributed.sizeof import safe_sizeof

from wren_backends.origin import origin_of


def answer_with(answer: Future[Any] | None, call: Future[Any], delay_s: float) -> None:
    """Answer with what became of a call.

    Args:
        answer: What the worker waits for; None if it does not any more.
        call: The call, which has ended.
        delay_s: What the scheduler's clock is ahead of this machine's.
    """
    if answer is None:
        return
    try:
        message = _message(call, delay_s)
    except Exception as error:  # noqa: BLE001  the worker waits for an answer, whatever it is
        message = failure(error, 0.0, delay_s)
    give(answer, message)


def _message(call: Future[Any], delay_s: float) -> dict[str, Any]:
    origin = origin_of(call)
    seconds = origin.seconds if origin else 0.0
    if call.cancelled():
        return failure(Reschedule(), seconds, delay_s)
    error = call.exception()
    if isinstance(error, CancelledError):
        return failure(Reschedule(), seconds, delay_s)
    if error is not None:
        return failure(error, seconds, delay_s)
    value = call.result()
    # The dashboard has a row for each thread; so it has one for each execution environment.
    row = int(origin.environment_id[:8] or "0", 16) if origin else 0
    return {
        "op": "task-finished",
        "status": "OK",
        "result": value,
        "nbytes": safe_sizeof(value),
        "type": type(value) if value is not None else None,
        **_times(seconds, delay_s),
        "thread": row,
    }


def failure(error: BaseException, seconds: float, delay_s: float) -> dict[str, Any]:
    """The answer for a task that ended in an error.

    Args:
        error: The error; a `Reschedule` has the scheduler send the task again, if anybody still wants it.
        seconds: How long the task ran.
        delay_s: As in `answer_with`.
    """
    try:
        raise error  # distributed takes the traceback of the exception that is being handled
    except BaseException as caught:  # noqa: BLE001  as above
        message = error_message(caught)
    return {
        **message,
        "op": "task-erred",
        "actual_exception": error,
        **_times(seconds, delay_s),
        "thread": threading.get_ident(),
    }


def _times(seconds: float, delay_s: float) -> dict[str, float]:
    """When it ran, by the scheduler's clock, without the time it waited: the scheduler learns from these."""
    stop = time.time() + delay_s
    return {"start": stop - seconds, "stop": stop}


def give(answer: Future[Any], message: dict[str, Any]) -> None:
    """Answer, if nobody has: the call's end and its cancelling may come together."""
    with answer._condition:
        if answer.done() or answer.running():
            return
        answer.set_running_or_notify_cancel()
    answer.set_result(message)
