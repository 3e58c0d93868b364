"""Two thousand trivial calls through `map` and through joblib, beside loky and a dask cluster in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable

import joblib
from _shared import quantile, show
from dask.distributed import Client, LocalCluster

import wren_backends

CALLS, ROUNDS, WORKERS = 2000, 5, 2


def same(value: int) -> int:
    """The least that a call can do."""
    return value


def best(step: Callable[[], list[int]]) -> float:
    """Median seconds of `step` over the rounds, after one that warms up."""
    taken = []
    for _ in range(ROUNDS + 1):
        begun = time.perf_counter()
        assert step() == list(range(CALLS))
        taken.append(time.perf_counter() - begun)
    return quantile(taken[1:], 0.5)


def through_joblib(backend: str) -> float:
    """Joblib's `Parallel` on one of its backends."""
    with joblib.parallel_config(backend=backend, n_jobs=WORKERS):
        return best(lambda: joblib.Parallel()(joblib.delayed(same)(number) for number in range(CALLS)))


def main() -> None:
    """Print the table."""
    found: dict[str, float] = {}
    with wren_backends.WrenExecutor(WORKERS) as executor:
        found["WrenExecutor.map"] = best(lambda: list(executor.map(same, range(CALLS))))
    loky = joblib.externals.loky.get_reusable_executor(WORKERS)
    found["loky executor.map"] = best(lambda: list(loky.map(same, range(CALLS))))
    loky.shutdown(wait=True)
    found["joblib on wren"] = through_joblib("wren")
    found["joblib on loky"] = through_joblib("loky")
    cluster = LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:
        futures = client.get_executor(pure=False)
        found["dask cluster's executor.map"] = best(lambda: list(futures.map(same, range(CALLS))))
        found["joblib on the dask cluster"] = through_joblib("dask")
    peers = {name: found["joblib on wren" if name.startswith("joblib") else "WrenExecutor.map"] for name in found}
    rows = [
        (name, f"{seconds * 1000:.0f} ms", f"{CALLS / seconds:,.0f}", f"{seconds / peers[name]:.2f}")
        for name, seconds in found.items()
    ]
    show(
        f"{CALLS} trivial calls on {WORKERS} workers, median of {ROUNDS}",
        ("how", "wall", "calls/s", "times wren's wall"),
        rows,
    )


if __name__ == "__main__":
    main()
