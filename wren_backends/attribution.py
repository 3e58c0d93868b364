"""Tells of each line of a function's log which job, invocation and call it belongs to.

It goes by the lines that the worker and Lambda itself write (`lambda_worker/loglines.py`). No request is made here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from lambda_worker import loglines
from lambda_worker.loglines import Begun, Echoed, Printing

_LAMBDAS = re.compile(r"(START|END|REPORT) RequestId: (\S+)")
_MOST_HELD = 1000


@dataclass(frozen=True, slots=True)
class LogEvent:
    """A line as CloudWatch Logs has it.

    Attributes:
        event_id: Its id there.
        at_ms: When it was written, milliseconds since 1970.
        group: Log group, one for each function.
        stream: Log stream, one for each execution environment.
        text: The line.
    """

    event_id: str
    at_ms: int
    group: str
    stream: str
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line and where it belongs.

    Attributes:
        event: The line as it stands in the log.
        text: What it says, without our marks.
        request_id: AWS request id of its invocation, if known.
        invocation: What the worker said of the invocation, if it did.
        call: Number of its call; None: of none, or it cannot be told which of several.
        is_lambdas: Whether Lambda itself wrote it, at an invocation's beginning or end.
    """

    event: LogEvent
    text: str
    request_id: str = ""
    invocation: Begun | None = None
    call: int | None = None
    is_lambdas: bool = False

    @property
    def job_id(self) -> str:
        """Its job, if known."""
        return self.invocation.job_id if self.invocation else ""

    def is_of(self, job_id: str | None, call: int | None) -> bool:
        """Whether it belongs to a job, and to a call of it; None stands for any.

        What Lambda writes of an invocation is of each of its calls.
        """
        if job_id is not None and self.job_id != job_id:
            return False
        if call is None or self.call == call:
            return True
        return self.is_lambdas and self.invocation is not None and self.invocation.has(call)


@dataclass
class _Stream:
    """How far a stream has been read; `held` are lines that wait for word of their invocation."""

    request_id: str = ""
    invocation: Begun | None = None
    call: int | None = None
    held: list[Line] | None = None


class Attribution:
    """Reads streams; the lines of each have to come in their order."""

    def __init__(self) -> None:
        self._streams: dict[tuple[str, str], _Stream] = {}

    def take(self, event: LogEvent) -> list[Line]:
        """Lines that can be told with this one; a line of ours says nothing to anybody else and is none of them."""
        stream = self._streams.setdefault((event.group, event.stream), _Stream())
        lambdas = _LAMBDAS.match(event.text)
        if lambdas is not None:
            return self._take_lambdas(stream, event, lambdas[1], lambdas[2])
        said = loglines.read(event.text)
        if isinstance(said, Begun):
            return self._begin(stream, said)
        if isinstance(said, Printing):
            stream.call = said.call
            return []
        if isinstance(said, Echoed):
            return [Line(event, said.text, stream.request_id, stream.invocation, said.call)]
        line = Line(event, event.text.rstrip("\n"), stream.request_id, stream.invocation, stream.call)
        if stream.held is not None and len(stream.held) < _MOST_HELD:
            stream.held.append(line)
            return []
        return [line]

    def rest(self) -> list[Line]:
        """Lines that still wait for word of their invocation, which may never come."""
        return [line for stream in self._streams.values() for line in self._release(stream)]

    def _take_lambdas(self, stream: _Stream, event: LogEvent, kind: str, request_id: str) -> list[Line]:
        if kind == "START":
            before = self._release(stream)
            stream.request_id, stream.invocation, stream.call, stream.held = request_id, None, None, []
            stream.held.append(Line(event, event.text.rstrip("\n"), request_id, is_lambdas=True))
            return before
        invocation = stream.invocation if stream.request_id == request_id else None
        line = Line(event, event.text.rstrip("\n"), request_id, invocation, None, is_lambdas=True)
        found = [*self._release(stream), line]
        stream.call = None
        return found

    def _begin(self, stream: _Stream, said: Begun) -> list[Line]:
        held, stream.held = stream.held or [], None
        stream.request_id, stream.invocation, stream.call = said.request_id, said, said.only_call
        return [
            replace(one, invocation=said, call=None if one.is_lambdas else said.only_call)
            for one in held
            if one.request_id == said.request_id
        ]

    def _release(self, stream: _Stream) -> list[Line]:
        held, stream.held = stream.held or [], None
        return held
