"""What the engine handles: a call, its function, the calls that travel together, and an attempt at them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from lambda_worker.protocol import SENT_ANEW, BlobRef, Payload, inline_size, number_of
from wren_backends.errors import InvocationError

F = TypeVar("F", bound=Callable[..., Any])

_CALL_BYTES = 120
"""What a call takes in an event beside its arguments: its number, an index, brackets."""

_BLOB_BYTES = 120
"""What a blob's name takes in an event."""


def event_size(payload: Payload) -> int:
    """Bytes that a payload takes in an event, before Base64."""
    return inline_size(payload) + _BLOB_BYTES * sum(isinstance(part, BlobRef) for part in payload)


class Numbers:
    """Gives the calls of a job their numbers, from 0; may be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.given = 0

    def next(self) -> int:
        """Number for another call; raises InvocationError if there is none."""
        with self._lock:
            if self.given >= SENT_ANEW:
                raise InvocationError(f"a job has at most {SENT_ANEW:,} calls: go on with another executor")
            self.given += 1
            return self.given - 1


def not_repeatable(function: F) -> F:
    """Mark a function whose calls must not be run twice, such as one that sends mail; usable as a decorator.

    Its calls travel alone, get no second attempt when something breaks (they end in an error that says what broke) and
    no backup attempt. In mode `s3` Lambda itself may, seldom, run an event twice (AWS Lambda developer guide,
    "Asynchronous invocation"). Honoured by `WrenExecutor`, joblib and, as long as
    dask has not put the task into another one, by `wren_get`.

    Returns:
        The function itself.
    """
    function.__wren_repeatable__ = False  # type: ignore[attr-defined]
    return function


def is_repeatable(function: Callable[..., Any]) -> bool:
    """Whether calls of it may be run again; partials are looked into."""
    while isinstance(function, functools.partial):
        function = function.func
    return bool(getattr(function, "__wren_repeatable__", True))


@dataclass(frozen=True, eq=False, slots=True)
class Function:
    """A pickled function, shared by all the calls of it.

    Attributes:
        name: How messages name it, such as `mymodule.f`.
        key: Hash of the whole payload: what has the same key is the same function with the same closure.
        payload: The pickle.
        modules: Bundle of the user's modules that unpickling it needs.
        repeatable: Whether its calls may be run again.
    """

    name: str
    key: str
    payload: Payload
    modules: BlobRef | None = None
    repeatable: bool = True


@dataclass(eq=False, slots=True)
class Call:
    """One `fn(*args, **kwargs)` that the user asked for.

    Attributes:
        seq: Number within the job, from 0, and `SENT_ANEW` for each time that it was sent anew.
        future: What the user holds.
        function: What is called.
        name: How messages name it.
        kind: Calls of the same kind are expected to take about as long, and may travel together.
        arguments: Payload of `(args, kwargs)`.
        modules: Bundle of the user's modules that the function or the arguments need.
        retries_left: Further attempts if it raises.
        shared_from_bytes: See `WireCall`.
        environment: Environment variables to set while it runs.
        group: The group that is to bring its outcome; None before it has one, and after it has ended.
        repeatable: Whether it may be run again.
        sent_again: Whether blobs that had vanished were sent once more for it.
        apart: Whether its function returns `Apart`, so that its future holds a `Landed`.
        enlarged: Whether it runs on the function with more memory from the start.
        queued_at: When the engine got it, by the clock of its event loop, in seconds.
    """

    seq: int
    future: Future[Any]
    function: Function
    name: str
    kind: str
    arguments: Payload
    modules: BlobRef | None = None
    retries_left: int = 0
    shared_from_bytes: int = 0
    environment: tuple[tuple[str, str], ...] = ()
    group: Group | None = None
    repeatable: bool = True
    sent_again: bool = False
    apart: bool = False
    enlarged: bool = False
    queued_at: float = 0.0

    @property
    def number(self) -> int:
        """Its number within the job, from 0."""
        return number_of(self.seq)

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"call {self.number} ({self.name})"

    @property
    def size(self) -> int:
        """Bytes that it takes in an event, without its function."""
        return _CALL_BYTES + event_size(self.arguments)

    def blobs(self) -> list[BlobRef]:
        """The blobs that it names."""
        parts = (*self.function.payload, *self.arguments, *([self.modules] if self.modules else []))
        return [part for part in parts if isinstance(part, BlobRef)]

    def fits_with(self, other: Call) -> bool:
        """Whether both can travel in one invocation."""
        alike = (self.kind, self.environment, self.modules) == (other.kind, other.environment, other.modules)
        return alike and self.repeatable and other.repeatable and self.enlarged == other.enlarged


@dataclass(eq=False, slots=True)
class Group:
    """Calls that travel in one invocation; they stay together through its attempts unless it has to be split.

    Attributes:
        calls: In the order in which they run.
        attempt: The newest; 1 for the first; from 2 on, an earlier one may have run and committed its outcome.
        deaths: Attempts that ended with their environment, or whose response was lost: what `max_attempts` bounds.
        refusals: How often it was sent and not taken in.
        refused_since: Clock time of the first refusal in a row, in seconds.
        has_backup: Whether two attempts at it were started at once.
        sent_again: Whether what had vanished from the bucket was uploaded once more for it.
        enlarged: Whether it travels to the function with more memory.
    """

    calls: list[Call]
    attempt: int = 1
    deaths: int = 0
    refusals: int = 0
    refused_since: float | None = None
    has_backup: bool = False
    sent_again: bool = False
    enlarged: bool = False

    def __post_init__(self) -> None:
        for call in self.calls:
            call.group = self
            self.enlarged = self.enlarged or call.enlarged

    @property
    def first_seq(self) -> int:
        """`seq` of the first call, which names the object its outcomes are committed to."""
        return self.calls[0].seq

    @property
    def label(self) -> str:
        """How messages name it."""
        rest = len(self.calls) - 1
        return self.calls[0].label + (f" and {rest} more" if rest else "")

    @property
    def repeatable(self) -> bool:
        """Whether all of its calls may be run again."""
        return all(call.repeatable for call in self.calls)

    @property
    def may_have_backup(self) -> bool:
        """Whether another attempt may be started while one runs."""
        return not self.has_backup and self.repeatable

    @property
    def stranded(self) -> list[Call]:
        """Calls that still wait for this group, and for no other, to bring their outcome."""
        return [call for call in self.calls if call.group is self]


@dataclass(frozen=True, eq=False, slots=True)
class Invocation:
    """One attempt at a group, in flight.

    Attributes:
        group: Its calls.
        attempt: Which attempt at them it is.
        number: Its number within the job.
        begun: Clock time at which it was started, in seconds.
        is_backup: Whether another attempt at the same calls was in flight when it was started.
    """

    group: Group
    attempt: int
    number: int
    begun: float
    is_backup: bool
