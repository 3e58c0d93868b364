"""Waiting for many of PyWren's futures at once."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterable
from typing import Any

from wren_backends.pywren.future import ResponseFuture

ALL_COMPLETED = 1
ANY_COMPLETED = 2
ALWAYS = 3

_STANDARD = {ALL_COMPLETED: concurrent.futures.ALL_COMPLETED, ANY_COMPLETED: concurrent.futures.FIRST_COMPLETED}


def wait(
    fs: Iterable[ResponseFuture],
    return_when: int = ALL_COMPLETED,
    THREADPOOL_SIZE: int = 64,
    WAIT_DUR_SEC: float = 5,
    *,
    timeout: float | None = None,
) -> tuple[list[ResponseFuture], list[ResponseFuture]]:
    """Wait until calls have ended; one that was cancelled, or failed, has.

    Ctrl-C meanwhile gives up the calls that are waited for, as it does in `result`.

    Args:
        fs: The futures.
        return_when: `ALL_COMPLETED`; `ANY_COMPLETED`: at least one, unless there are none; `ALWAYS`: at once.
        THREADPOOL_SIZE: Without effect: no thread is needed.
        WAIT_DUR_SEC: Without effect: nothing is polled from here.
        timeout: Seconds to wait at most.

    Returns:
        The futures that have ended, and those that have not, each in the order given.

    Raises:
        ValueError: `return_when` is none of these.
    """
    if return_when not in (ALL_COMPLETED, ANY_COMPLETED, ALWAYS):
        raise ValueError(f"return_when={return_when!r}: has to be ALL_COMPLETED, ANY_COMPLETED or ALWAYS")
    futures = list(fs)
    if return_when != ALWAYS and futures:
        _demand(futures, enough=len(futures) if return_when == ALL_COMPLETED else 1)
        try:
            concurrent.futures.wait([one._future for one in futures], timeout, _STANDARD[return_when])
        except KeyboardInterrupt:
            for one in futures:
                one.cancel()
            raise
    done = [future.done() for future in futures]
    return (
        [future for future, ended in zip(futures, done, strict=True) if ended],
        [future for future, ended in zip(futures, done, strict=True) if not ended],
    )


def _demand(futures: list[ResponseFuture], enough: int) -> None:
    """Have those begin that begin when somebody asks, until `enough` are done."""
    done = sum(one.done() for one in futures)
    for one in futures:
        if done >= enough:
            return
        if not one.done():
            one._future.demand()
            done += one.done()


def get_all_results(fs: Iterable[ResponseFuture]) -> list[Any]:
    """Wait for all calls, and return their results in order; raises what the first of them raised."""
    futures = list(fs)
    wait(futures)
    return [future.result() for future in futures]
