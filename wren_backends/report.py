"""What a piece of work took: calls, invocations, requests, time, and what the same would cost on AWS."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from wren_backends import connection
from wren_backends.events import PROCESS

LAMBDA_USD_PER_GB_S = 0.0000166667
"""x86, first tier, us-east-1 (https://aws.amazon.com/lambda/pricing/, 2025)."""
LAMBDA_USD_PER_INVOCATION = 0.20 / 1e6
S3_USD_PER_WRITE = 0.005 / 1e3
"""PUT, COPY, POST and LIST, us-east-1 (https://aws.amazon.com/s3/pricing/, 2025)."""
S3_USD_PER_READ = 0.0004 / 1e3

_S3_WRITES = frozenset({"PUT", "POST", "LIST"})
_S3_READS = frozenset({"GET", "HEAD"})


@dataclass
class Report:
    """Figures of a piece of work; complete once the `measure` context has ended.

    Attributes:
        wall_s: Seconds from its start to its end.
        calls: Calls that ended.
        invocations: Invocations started; fewer than calls where waiting calls travelled together.
        retries: Invocations that were sent again.
        backups: Second attempts at stragglers, beside the first.
        cold_starts: Execution environments that served their first event.
        call_s: Seconds that calls ran in workers, summed.
        billed_s: Seconds that Lambda bills: the local cloud's own figure, on AWS an estimate from the calls' time.
        s3_requests: Requests to S3 by verb: the local cloud's S3 counts them, on AWS client and workers do.
        sent_bytes: Bytes of events.
        memory_mb: Memory of the function.
    """

    wall_s: float = 0.0
    calls: int = 0
    invocations: int = 0
    retries: int = 0
    backups: int = 0
    cold_starts: int = 0
    call_s: float = 0.0
    billed_s: float = 0.0
    s3_requests: Mapping[str, int] = field(default_factory=dict)
    sent_bytes: int = 0
    memory_mb: int = 0

    @property
    def aws_usd(self) -> float:
        """What it costs on AWS in US dollars: compute, invocations, S3 requests; not storage and transfer."""
        compute = self.billed_s * self.memory_mb / 1024 * LAMBDA_USD_PER_GB_S
        writes = sum(count for verb, count in self.s3_requests.items() if verb in _S3_WRITES)
        reads = sum(count for verb, count in self.s3_requests.items() if verb in _S3_READS)
        requests = writes * S3_USD_PER_WRITE + reads * S3_USD_PER_READ
        return compute + self.invocations * LAMBDA_USD_PER_INVOCATION + requests

    def rows(self) -> list[tuple[str, str]]:
        """Names and values, for a table."""
        s3 = ", ".join(f"{verb} {count}" for verb, count in sorted(self.s3_requests.items()) if count)
        return [
            ("wall time", f"{self.wall_s:.2f} s"),
            ("calls", f"{self.calls:,}"),
            ("invocations", f"{self.invocations:,}"),
            ("backups of stragglers", f"{self.backups:,}"),
            ("cold starts", f"{self.cold_starts:,}"),
            ("compute in workers", f"{self.call_s:.2f} s"),
            ("S3 requests", f"{sum(self.s3_requests.values()):,}" + (f" ({s3})" if s3 else "")),
            ("the same on AWS", f"${self.aws_usd:.6f} ({self.memory_mb} MB, us-east-1)"),
        ]

    def __str__(self) -> str:
        return "\n".join(f"{name:>21}  {value}" for name, value in self.rows())


@contextmanager
def measure() -> Iterator[Report]:
    """Measure everything that this process's executors do in the context.

    Yields:
        A report that is filled in when the context ends.
    """
    report = Report()
    counts, servers, begun = dict(PROCESS.counts), _server_stats(), time.perf_counter()
    try:
        yield report
    finally:
        report.wall_s = time.perf_counter() - begun
        _fill(report, _difference(PROCESS.counts, counts), servers, _server_stats())


def _fill(
    report: Report, counts: Mapping[str, float], before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> None:
    report.calls = int(counts.get("call.finished", 0) + counts.get("call.failed", 0))
    report.invocations = int(counts.get("invocation.started", 0))
    report.retries = int(counts.get("invocation.refused", 0) + counts.get("invocation.retried", 0))
    report.backups = int(counts.get("backup.started", 0))
    report.cold_starts = int(counts.get("environment.cold_started", 0))
    report.call_s = counts.get("call.seconds", 0.0)
    report.sent_bytes = int(counts.get("bytes.sent", 0))
    used = connection.used()
    report.memory_mb = used[-1].memory_mb if used else 0
    if after is not None:
        before = before or {"s3": {}, "lambda": {"billed_ms": 0}}
        report.s3_requests = _s3_difference(after, before)
        report.billed_s = (after["lambda"]["billed_ms"] - before["lambda"]["billed_ms"]) / 1000
    else:
        report.s3_requests = {n.rsplit(".", 1)[1]: int(c) for n, c in counts.items() if n.startswith("s3.")}
        report.billed_s = report.call_s + 0.001 * report.invocations


def _s3_difference(after: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, int]:
    found = _difference(after["s3"], before["s3"])
    return {verb: int(count) for verb, count in found.items() if verb != "total" and count}


def _difference(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    return {name: value - before.get(name, 0) for name, value in after.items()}


def _server_stats() -> dict[str, Any] | None:
    """Counts of the local cloud, if this process uses one."""
    asks = [one.stats for one in connection.used() if one.stats is not None]
    return asks[-1]() if asks else None
