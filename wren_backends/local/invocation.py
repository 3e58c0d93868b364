"""One attempt to run a function, what becomes of it, and how AWS words the ways in which it can end."""

from __future__ import annotations

import asyncio
import base64
import json
import math
from dataclasses import dataclass, field

_TAIL_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an invocation ended.

    Attributes:
        payload: What the handler returned, or the error as JSON.
        failed: Whether it is an error (X-Amz-Function-Error).
        version: The version that ran.
    """

    payload: bytes
    failed: bool
    version: str


@dataclass(eq=False, slots=True)
class Invocation:
    """One attempt; lives from its admission until its outcome."""

    request_id: str
    event: bytes
    arn: str
    client_context: str
    outcome: asyncio.Future[Outcome]
    started: float = 0.0
    _tail: bytearray = field(default_factory=bytearray)

    def log(self, data: bytes) -> None:
        """Remember output for the log tail."""
        self._tail += data
        if len(self._tail) > 16 * _TAIL_BYTES:
            del self._tail[:-_TAIL_BYTES]

    def log_tail(self) -> str:
        """Return the last 4 KB of the log, as X-Amz-Log-Result carries them."""
        return base64.b64encode(self._tail[-_TAIL_BYTES:]).decode()


def error_payload(error_type: str, text: str) -> bytes:
    """Return the JSON of an error that Lambda itself reports."""
    return json.dumps({"errorType": error_type, "errorMessage": text}, separators=(",", ":")).encode()


def timed_out(request_id: str, timeout_s: float) -> bytes:
    """The function ran longer than its timeout."""
    return error_payload(
        "Sandbox.Timedout", f"RequestId: {request_id} Error: Task timed out after {timeout_s:.2f} seconds"
    )


def out_of_memory(request_id: str, peak_mb: int) -> bytes:
    """The function used more memory than it has; AWS has the same words without the peak."""
    text = f"RequestId: {request_id} Error: Runtime exited with error: signal: killed, at {peak_mb} MB"
    return error_payload("Runtime.OutOfMemory", text)


def exited(request_id: str, wait_status: int) -> bytes:
    """The runtime's process ended by itself."""
    return error_payload("Runtime.ExitError", f"RequestId: {request_id} Error: {describe_exit(wait_status)}")


def response_too_large() -> bytes:
    """The function returned more than 6 MB."""
    text = "Response payload size exceeded maximum allowed payload size (6291556 bytes)."
    return error_payload("Function.ResponseSizeTooLarge", text)


# As the Go runtime, in which Lambda's own supervisor is written, words signals.
_SIGNALS = {
    1: "hangup",
    2: "interrupt",
    3: "quit",
    4: "illegal instruction",
    5: "trace/breakpoint trap",
    6: "aborted",
    7: "bus error",
    8: "floating point exception",
    9: "killed",
    11: "segmentation fault",
    13: "broken pipe",
    14: "alarm clock",
    15: "terminated",
}


def describe_exit(wait_status: int) -> str:
    """Word the end of a process as Lambda does."""
    signal_number = wait_status & 0x7F
    if signal_number:
        return f"Runtime exited with error: signal: {_SIGNALS.get(signal_number, f'signal {signal_number}')}"
    code = wait_status >> 8
    return f"Runtime exited with error: exit status {code}" if code else "Runtime exited without providing a reason"


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one REPORT line."""

    duration_ms: float
    init_ms: float | None
    memory_mb: int
    used_mb: int
    ending: str = ""

    @property
    def billed_ms(self) -> int:
        """Milliseconds billed; since August 2025 the init phase is billed too."""
        return math.ceil(self.duration_ms + (self.init_ms or 0.0))

    def line(self, request_id: str) -> str:
        """Return the line as CloudWatch shows it."""
        parts = [
            f"REPORT RequestId: {request_id}",
            f"Duration: {self.duration_ms:.2f} ms",
            f"Billed Duration: {self.billed_ms} ms",
            f"Memory Size: {self.memory_mb} MB",
            f"Max Memory Used: {self.used_mb} MB",
        ]
        if self.init_ms is not None:
            parts.append(f"Init Duration: {self.init_ms:.2f} ms")
        if self.ending:
            parts.append(self.ending)
        return "\t".join(parts) + "\t"
