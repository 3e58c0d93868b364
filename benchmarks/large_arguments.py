"""One 100 MB array passed to 200 calls: what is hashed, uploaded and fetched, through joblib and through `submit`."""

from __future__ import annotations

import time

import joblib
import numpy as np
from _shared import show

import wren_backends
from lambda_worker import codec

CALLS, BYTES = 200, 100_000_000


def first(array: np.ndarray) -> float:
    """Touches the array without reading all of it."""
    return float(array[0])


def main() -> None:
    """Print the table."""
    array = np.random.default_rng(0).random(BYTES // 8)
    begun = time.perf_counter()
    codec.digest(memoryview(array).cast("B"))
    rows = [("hash it once (BLAKE3)", f"{(time.perf_counter() - begun) * 1000:.0f} ms", "", "")]

    def row(name: str, report: wren_backends.Report) -> None:
        s3 = ", ".join(f"{verb} {count}" for verb, count in sorted(report.s3_requests.items()))
        rows.append((name, f"{report.wall_s:.2f} s", s3, f"{report.sent_bytes / CALLS:.0f}"))

    with wren_backends.WrenExecutor(2) as executor:
        executor.submit(first, array[:1]).result()
        with wren_backends.measure() as report:
            begun = time.perf_counter()
            futures = [executor.submit(first, array) for _ in range(CALLS)]
            submitting = time.perf_counter() - begun
            assert [future.result() for future in futures] == [array[0]] * CALLS
        row(f"{CALLS} submits", report)
        rows.append(("... of which submit() itself", f"{submitting / CALLS * 1000:.1f} ms each", "", ""))
        with wren_backends.measure() as report:
            before = executor.submit(first, array)
            array[0] += 1
            after = executor.submit(first, array)
            assert after.result() == before.result() + 1, "the second submit has to see the change"
        row("changed between two submits", report)
    array[0] += 1  # new content, so that nothing is in the bucket yet
    with wren_backends.measure() as report, joblib.parallel_config(backend="wren", n_jobs=2):
        found = joblib.Parallel()(joblib.delayed(first)(array) for _ in range(CALLS))
        assert found == [array[0]] * CALLS
    row(f"joblib, {CALLS} calls", report)
    show(f"One {BYTES // 10**6} MB array", ("what", "time", "S3 requests at the server", "event bytes per call"), rows)


if __name__ == "__main__":
    main()
