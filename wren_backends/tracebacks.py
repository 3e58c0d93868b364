"""Gives an exception of a call the frames it had in the worker, as dask's own schedulers do; they travel as text."""

from __future__ import annotations

from typing import TypeVar

E = TypeVar("E", bound=BaseException)

_HEAD = "Traceback (most recent call last):"


def with_remote_frames(error: E) -> E:
    """Put the frames that `error` had in the worker into its `__traceback__`.

    A debugger and dask's shortening of tracebacks see them then, names and lines without local variables.

    Args:
        error: What a call's future holds; its cause is the remote traceback, unless it is an error of ours.

    Returns:
        The same object.
    """
    from tblib import Traceback, TracebackParseError

    text = getattr(error.__cause__, "tb", None)
    if not isinstance(text, str) or _HEAD not in text:
        return error
    try:
        # What it was raised from, or while handling, stands before it.
        frames = Traceback.from_string(_HEAD + text.rpartition(_HEAD)[2]).as_traceback()
    except TracebackParseError:  # a group of exceptions, or source that cannot be told from the traceback around it
        return error
    return error.with_traceback(frames)
