"""Futures of calls that another process made, over one `AttachedJob` for each job that is being read."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from wren_backends.attached import AttachedJob
from wren_backends.config import Config
from wren_backends.connection import connect_to_find
from wren_backends.errors import UnknownJobError
from wren_backends.origin import keep_origin, origin_of
from wren_backends.pywren.callfuture import CallFuture

_RECORD_LIMIT_S = 5.0
"""How long a job's record is waited for: its client writes it just before the first invocation."""

_RECORD_POLL_S = 0.1


@dataclass(frozen=True)
class Place:
    """Where the outcome of a call will lie.

    Attributes:
        config: Settings with which it is found.
        job_id: The job.
        log_group: CloudWatch log group of the function.
    """

    config: Config
    job_id: str
    log_group: str


IDLE_S = 30.0
"""How long a job stays attached, in seconds, when no future of it is waited for: results are often read one by one, and
each attachment reads all of the job's outcomes."""


@dataclass(eq=False, slots=True)
class _Followed:
    """A job, and how many futures of it are waited for."""

    job: AttachedJob
    waiting: int = 0
    idle_since: float = 0.0
    has_timer: bool = False


_lock = threading.Lock()
_followed: dict[tuple[Config, str], _Followed] = {}


def follow(place: Place, seq: int) -> CallFuture:
    """The future of a call of another process's job; the job is let go of some time after the last one has ended.

    Args:
        place: Where its outcome lies.
        seq: The call's number.

    Raises:
        UnknownJobError: There are no objects of such a job.
        ConfigError, DeploymentError, StorageError: It cannot be read from here.
    """
    key = place.config, place.job_id
    with _lock:
        found = _followed.get(key)
        if found is None or not found.job.can_tell(seq):
            found = _followed[key] = _Followed(_attach(*key))
        found.waiting += 1
    ours = CallFuture(abandon=lambda _: None)
    ours.set_running_or_notify_cancel()
    theirs = found.job.future(seq)
    theirs.add_done_callback(lambda ended: _copy(ended, ours))
    theirs.add_done_callback(lambda _: _release(key, found))
    return ours


def _attach(config: Config, job_id: str) -> AttachedJob:
    connection, end = connect_to_find(config), time.monotonic() + _RECORD_LIMIT_S
    while True:
        try:
            return AttachedJob(connection, job_id, forward_output=config.forward_output, with_times=True)
        except UnknownJobError as error:
            if time.monotonic() > end:
                if connection.is_local:
                    error.add_note(
                        "a local cloud that a program starts for itself ends with it and is seen by nobody else: "
                        "start one for several programs with `wren local up`"
                    )
                raise
        time.sleep(_RECORD_POLL_S)


def _copy(theirs: Future[Any], ours: CallFuture) -> None:
    keep_origin(ours, origin_of(theirs))
    error = theirs.exception()
    if error is None:
        ours.set_result(theirs.result())
    else:
        ours.set_exception(error)


def _release(key: tuple[Config, str], found: _Followed) -> None:
    with _lock:
        found.waiting -= 1
        found.idle_since = time.monotonic()
        if not found.waiting and not found.has_timer:
            found.has_timer = True
            _close_later(key, found, IDLE_S)


def _close_later(key: tuple[Config, str], found: _Followed, delay_s: float) -> None:
    timer = threading.Timer(delay_s, _close_if_idle, (key, found))
    timer.name, timer.daemon = f"wren-idle-{key[1]}", True
    timer.start()


def _close_if_idle(key: tuple[Config, str], found: _Followed) -> None:
    with _lock:
        left_s = found.idle_since + IDLE_S - time.monotonic()
        if found.waiting:
            found.has_timer = False
            return
        if left_s > 0:
            _close_later(key, found, left_s)
            return
        if _followed.get(key) is found:
            del _followed[key]
    found.job.close()


def _forget_all() -> None:
    """A forked child has none of the threads."""
    global _lock  # noqa: PLW0603  a thread that the child does not have may have held it
    _lock = threading.Lock()
    _followed.clear()


os.register_at_fork(after_in_child=_forget_all)
