"""Where and for how long a call ran, left on its future for adapters that tell their users."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from lambda_worker.protocol import Frame, Outcome

_ATTRIBUTE = "_wren_origin"


@dataclass(frozen=True, slots=True)
class Origin:
    """What an outcome says of itself beside the value.

    Attributes:
        request_id: AWS request id of the invocation.
        log_stream: CloudWatch log stream of the execution environment.
        environment_id: Name of the execution environment, new at each cold start.
        was_cold: Whether the environment had run no event before.
        seconds: Wall time of the call in the worker.
        cpu_s: CPU time of the worker's process during the call.
        rss_bytes: Peak resident memory of the worker's process so far.
        stdout: What the call printed, bounded.
        stderr: What it printed to standard error, bounded.
    """

    request_id: str
    log_stream: str
    environment_id: str
    was_cold: bool
    seconds: float
    cpu_s: float
    rss_bytes: int
    stdout: str
    stderr: str


def leave_origin(future: Future[Any], outcome: Outcome, frame: Frame) -> None:
    """Note on a future where its outcome came from; to be done before the future ends."""
    origin = Origin(
        request_id=frame.request_id,
        log_stream=frame.log_stream,
        environment_id=frame.environment_id,
        was_cold=frame.events_before == 0,
        seconds=outcome.seconds,
        cpu_s=outcome.cpu_s,
        rss_bytes=frame.rss_bytes,
        stdout=outcome.stdout,
        stderr=outcome.stderr,
    )
    keep_origin(future, origin)


def keep_origin(future: Future[Any], origin: Origin | None) -> None:
    """Note on a future what another one of the same call knows."""
    setattr(future, _ATTRIBUTE, origin)


def origin_of(future: Future[Any]) -> Origin | None:
    """Where the outcome of a future came from; None if there is none, or it never came from a worker."""
    found = getattr(future, _ATTRIBUTE, None)
    return found if isinstance(found, Origin) else None
