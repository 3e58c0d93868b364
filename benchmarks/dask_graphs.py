"""Dask graphs on `wren_get`, beside the executor as dask's scheduler, a dask cluster and threads, in the same run.

    python benchmarks/dask_graphs.py [--full] [--latency] [--ways N] [GRAPH...]

The executor as a scheduler is dask's own `get_async`: every intermediate value passes through the client. Bytes through
the client are those of events, replies, uploads and fetches. S3 requests are counted by the local cloud's S3 server.
With `--latency` the local cloud waits as AWS does: 15 ms for S3, 20 ms for a warm Invoke, 400 ms for a cold start, with
64 environments. These are started before a graph begins, or the first way would pay for all of them: on two cores, in
seconds, and in backups of calls that seem to hang. Each way has a local cloud of its own, as environments keep what
they have seen in their memory, and all are on this machine. `--full` takes the sizes that are worth a quiet one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
from _shared import LATENCIES, show
from dask.distributed import Client, LocalCluster

from wren_backends import WrenExecutor, wren_get
from wren_backends.local import cloud as local_cloud
from wren_backends.local.options import CloudOptions

WORKERS, WORKERS_THAT_SLEEP = 2, 64
MEMORY_MB = {WORKERS: 1769, WORKERS_THAT_SLEEP: 1024}
"""Of one environment, which keeps what it made and fetched in a quarter of it: all of them are on this machine."""
WARMING_S = 0.5
"""So long each environment sleeps before a graph, which is as long as others need to start."""


def tree(leaves: int) -> Any:
    """A tree reduction: pairs of numbers are added until one is left."""
    level = [dask.delayed(float, pure=False)(number) for number in range(leaves)]
    add = dask.delayed(lambda a, b: a + b, pure=False)
    while len(level) > 1:
        level = [add(*pair) for pair in zip(level[::2], level[1::2], strict=True)]
    return level[0]


def overlap(side: int) -> Any:
    """A stencil over an array in 16 blocks, each of which needs the rims of its neighbours."""
    blocks = da.random.default_rng(0).random((side, side), chunks=side // 4)
    smooth = blocks.map_overlap(lambda a: (a + np.roll(a, 1, 0) + np.roll(a, 1, 1)) / 3, depth=1, boundary="periodic")
    return smooth.map_overlap(lambda a: a - a.mean(), depth=1, boundary="periodic").std()


def shuffle(rows: int) -> Any:
    """A shuffle of a frame in 8 partitions that is made where it is shuffled, then a groupby."""

    def make(number: int) -> pd.DataFrame:
        rng = np.random.default_rng(number)
        return pd.DataFrame({"key": rng.integers(0, 1000, rows // 8), "value": rng.random(rows // 8)})

    meta = pd.DataFrame({"key": np.array([], "int64"), "value": np.array([], "float64")})
    frame = dd.from_map(make, range(8), meta=meta).shuffle("key")
    return frame.map_partitions(lambda part: part.groupby("key").value.mean().to_frame()).value.sum()


def tiny(tasks: int) -> Any:
    """Tasks that do next to nothing, none of which needs another."""
    nothing = dask.delayed(int, pure=False)
    return dask.delayed(sum)([nothing(number) for number in range(tasks)])


def cholesky(side: int) -> Any:
    """The Cholesky factor of a matrix in 4 by 4 blocks, numpywren's case; its trace comes home."""
    blocks = da.random.default_rng(0).random((side, side), chunks=side // 4)
    positive = blocks @ blocks.T + side * da.eye(side, chunks=side // 4)
    return da.trace(da.linalg.cholesky(positive))


GRAPHS: dict[str, tuple[Callable[[int], Any], int, int]] = {
    "tree": (tree, 128, 1024),
    "overlap": (overlap, 1200, 8000),
    "shuffle": (shuffle, 200_000, 8_000_000),
    "tiny": (tiny, 500, 5000),
    "cholesky": (cholesky, 800, 4000),
}
"""How each is made, and its size here and with `--full`."""


@dataclass
class Figures:
    """What one way of computing one graph took."""

    wall_s: float
    client_bytes: int | None = None
    s3_requests: int | None = None
    invocations: int | None = None
    value: float = 0.0

    def row(self, graph: str, how: str) -> tuple[str, ...]:
        """Cells of the table."""
        megabytes = "" if self.client_bytes is None else f"{self.client_bytes / 1e6:.2f}"
        counts = ("" if one is None else f"{one:,}" for one in (self.s3_requests, self.invocations))
        return graph, how, f"{self.wall_s:.2f}", megabytes, *counts


def on_wren(options: CloudOptions, scheduler: Callable[[WrenExecutor], dict[str, Any]]) -> Callable[[Any], Figures]:
    """A way that uses a `WrenExecutor`: an executor and a cloud for each graph, whose figures are then its own."""
    workers = WORKERS_THAT_SLEEP if options.s3_latency_ms else WORKERS

    def run(graph: Any) -> Figures:
        local_cloud.start_private(options)
        try:
            return on_this_cloud(graph)
        finally:
            local_cloud.stop_private()

    def on_this_cloud(graph: Any) -> Figures:
        with WrenExecutor(workers, memory_mb=MEMORY_MB[workers]) as executor:
            list(executor.map(time.sleep, [WARMING_S] * workers))
            before, requests = dict(executor.journal.counts), _s3_requests(executor)
            figures = timed(graph, **scheduler(executor))
        grown = {name: count - before.get(name, 0) for name, count in executor.journal.counts.items()}
        figures.client_bytes = int(sum(grown.get(f"bytes.{way}", 0) for way in ("sent", "received", "uploaded")))
        figures.s3_requests = _s3_requests(executor) - requests
        figures.invocations = int(grown.get("invocation.started", 0))
        return figures

    return run


def _s3_requests(executor: WrenExecutor) -> int:
    stats = executor.connection.stats
    return int(stats()["s3"]["total"]) if stats is not None else 0


def timed(graph: Any, **options: Any) -> Figures:
    """Compute a graph."""
    begun = time.perf_counter()
    value = graph.compute(**options)
    return Figures(time.perf_counter() - begun, value=float(value))


@contextmanager
def ways(options: CloudOptions) -> Iterator[dict[str, Callable[[Any], Figures]]]:
    """The ways that are compared, the library's own first."""
    cluster = LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster, set_as_default=False) as client:
        yield {
            "wren_get": on_wren(options, lambda executor: {"scheduler": wren_get, "executor": executor}),
            "the same again": on_wren(options, lambda executor: {"scheduler": wren_get, "executor": executor}),
            "scheduler=WrenExecutor": on_wren(options, lambda executor: {"scheduler": executor}),
            "LocalCluster": lambda graph: timed(graph, scheduler=client),
            "threads": lambda graph: timed(graph, scheduler="threads", num_workers=WORKERS),
        }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("graphs", nargs="*", choices=[[], *GRAPHS], default=[], help="default: all")
    parser.add_argument("--full", action="store_true", help="the large sizes")
    parser.add_argument("--latency", action="store_true", help="wait as AWS does")
    parser.add_argument("--ways", type=int, help="only so many of the ways, the library's own first; default: all")
    asked = parser.parse_args()
    options = CloudOptions(**LATENCIES if asked.latency else {})
    rows = []
    with ways(options) as found, dask.config.set({"dataframe.shuffle.method": "tasks"}):
        for name in asked.graphs or GRAPHS:
            make, small, large = GRAPHS[name]
            graph, values = make(large if asked.full else small), []
            for how, compute in islice(found.items(), asked.ways):
                figures = compute(graph)
                values.append(figures.value)
                rows.append(figures.row(name, how))
                print(*rows[-1], sep="  ", file=sys.stderr)  # the large ones take minutes
            np.testing.assert_allclose(values, values[0])
    latency = f"AWS-like latencies, {WORKERS_THAT_SLEEP}" if asked.latency else f"no added latency, {WORKERS}"
    header = ("graph", "how", "wall s", "MB through client", "S3 requests", "invocations")
    show(f"dask graphs, {latency} environments", header, rows)


if __name__ == "__main__":
    main()
