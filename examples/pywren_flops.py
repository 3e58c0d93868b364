"""PyWren's first benchmark: how many GFLOPS many matrix products on Lambda come to.

It prints a table and writes a plot. Without an AWS configuration it runs on the local cloud, which has this machine's
CPUs and no more. `python examples/pywren_flops.py --help`.
"""

from __future__ import annotations

import os
import time
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from wren_backends import pywren


def multiply(task: tuple[int, int]) -> tuple[float, float]:
    """Multiply two matrices a few times; returns when that began and ended, by the worker's clock.

    Args:
        task: Rows of the matrices, and how often.
    """
    size, loops = task
    left, right = np.random.default_rng().random((2, size, size))
    left @ right  # the first one loads what the others use
    began = time.time()
    for _ in range(loops):
        left @ right
    return began, time.time()


def rates(runs: list[tuple[float, float]], flop: float) -> tuple[np.ndarray, np.ndarray]:
    """When calls began or ended, and what GFLOPS those that ran from then on came to together."""
    changes = sorted(
        change
        for began, ended in runs
        for change in ((began, flop / (ended - began) / 1e9), (ended, -flop / (ended - began) / 1e9))
    )
    times, steps = zip(*changes, strict=True)
    return np.array(times), np.cumsum(steps)


@click.command()
@click.option("--calls", default=20, show_default=True, help="How many calls.")
@click.option("--size", default=768, show_default=True, help="Rows of the matrices.")
@click.option("--loops", default=8, show_default=True, help="Products in each call.")
@click.option("--plot", default="pywren_flops.svg", show_default=True, help="File for the plot: SVG or PNG.")
def main(calls: int, size: int, loops: int, plot: str) -> None:
    """Run the benchmark, print a table and write a plot."""
    executor = pywren.default_executor()
    connection = executor.invoker.executor.connection
    flop = 2.0 * size**3 * loops  # a multiplication and an addition for each element of each sum
    futures = executor.map(multiply, [(size, loops)] * calls)
    runs = pywren.get_all_results(futures)
    sent = min(future.invoke_status["host_submit_time"] for future in futures)
    done = max(future.invoke_status["status_done_timestamp"] for future in futures)
    environments = {future.run_status["environment_id"] for future in futures}
    times, total = rates(runs, flop)
    each = sorted(flop / (ended - began) / 1e9 for began, ended in runs)

    where = "the local cloud" if connection.is_local else f"AWS, {connection.region}"
    table = Table(title=f"Matrix products on {where}", show_header=False)
    table.add_row("calls", f"{calls} of {loops} products of {size} x {size}, on {len(environments)} environments")
    table.add_row("one call", f"{each[0]:.1f} to {each[-1]:.1f} GFLOPS, median {each[len(each) // 2]:.1f}")
    table.add_row("peak", f"{total.max():.1f} GFLOPS: the most that ran at once")
    table.add_row("effective", f"{calls * flop / (done - sent) / 1e9:.1f} GFLOPS: all work by all time, start included")
    table.add_row("time", f"{done - sent:.2f} s from the first call sent to the last result here")
    Console().print(table)
    if connection.is_local:
        print(
            f"{connection.max_workers} environments share this machine's {os.cpu_count()} CPUs with all that runs here."
        )
    draw(plot, times - sent, total, [(began - sent, ended - sent) for began, ended in sorted(runs)], where)
    print(f"plot: {plot}")


def draw(plot: str, times: Any, total: Any, runs: list[tuple[float, float]], where: str) -> None:
    """Write the plot: GFLOPS over time, and when each call ran."""
    import matplotlib as mpl

    mpl.use("Agg")  # no display is needed
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, sharex=True, figsize=(7, 6), layout="constrained")
    above.step(times, total, where="post")
    above.set(ylabel="GFLOPS", title=f"Matrix products on {where}")
    below.barh(range(len(runs)), [ended - began for began, ended in runs], left=[began for began, _ in runs])
    below.locator_params(axis="y", integer=True)
    below.set(xlabel="seconds since the first call was sent", ylabel="call")
    figure.savefig(plot)


if __name__ == "__main__":
    main()
