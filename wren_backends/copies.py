"""Warns of arguments that a call may write to in vain, because what it gets is a copy of them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

_WRITTEN_THROUGH = ("r+", "w+")
"""Modes of `numpy.memmap` in which what is written to the array is written to its file."""


def _writes_would_be_lost(value: Any) -> bool:
    """Whether `value` is an array over a memory-mapped file through which a call in a local process could write."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray) or not value.flags.writeable:
        return False
    while isinstance(value, numpy.ndarray):
        if isinstance(value, numpy.memmap):
            return getattr(value, "mode", None) in _WRITTEN_THROUGH
        value = value.base
    return False


def warn_of_lost_writes(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], function: Callable[[], str], stacklevel: int = 2
) -> bool:
    """Warn (UserWarning) of the first argument that is such an array; it may well be only read, so it is no error.

    Args:
        args: Positional arguments of a call.
        kwargs: Keyword arguments.
        function: Says how messages name what is called.
        stacklevel: What the caller of this would give to `warnings.warn`.

    Returns:
        Whether there is one.
    """
    for name, value in (*enumerate(args, 1), *kwargs.items()):
        if _writes_would_be_lost(value):
            warnings.warn(
                f"argument {name!r} of {function()} is an array over a file that is mapped for writing. Calls get "
                "copies of their arguments: what they write to it is lost. Return the values and write them here; or, "
                "if calls only read it, open it with mode='r'",
                UserWarning,
                stacklevel=stacklevel + 1,
            )
            return True
    return False
