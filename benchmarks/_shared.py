"""What the benchmark scripts share: AWS-like latencies, quantiles, a table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

LATENCIES = {"s3_latency_ms": 15.0, "invoke_latency_ms": 20.0, "cold_latency_ms": 400.0}
"""Of AWS in one region, as options of the local cloud."""


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of `values` lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    table = Table(*header, title=title)
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=110).print(table)
