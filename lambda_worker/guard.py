"""Keeps the worker's process fit for the next call, whatever a call did to it.

What a call changes otherwise stays, as in the processes of a pool: its working directory, its environment, signal
handlers, a higher recursion limit. Only what the worker itself cannot do without is put back.
"""

from __future__ import annotations

import builtins
import os
import sys
import traceback
from types import TracebackType

_FREE = ("print", "open", "input", "help", "breakpoint", "exit", "quit", "copyright", "credits", "license")
"""Builtins that code replaces for good reasons, and of which nothing here depends."""

_NEEDED = {name: value for name, value in vars(builtins).items() if name[0] != "_" and name not in _FREE}

_getpid = os.getpid  # a call may leave another function under that name
_exit = os._exit


class Guard:
    """Context manager around one call. Its end uses no builtin function before they are what they were."""

    def __enter__(self) -> Guard:
        self._process = _getpid()
        self._recursion_limit = sys.getrecursionlimit()
        self._path = list(sys.path)
        self._finders = list(sys.meta_path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if _getpid() != self._process:
            _end_forked_child(error)
        namespace = builtins.__dict__
        for name, value in _NEEDED.items():
            if namespace.get(name) is not value:
                namespace[name] = value
        if sys.getrecursionlimit() < self._recursion_limit:
            sys.setrecursionlimit(self._recursion_limit)
        sys.path += [one for one in self._path if one not in sys.path]
        sys.meta_path += [one for one in self._finders if one not in sys.meta_path]


def _end_forked_child(error: BaseException | None) -> None:
    """Leave a process that the call forked and that came back from it: only its parent may answer Lambda.

    Its exit status is that of a script which ends in the same way.
    """
    status = 0 if error is None else 1
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        traceback.print_exception(error)
    _exit(status & 0xFF)
