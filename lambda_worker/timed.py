"""A function whose calls say when and where they ran, by the worker's clock, as PyWren's did."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_ATTRIBUTE = "_wren_timed"
_LIKE = ("__module__", "__name__", "__qualname__", "__wren_repeatable__")


@dataclass(frozen=True, slots=True)
class Timed:
    """A result, with what is known of its making.

    Attributes:
        value: What the function returned.
        status: Names as in PyWren's `run_status`; times in seconds since 1970.
    """

    value: Any
    status: dict[str, Any]


class TimedFunction:
    """Calls a function and returns a `Timed`; what it raises carries the status along where it can.

    Args:
        function: The function. Messages name it, and what it is marked as counts.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        for name in _LIKE:
            with contextlib.suppress(Exception):  # the user's __getattr__ may raise anything
                setattr(self, name, getattr(function, name))

    def __reduce__(self) -> tuple[Any, ...]:
        return TimedFunction, (self.function,)

    def __call__(self, *arguments: Any) -> Timed:
        """Call the function."""
        begun = time.time()
        try:
            value = self.function(*arguments)
        except Exception as error:
            with contextlib.suppress(Exception):  # exceptions may be frozen
                vars(error)[_ATTRIBUTE] = _status(begun)
            raise
        return Timed(value, _status(begun))


def take_status(error: BaseException) -> dict[str, Any]:
    """The status that an exception carries, which is taken from it; empty if it carries none."""
    with contextlib.suppress(Exception):
        found = vars(error).pop(_ATTRIBUTE)
        if isinstance(found, dict):
            return found
    return {}


def without_times(found: Any) -> Any:
    """What the function returned or raised, given what its `TimedFunction` did."""
    if isinstance(found, BaseException):
        take_status(found)
    return found.value if isinstance(found, Timed) else found


def _status(begun: float) -> dict[str, Any]:
    ended = time.time()
    disk = os.statvfs("/tmp")
    return {
        "start_time": begun,
        "end_time": ended,
        "exec_time": ended - begun,
        "free_disk_bytes": disk.f_bavail * disk.f_frsize,
        "server_info": {"uname": str(platform.uname())},
    }
