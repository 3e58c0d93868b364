"""Lines of ours in a function's log: by them other lines can be told apart by job, invocation and call.

An execution environment has a log stream of its own and serves one invocation at a time, so what stands in a stream
belongs to what was last said to have begun there. One line says it for an invocation. Where several calls share one,
each says it before the first thing that it prints, so that calls which print nothing write nothing. Only the standard
library is imported here, and both sides use it: the worker writes these lines, the client reads them.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Collection
from dataclasses import dataclass

from lambda_worker.ranges import from_texts, ranges_of, texts

_BEGUN = re.compile(r"invocation\.begun job=(\S+) request=(\S+) attempt=(\d+) calls=([\d,-]+)$")
_PRINTING = re.compile(r"call\.printing job=(\S+) call=(\d+)$")
_ECHOED = re.compile(r"call\.printed job=(\S+) request=(\S+) call=(\d+) (out|err)=(\d+)\| ?(.*)$", re.DOTALL)

LINE_CHARS = 16 * 1024
"""Longest line that is marked as one; CloudWatch Logs takes 256 KB for an event (CloudWatch Logs quotas, "event size",
before April 2025)."""

REQUEST_CHARS = 8
"""Characters of a request id that an echoed line carries: enough to tell the attempts at one call apart."""


@dataclass(frozen=True, slots=True)
class Begun:
    """An invocation has begun.

    Attributes:
        job_id: Its job.
        request_id: AWS request id.
        attempt: Which attempt at its calls it is.
        calls: Numbers of its calls, as ranges with both ends included.
    """

    job_id: str
    request_id: str
    attempt: int
    calls: tuple[tuple[int, int], ...]

    def has(self, call: int) -> bool:
        """Whether a call is among them."""
        return any(first <= call <= last for first, last in self.calls)

    @property
    def only_call(self) -> int | None:
        """The call, if there is just one."""
        return self.calls[0][0] if len(self.calls) == 1 and self.calls[0][0] == self.calls[0][1] else None


@dataclass(frozen=True, slots=True)
class Printing:
    """What follows in the stream was printed by a call, one of several in its invocation."""

    job_id: str
    call: int


@dataclass(frozen=True, slots=True)
class Echoed:
    """A line that a call printed while its output is shown live.

    Attributes:
        job_id: The job.
        request: The first characters of the request id.
        call: Number of the call.
        stream: `out` or `err`.
        number: Of the line in this stream of this attempt at the call, from 1.
        text: The line itself, without its end.
    """

    job_id: str
    request: str
    call: int
    stream: str
    number: int
    text: str


def begun_line(job_id: str, request_id: str, attempt: int, calls: Collection[int]) -> str:
    """Says that an invocation has begun."""
    ranges = ",".join(texts(ranges_of(calls)))
    return f"invocation.begun job={job_id} request={request_id} attempt={attempt} calls={ranges}"


def begun_phrase(job_id: str) -> str:
    """What all lines of this kind hold, and no others."""
    return f"invocation.begun job={job_id} "


def echoed_phrase(job_id: str) -> str:
    """What all lines hold that the job's calls have echoed, and no others."""
    return f"call.printed job={job_id} "


def read(line: str) -> Begun | Printing | Echoed | None:
    """What a line of ours says; None for any other. A line that was begun by somebody else may stand before it."""
    if "invocation.begun job=" in line and (found := _BEGUN.search(line.rstrip())):
        with contextlib.suppress(ValueError):  # calls may print what looks like it
            return Begun(found[1], found[2], int(found[3]), from_texts(found[4].split(",")))
    if "call.printing job=" in line and (found := _PRINTING.search(line.rstrip())):
        return Printing(found[1], int(found[2]))
    if line.startswith("call.printed job=") and (found := _ECHOED.match(line.rstrip("\n"))):
        return Echoed(found[1], found[2], int(found[3]), found[4], int(found[5]), found[6])
    return None


class CallMark:
    """Marks what one call prints, as it is on its way to the log.

    Args:
        job_id: The job.
        request_id: AWS request id of the invocation.
        call: Number of the call.
        each_line: Whether each line is marked, for a client that shows them live; otherwise one line says it once.
    """

    def __init__(self, job_id: str, request_id: str, call: int, *, each_line: bool) -> None:
        self._said = f"call.printing job={job_id} call={call}\n"
        request = request_id[:REQUEST_CHARS]
        self._prefix = f"call.printed job={job_id} request={request} call={call}" if each_line else ""
        self._numbers = {"out": 0, "err": 0}
        self._rests = {"out": "", "err": ""}
        self._lock = threading.Lock()  # a call may have threads that print

    def of(self, stream: str, text: str) -> str:
        """What is to be written for `text`; `stream` is `out` or `err`. A marked line is written once it is whole."""
        if not self._prefix:
            said, self._said = self._said, ""
            return said + text
        with self._lock:
            lines, self._rests[stream] = _whole_lines(self._rests[stream] + text)
            return "".join(self._marked(stream, line) for line in lines)

    def rest_of(self, stream: str) -> str:
        """What is still to be written when the call has ended."""
        rest, self._rests[stream] = self._rests[stream], ""
        return self._marked(stream, rest) if rest else ""

    def _marked(self, stream: str, line: str) -> str:
        self._numbers[stream] += 1
        return f"{self._prefix} {stream}={self._numbers[stream]}| {line}\n"


def lines_of(text: str) -> list[str]:
    """The lines of a text as marks number them; those that are too long for a log are several."""
    lines, rest = _whole_lines(text)
    return [*lines, rest] if rest else lines


def _whole_lines(text: str) -> tuple[list[str], str]:
    """Lines that are complete, and the rest."""
    *whole, rest = text.split("\n")
    lines = [piece for line in whole for piece in _pieces(line) or [""]]
    pieces = _pieces(rest)
    if pieces and len(pieces[-1]) < LINE_CHARS:
        return [*lines, *pieces[:-1]], pieces[-1]
    return [*lines, *pieces], ""


def _pieces(line: str) -> list[str]:
    return [line[start : start + LINE_CHARS] for start in range(0, len(line), LINE_CHARS)]
