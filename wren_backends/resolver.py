"""Turns outcomes into what futures hold. All of the user's code that runs in the client runs here, off the event loop.

That is unpickling, and the futures' callbacks.
"""

from __future__ import annotations

import builtins
import sys
import warnings
from concurrent.futures import process
from queue import SimpleQueue
from typing import Any

from lambda_worker import codec
from lambda_worker.protocol import Bytes, Frame, Outcome
from wren_backends import faults
from wren_backends.calls import Call
from wren_backends.errors import SerializationError
from wren_backends.events import logger


class Resolver:
    """A queue of outcomes and the loop that empties it, for a thread of its own."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Any, ...] | None] = SimpleQueue()

    def resolve(self, call: Call, outcome: Outcome, parts: list[Bytes], frame: Frame) -> None:
        """Queue an outcome whose payload has been fetched."""
        self._queue.put((call, outcome, parts, frame))

    def fail(self, call: Call, error: BaseException) -> None:
        """Queue an error of our own."""
        self._queue.put((call, error))

    def stop(self) -> None:
        """End `run` once everything queued before is done."""
        self._queue.put(None)

    def run(self) -> None:
        """Resolve until stopped."""
        while (item := self._queue.get()) is not None:
            try:
                _fail(*item) if len(item) == 2 else _resolve(*item)
            except BaseException:  # noqa: BLE001  from a user's callback; a stdlib executor's thread would die of it
                logger.exception("callback.failed call=%s", item[0].label)
            # Nothing of a call may be kept alive while this thread waits for the next one.
            del item


def _fail(call: Call, error: BaseException) -> None:
    call.future.set_exception(error)


def _resolve(call: Call, outcome: Outcome, parts: list[Bytes], frame: Frame) -> None:
    _show(outcome)
    where = f"{call.label} of job {frame.job_id}, AWS request {frame.request_id}, log stream {frame.log_stream}"
    if outcome.kind == "failed":
        call.future.set_exception(faults.failure(outcome, where))
        return
    try:
        value = codec.loads([parts[0], *map(bytearray, parts[1:])])  # arrays have to be writable
    except BaseException as error:  # noqa: BLE001  the user's classes may raise anything
        call.future.set_exception(_unloadable(outcome, where, error))
        return
    if outcome.kind == "value":
        call.future.set_result(value)
        return
    # As ProcessPoolExecutor does: the remote traceback, as text, is the cause.
    value.__cause__ = _remote_traceback(outcome.detail)
    value.add_note(f"raised in {where}")
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


def _show(outcome: Outcome) -> None:
    """Print and warn here what the call printed and warned there."""
    for text, stream in ((outcome.stdout, sys.stdout), (outcome.stderr, sys.stderr)):
        if text and stream is not None:
            stream.write(text)
            stream.flush()
    for module, name, text, filename, line in outcome.caught:
        try:
            warnings.warn_explicit(text, _category(module, name), filename, line)
        except Warning as warning:  # a filter says "error", but there is no frame of the user's to raise it in
            logger.warning("warning.suppressed category=%s text=%s", type(warning).__name__, warning)


def _category(module: str, name: str) -> type[Warning]:
    """The warning's class if this process knows it; nothing is imported on a worker's say-so."""
    home = builtins if module == "builtins" else sys.modules.get(module)
    found = getattr(home, name, None)
    return found if isinstance(found, type) and issubclass(found, Warning) else UserWarning
