"""Tracebacks of calls, which travel as text: with the files of this machine, and as frames of an exception."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from typing import TypeVar

from lambda_worker.protocol import MODULES_FOLDER

E = TypeVar("E", bound=BaseException)

_UNPACKED = re.compile(rf'(?m)(?:(?<=File ")|^)/(?:[^/"\n]+/)*?{re.escape(MODULES_FOLDER)}[^/"\n]+/([^"\n]+?\.py)\b')
"""A file of the user's modules, in a worker; what travelled is its path from an entry of `sys.path` on. It begins where
a traceback has a path, or with the text: a search from everywhere would take for ever in a long line."""

_HEAD = "Traceback (most recent call last):"


def with_files_of_here(text: str) -> str:
    """Name files of this machine where `text`, a traceback of a call or a path in one, has the worker's copies of them.

    They are those of modules that this process has imported or could import; what it does not know stays.
    """
    if MODULES_FOLDER not in text:
        return text
    return _UNPACKED.sub(lambda found: _file_here(found[1]) or found[0], text)


def _file_here(relative: str) -> str | None:
    """The file that was packed as `relative`, if it can be told."""
    name = relative.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    loaded = getattr(sys.modules.get(name), "__file__", None)
    if isinstance(loaded, str) and loaded.replace(os.sep, "/").endswith("/" + relative):
        return loaded
    for entry in list(sys.path):
        with contextlib.suppress(OSError, TypeError, ValueError):  # anything may be among them
            path = os.path.join(os.path.abspath(entry), *relative.split("/"))
            if os.path.isfile(path):
                return path
    return None


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
