"""The futures that this process made, and whether it may look for those of others."""

from __future__ import annotations

import os
import weakref

from wren_backends.pywren.callfuture import CallFuture

futures: weakref.WeakValueDictionary[tuple[str, str], CallFuture] = weakref.WeakValueDictionary()
"""By map and call: what this process pickled and unpickles is its own call again."""

_was_forked = False


def check_not_forked(what: str) -> None:
    """Raise what `forked` returns if this process was forked from one that had futures of its own."""
    if _was_forked:
        raise forked(what)


def forked(what: str) -> RuntimeError:
    """Why a future cannot be waited for here.

    Args:
        what: Names it.
    """
    return RuntimeError(
        f"{what} cannot be waited for in a process that was forked from one that makes calls, as the client of S3 does "
        'not outlive a fork: start the process anew, as multiprocessing\'s "spawn" does, or wait before it is forked'
    )


def _note_fork() -> None:
    global _was_forked  # noqa: PLW0603  it is so of the whole process
    _was_forked = _was_forked or bool(futures)
    futures.clear()


os.register_at_fork(after_in_child=_note_fork)
