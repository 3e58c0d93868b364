"""What is there against what is wanted, as a list of steps: the dry run, the summary and the execution are this one.

A step is about one resource and holds the requests that make it what it is to be; none, if it is that already. Nothing
here asks or changes anything: the modules beside this one look, and `carry_out` sends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

_PAUSE_S = 2.0

State = Literal["create", "update", "unchanged", "delete", "keep"]


@dataclass(frozen=True)
class Change:
    """One request that changes something.

    Attributes:
        says: What it changes, in a few words: `memory 128 -> 1769 MB`; empty for what is of no interest.
        service: boto3's name of the service, or of what stands for one in `Parts`.
        operation: boto3's name of the operation.
        parameters: Its parameters; never shown, as secrets and packages are among them.
        waiter: boto3's name of what has to be waited for afterwards.
        harmless: Codes of errors that mean that it has been done already.
        refusals: Texts of refusals that pass by themselves: Lambda hears of a new role within a minute.
        undo: What to send when AWS has refused it for good: it has not been done then.
    """

    says: str
    service: str
    operation: str
    parameters: Mapping[str, Any] = field(repr=False)
    waiter: str = ""
    harmless: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    undo: Change | None = None


@dataclass(frozen=True)
class Step:
    """One resource.

    Attributes:
        what: Its kind: `bucket`, `role`, ...
        name: Its name.
        state: What becomes of it.
        changes: The requests that do it.
        notes: What else there is to be known of it.
    """

    what: str
    name: str
    state: State
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()

    def shown(self) -> dict[str, Any]:
        """What may be printed of it."""
        return {
            "what": self.what,
            "name": self.name,
            "state": self.state,
            "changes": [one.says for one in self.changes if one.says],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Plan:
    """The steps, in the order in which they are taken."""

    steps: tuple[Step, ...]

    @property
    def changes(self) -> list[Change]:
        """All requests that would be sent."""
        return [change for step in self.steps for change in step.changes]


def brought_up_to_date(
    what: str, name: str, *, exists: bool, changes: Iterable[Change], notes: Iterable[str] = ()
) -> Step:
    """The step of a resource that is to be there."""
    listed = tuple(changes)
    state: State = "unchanged" if not listed else "update" if exists else "create"
    return Step(what, name, state, listed, tuple(notes))


class Parts(Protocol):
    """Gives a boto3 client, or what stands for one, by name."""

    def __getitem__(self, service: str) -> Any: ...


def carry_out(
    step: Step, parts: Parts, *, patience_s: float = 0.0, before: Callable[[Change], None] | None = None
) -> None:
    """Send the requests of a step.

    Args:
        step: The step.
        parts: The clients.
        patience_s: How long a request is sent again that meets one of its passing refusals, in seconds.
        before: Called with each change before it is made.

    Raises:
        botocore.exceptions.ClientError: AWS refuses.
    """
    for change in step.changes:
        if before is not None:
            before(change)
        try:
            send(change, parts, patience_s)
        except Exception as error:
            if change.undo is not None and _is_refusal(error):
                send(change.undo, parts)
            raise


def send(change: Change, parts: Parts, patience_s: float = 0.0) -> Any:
    """Send one request, wait until it has taken effect, and return what was answered."""
    client = parts[change.service]
    deadline = time.monotonic() + patience_s
    while True:
        try:
            answer = getattr(client, change.operation)(**change.parameters)
            break
        except Exception as error:
            if _code(error) in change.harmless:
                answer = None
                break
            passing = any(text in str(error) for text in change.refusals)
            if not passing or time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE_S)
    if change.waiter:
        waiting = {"Delay": 1, "MaxAttempts": 300}
        client.get_waiter(change.waiter).wait(FunctionName=change.parameters["FunctionName"], WaiterConfig=waiting)
    return answer


def _code(error: Exception) -> str:
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def _is_refusal(error: Exception) -> bool:
    """Whether the service has said no. A broken connection or a 5xx leaves open what was done."""
    status = getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return 400 <= int(status) < 500
