"""PyWren's second benchmark: how quickly execution environments write to S3 and read from it, in MB/s for each.

It prints a table and writes a plot. Without an AWS configuration it runs on the local cloud, whose S3 server writes to
this machine's disk. `python examples/pywren_s3_bandwidth.py --help`.
"""

from __future__ import annotations

import os
import time
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from lambda_worker.objects import ObjectStore
from wren_backends import pywren
from wren_backends.jobs import delete_jobs


def transfer(task: tuple[str, str, str, int]) -> tuple[float, float, float]:
    """Write an object, and read it again; returns when that began, when it was written, and when read.

    Args:
        task: Bucket, prefix and key of the object, and its size in bytes.
    """
    bucket, prefix, key, size_bytes = task
    region, url = os.environ.get("AWS_REGION", "us-east-1"), os.environ.get("AWS_ENDPOINT_URL_S3")
    store = ObjectStore.open_s3(bucket, prefix, region=region, endpoint_url=url)
    data = np.random.default_rng().bytes(size_bytes)
    began = time.time()
    store.create(key, data)
    written = time.time()
    if len(store.get(key)) != size_bytes:
        raise OSError(f"{key} came back shorter than it was written")
    return began, written, time.time()


@click.command()
@click.option("--calls", default=8, show_default=True, help="How many calls; each has an object of its own.")
@click.option("--size-mb", default=16, show_default=True, help="Size of each object.")
@click.option("--plot", default="pywren_s3_bandwidth.svg", show_default=True, help="File for the plot: SVG or PNG.")
def main(calls: int, size_mb: int, plot: str) -> None:
    """Run the benchmark, print a table, write a plot and delete the objects."""
    # One call in an invocation, so that each is an environment's own transfer.
    with pywren.default_executor(calls_per_invocation=1) as executor:
        wren = executor.invoker.executor
        connection, folder = wren.connection, f"jobs/{wren.job_id}/data"  # where a worker may write
        place = connection.bucket, connection.prefix
        tasks = [(*place, f"{folder}/bandwidth-{number}", size_mb * 1_000_000) for number in range(calls)]
        futures = executor.map(transfer, tasks)
        runs = np.array(pywren.get_all_results(futures))
    delete_jobs(connection, [wren.job_id])

    environments = len({future.run_status["environment_id"] for future in futures})
    where = "the local cloud" if connection.is_local else f"AWS, {connection.region}"
    table = Table("", "slowest call", "median", "quickest", "all together", title=f"S3 on {where}, in MB/s")
    speeds = {}
    for name, began, ended in (("write", runs[:, 0], runs[:, 1]), ("read", runs[:, 1], runs[:, 2])):
        each = speeds[name] = np.sort(size_mb / (ended - began))
        together = calls * size_mb / (ended.max() - began.min())
        table.add_row(name, *(f"{one:.0f}" for one in (each[0], np.median(each), each[-1], together)))
    Console().print(table)
    print(f"{calls} calls of {size_mb} MB on {environments} execution environments.")
    if connection.is_local:
        print(f"They share this machine's {os.cpu_count()} CPUs and its disk with the S3 server.")
    draw(plot, speeds, where)
    print(f"plot: {plot}")


def draw(plot: str, speeds: dict[str, Any], where: str) -> None:
    """Write the plot: how many calls were how quick."""
    import matplotlib as mpl

    mpl.use("Agg")  # no display is needed
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for name, each in speeds.items():
        axes.step(each, np.arange(1, len(each) + 1), where="post", label=name, marker=".")
    axes.set(xlabel="MB/s", ylabel="calls at most as quick", title=f"S3 on {where}, by call", ylim=(0, None))
    axes.legend()
    figure.savefig(plot)


if __name__ == "__main__":
    main()
