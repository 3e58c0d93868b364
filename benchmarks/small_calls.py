"""Small calls one after the other: latency, S3 requests and worker CPU for each, and how long a worker starts."""

from __future__ import annotations

import subprocess
import sys
import time

from _shared import quantile, show

from wren_backends import WrenExecutor, measure

CALLS = 1000


def same(value: int) -> int:
    """The least that a call can do."""
    return value


def worker_start_ms() -> float:
    """Import of the handler in a fresh interpreter, less the interpreter's own start; the best of five."""
    code = "import time; t = time.perf_counter(); import lambda_worker.handler; print(time.perf_counter() - t)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, check=True) for _ in range(5)]
    return min(float(run.stdout) for run in runs) * 1000


def main() -> None:
    """Print the table."""
    with WrenExecutor(max_workers=1) as executor:
        executor.submit(same, 0).result()  # uploads nothing, but starts the environment
        latencies, before = [], dict(executor.journal.counts)
        with measure() as report:
            for number in range(CALLS):
                begun = time.perf_counter()
                executor.submit(same, number).result()
                latencies.append((time.perf_counter() - begun) * 1000)
        # CPU of the worker's whole process while it serves: read there, by calls that are themselves measured
        cpu_before = executor.submit(time.process_time).result()
        for number in range(CALLS):
            executor.submit(same, number).result()
        cpu_ms = (executor.submit(time.process_time).result() - cpu_before) / CALLS * 1000
        client = executor.journal.counts["bytes.sent"] - before["bytes.sent"]
    rows = [
        ("warm round trip, median", f"{quantile(latencies, 0.5):.2f} ms", "< 5 ms"),
        ("warm round trip, 95%", f"{quantile(latencies, 0.95):.2f} ms", ""),
        ("S3 requests, counted at the S3 server", f"{sum(report.s3_requests.values())} for {CALLS} calls", "0"),
        ("bytes sent for each call", f"{client / (2 * CALLS + 2):.0f}", ""),
        ("worker CPU for each call", f"{cpu_ms:.2f} ms", "< 5 ms"),
        ("worker start (import of the handler)", f"{worker_start_ms():.0f} ms", "< 150 ms"),
    ]
    show(f"{CALLS} trivial calls, one at a time", ("what", "measured", "goal"), rows)


if __name__ == "__main__":
    main()
