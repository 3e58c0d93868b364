"""What the engine handles: a call, the function it calls, and the calls that travel in one invocation."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from lambda_worker.protocol import BlobRef, Payload, inline_size


@dataclass(frozen=True, eq=False, slots=True)
class Function:
    """A pickled function, shared by all the calls of it.

    Attributes:
        name: How messages name it, such as `mymodule.f`.
        key: Hash of its pickle: calls with the same key take about as long.
        payload: The pickle.
        modules: Bundle of the user's modules that unpickling it needs.
    """

    name: str
    key: str
    payload: Payload
    modules: BlobRef | None = None


@dataclass(eq=False, slots=True)
class Call:
    """One `fn(*args, **kwargs)` that the user asked for.

    Attributes:
        seq: Number within the job, from 0. A retry after the user's own exception has a new one.
        future: What the user holds.
        function: What is called.
        name: How messages name it.
        arguments: Payload of `(args, kwargs)`.
        modules: Bundle of the user's modules that the function or the arguments need.
        retries_left: Further attempts if it raises.
        shared_from_bytes: See `WireCall`.
        environment: Environment variables to set while it runs.
    """

    seq: int
    future: Future[Any]
    function: Function
    name: str
    arguments: Payload
    modules: BlobRef | None = None
    retries_left: int = 0
    shared_from_bytes: int = 0
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"call {self.seq} ({self.name})"

    @property
    def size(self) -> int:
        """Inline bytes of its arguments."""
        return inline_size(self.arguments)

    def fits_with(self, other: Call) -> bool:
        """Whether both can travel in one invocation."""
        same = self.function.key == other.function.key and self.environment == other.environment
        return same and self.modules == other.modules


@dataclass(eq=False, slots=True)
class Group:
    """Calls that travel in one invocation; they stay together through its attempts unless it has to be split.

    Attributes:
        calls: In the order in which they run.
        attempt: 1 for the first.
    """

    calls: list[Call]
    attempt: int = 1

    @property
    def first_seq(self) -> int:
        """Number of the first call, which names the object its outcomes are committed to."""
        return self.calls[0].seq

    @property
    def label(self) -> str:
        """How messages name it."""
        rest = len(self.calls) - 1
        return self.calls[0].label + (f" and {rest} more" if rest else "")
