"""Turns outcomes into what futures hold. All of the user's code that runs in the client runs here, off the event loop.

That is unpickling, and the futures' callbacks.
"""

from __future__ import annotations

import builtins
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import Future, process
from dataclasses import replace
from queue import SimpleQueue
from typing import Any, Protocol

from lambda_worker import codec
from lambda_worker.protocol import Bytes, Frame, Outcome
from wren_backends import faults, terminal
from wren_backends.echo import Echo
from wren_backends.errors import SerializationError
from wren_backends.events import logger
from wren_backends.origin import leave_origin
from wren_backends.tracebacks import with_files_of_here

_MISSING = (
    "What calls import has to be among the function's packages: `wren setup` deploys those of this environment, "
    "`--packages NAME` others; your own modules travel by themselves if a folder on sys.path has them"
)


class Awaited(Protocol):
    """A call whose outcome somebody waits for."""

    @property
    def future(self) -> Future[Any]:
        """What they hold."""

    @property
    def label(self) -> str:
        """How messages name it."""


class Resolver:
    """A queue of outcomes and the loop that empties it, for a thread of its own.

    Args:
        echo: Shows what calls print while they run; None: it is shown when they end.
    """

    def __init__(self, echo: Echo | None = None) -> None:
        self._echo = echo
        self._queue: SimpleQueue[tuple[Awaited | None, Callable[[], None]] | None] = SimpleQueue()

    def resolve(
        self,
        call: Awaited,
        outcome: Outcome,
        parts: list[Bytes],
        frame: Frame,
        finish: Callable[[Any], Any] = lambda value: value,
    ) -> None:
        """Queue an outcome.

        Args:
            call: The call.
            outcome: How it ended.
            parts: What has been fetched of its payload.
            frame: Where it came from.
            finish: Makes of the value, or of the exception, what the future is to hold.
        """
        self._queue.put((call, lambda: _resolve(call, outcome, parts, frame, self._echo, finish)))

    def fail(self, call: Awaited, error: BaseException) -> None:
        """Queue an error of our own."""
        self._queue.put((call, lambda: call.future.set_exception(error)))

    def fail_waiting(self, call: Awaited, error: BaseException) -> None:
        """Queue an error of our own for a call that may have ended by then."""
        self._queue.put((call, lambda: None if call.future.done() else call.future.set_exception(error)))

    def then(self, step: Callable[[], None]) -> None:
        """Have `step` called once everything queued before is done."""
        self._queue.put((None, step))

    def cancel(self, call: Awaited) -> None:
        """Queue the cancellation of a call that was never sent."""
        self._queue.put((call, lambda: _cancel(call)))

    def stop(self) -> None:
        """End `run` once everything queued before is done."""
        self._queue.put(None)

    def run(self) -> None:
        """Resolve until stopped."""
        while (item := self._queue.get()) is not None:
            call, step = item
            try:
                step()
            except BaseException as error:  # noqa: BLE001  from the user's code; whatever it is, nobody may wait for ever
                _last_resort(call, error)
            # Nothing of a call may be kept alive while this thread waits for the next one.
            del item, call, step


def _cancel(call: Awaited) -> None:
    if call.future.cancel():
        call.future.set_running_or_notify_cancel()


def _last_resort(call: Awaited | None, error: BaseException) -> None:
    if call is None or call.future.done():
        logger.error("callback.failed call=%s", call and call.label, exc_info=error)
    else:
        call.future.set_exception(
            SerializationError(f"{call.label}: its outcome cannot be used here ({type(error).__name__}: {error})")
        )


def _resolve(
    call: Awaited, outcome: Outcome, parts: list[Bytes], frame: Frame, echo: Echo | None, finish: Callable[[Any], Any]
) -> None:
    if echo is None:
        _print(outcome)
    else:
        echo.end(outcome, frame)
    warned = _warn(outcome)
    leave_origin(call.future, outcome, frame)
    if outcome.detail:
        outcome = replace(outcome, detail=with_files_of_here(outcome.detail))
    where = f"{call.label} of job {frame.job_id}, AWS request {frame.request_id}, log stream {frame.log_stream}"
    if outcome.kind == "failed":
        call.future.set_exception(faults.failure(outcome, where))
        return
    try:
        value = codec.loads([parts[0], *map(bytearray, parts[1:])])  # arrays have to be writable
        if outcome.kind == "error" and not isinstance(value, BaseException):
            raise TypeError(f"it unpickles as {type(value).__qualname__}, which is no exception")
        value = finish(value)
    except BaseException as error:  # noqa: BLE001  the user's classes may raise anything
        call.future.set_exception(_unloadable(outcome, where, error))
        return
    if outcome.kind == "value":
        if warned is None:
            call.future.set_result(value)
        else:
            warned.add_note(f"warned of in {where}; a filter of this process makes it an error")
            call.future.set_exception(warned)
        return
    try:
        # As ProcessPoolExecutor does: the remote traceback, as text, is the cause.
        value.__cause__ = _remote_traceback(outcome.detail)
        value.add_note(f"raised in {where}")
        if isinstance(value, ModuleNotFoundError):
            value.add_note(_MISSING)
    except Exception as error:  # noqa: BLE001  exceptions may be frozen
        logger.debug("note.refused call=%s error=%r", call.label, error)
    call.future.set_exception(value)


def _unloadable(outcome: Outcome, where: str, error: BaseException) -> SerializationError:
    what = "result" if outcome.kind == "value" else "exception"
    made = SerializationError(
        f"{where}: its {what} came back but could not be unpickled here ({type(error).__name__}: {error}). "
        "Its class has to be importable in this process"
    )
    made.__cause__ = _remote_traceback(outcome.detail) if outcome.detail else error
    return made


def _remote_traceback(text: str) -> BaseException:
    """The standard library's own class for it, which loky, joblib and test suites look for."""
    kind: Any = vars(process)["_RemoteTraceback"]
    made: BaseException = kind(f'\n"""\n{text}"""')
    return made


def _print(outcome: Outcome) -> None:
    """Print here what the call printed there; failing to is no reason to lose its outcome."""
    for text, stream in ((outcome.stdout, sys.stdout), (outcome.stderr, sys.stderr)):
        if text and stream is not None:
            try:
                terminal.write(stream, text)
            except Exception as error:  # noqa: BLE001  the stream may be closed, or anything that has `write`
                logger.warning("output.lost characters=%d error=%r", len(text), error)


def _warn(outcome: Outcome) -> Warning | None:
    """Warn here as the call warned there; returns the first warning that a filter here makes an error.

    A thread's call would end in it, and so would one in a forked process or in one started with the same `-W`.
    """
    first = None
    for module, name, text, filename, line in outcome.caught:
        try:
            warnings.warn_explicit(_warning(_category(module, name), text), None, with_files_of_here(filename), line)
        except Warning as warning:
            first = first or warning
        except Exception as error:  # noqa: BLE001  whatever shows warnings may be the user's, and fail
            logger.warning("warning.suppressed text=%r error=%r", text, error)
    return first


def _warning(category: type[Warning], text: str) -> Warning:
    """A warning of that class, without its `__init__`, which may want what did not travel."""
    made = category.__new__(category, text)
    made.args = (text,)
    return made


def _category(module: str, name: str) -> type[Warning]:
    """The warning's class if this process knows it; nothing is imported on a worker's say-so."""
    home = builtins if module == "builtins" else sys.modules.get(module)
    found = getattr(home, name, None)
    return found if isinstance(found, type) and issubclass(found, Warning) else UserWarning
