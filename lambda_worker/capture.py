"""Keeps what a call prints and warns, so that the client can show it as a local backend would.

All of it goes to the function's log as well, where it is marked as that call's (`loglines.py`).
"""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from lambda_worker.loglines import CallMark

_MAX_WARNINGS = 50
_MAX_WARNING_CHARS = 4000


@contextmanager
def _lost_if_closed() -> Iterator[None]:
    """A call may have closed the real stream, or its file: what later calls print still reaches the client."""
    try:
        yield
    except UnicodeError:
        raise
    except (OSError, ValueError, AttributeError):
        pass


class _Tee(io.TextIOBase):
    """Writes on to the real stream, which is the function's log, and keeps the first `limit` characters."""

    def __init__(self, real: Any, limit: int, name: str, mark: CallMark | None) -> None:
        self._real = real
        self._left = self._limit = limit
        self._name = name
        self._mark = mark
        self._kept: list[str] = []
        self._cut = False
        self._ends_line = True

    def write(self, text: str) -> int:
        with _lost_if_closed():
            self._real.write(self._mark.of(self._name, text) if self._mark and text else text)
        self._ends_line = text.endswith("\n") if text else self._ends_line
        if self._left > 0:
            self._kept.append(text[: self._left])
        self._cut = self._cut or len(text) > self._left
        self._left -= min(len(text), self._left)
        return len(text)

    def flush(self) -> None:
        with _lost_if_closed():
            self._real.flush()

    def writable(self) -> bool:
        return True

    @property
    def buffer(self) -> Any:
        """The real stream's bytes: binary output goes to the log only."""
        return self._real.buffer

    def end(self) -> None:
        """Write what a mark has kept back; whatever is marked next has to begin a line."""
        rest = self._mark.rest_of(self._name) if self._mark else ""
        if self._mark and (rest or not self._ends_line):
            with _lost_if_closed():
                self._real.write(rest or "\n")

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._real, "encoding", None) or "utf-8"

    def fileno(self) -> int:
        return int(self._real.fileno())

    def text(self) -> str:
        kept = "".join(self._kept)
        cut = self._cut and self._limit > 0
        return kept + "\n[more was printed; the function's log has all of it]\n" if cut else kept


class Capture:
    """Context manager around one call.

    Args:
        limit: Characters of each of standard output and error to keep; 0 captures nothing.
        mark: Marks in the log what the call prints; None: nothing is marked.
    """

    def __init__(self, limit: int, mark: CallMark | None = None) -> None:
        self._limit = limit
        self._mark = mark
        self.stdout = self.stderr = ""
        self.caught: tuple[tuple[str, str, str, str, int], ...] = ()

    def __enter__(self) -> Capture:
        if self._limit or self._mark:
            self._streams = sys.stdout, sys.stderr
            self._tees = tuple(
                _Tee(stream, self._limit, name, self._mark)
                for stream, name in zip(self._streams, ("out", "err"), strict=True)
            )
            sys.stdout, sys.stderr = self._tees
        if self._limit:
            self._log_handlers = _take_lambdas_log_handlers()
            self._catcher = warnings.catch_warnings(record=True)
            self._recorded = self._catcher.__enter__()
            # The client's filters decide what is shown, so every warning has to travel.
            warnings.simplefilter("always")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._limit or self._mark:
            sys.stdout, sys.stderr = self._streams
            for tee in self._tees:
                tee.end()
        if self._limit:
            self._catcher.__exit__(kind, error, where)
            self._put_back(self._log_handlers)
            self.stdout, self.stderr = (tee.text() for tee in self._tees)
            self.caught = tuple(_describe(one) for one in (self._recorded or [])[:_MAX_WARNINGS])

    def _put_back(self, log_handlers: list[logging.Handler]) -> None:
        """Lambda's handlers take the place of those that write to this call's streams."""
        root = logging.getLogger()
        for handler in root.handlers[:]:
            if getattr(handler, "stream", None) in self._tees:
                root.removeHandler(handler)
        for handler in log_handlers:
            root.addHandler(handler)


def _take_lambdas_log_handlers() -> list[logging.Handler]:
    """While a call runs, logging is as in any Python: to standard error, and `logging.basicConfig` has an effect.

    Lambda's runtime puts a handler of its own on the root logger, which prints request id and time to standard output.
    """
    root = logging.getLogger()
    lambdas = [one for one in root.handlers if type(one).__module__.partition(".")[0] == "awslambdaric"]
    for handler in lambdas:
        root.removeHandler(handler)
    return lambdas


def _describe(one: warnings.WarningMessage) -> tuple[str, str, str, str, int]:
    category = one.category
    text = str(one.message)[:_MAX_WARNING_CHARS]
    return category.__module__, category.__qualname__, text, one.filename, one.lineno
