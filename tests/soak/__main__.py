"""`make soak`: runs the soak in both modes and prints what was done to it, how fast it was and what memory it took."""

import argparse
import sys

from rich.console import Console
from rich.table import Table

from .soak import FAULTS, Report, run

GROWTH_LIMIT_MB = 24.0
"""Of the client's memory between the third wave of calls and the last one."""


def main():
    """Return how many of the soaks went wrong."""
    parser = argparse.ArgumentParser(prog="python -m soak")
    parser.add_argument("--calls", type=int, default=20_000, help="calls in each mode")
    parser.add_argument("--modes", nargs="+", default=["direct", "s3"])
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    reports = [run(mode, wanted.calls, wanted.seed) for mode in wanted.modes]
    show(reports)
    return sum(not good(report) for report in reports)


def good(report: Report):
    grown_mb = report.rss_mb[-1] - report.rss_mb[2]
    return (report.wrong, report.missing, report.twice) == (0, 0, 0) and grown_mb < GROWTH_LIMIT_MB


def show(reports):
    table = Table("", *(report.mode for report in reports), title="Soak")
    names = [*(name for name, _, _ in FAULTS), "environment killed"]
    rows = [
        ("calls", *(f"{report.calls:,}" for report in reports)),
        ("requests to Lambda", *(f"{report.requests:,}" for report in reports)),
        *((name, *(f"{report.injected[name]:,}" for report in reports)) for name in names),
        ("wrong", *(str(report.wrong) for report in reports)),
        ("lost", *(str(report.missing) for report in reports)),
        ("told twice", *(str(report.twice) for report in reports)),
        ("seconds", *(f"{report.seconds:.0f}" for report in reports)),
        ("calls/s", *(f"{report.calls / report.seconds:,.0f}" for report in reports)),
        ("client's memory, MB", *(" ".join(f"{one:.0f}" for one in report.rss_mb) for report in reports)),
    ]
    for row in rows:
        table.add_row(*row)
    Console(width=130).print(table)


if __name__ == "__main__":
    sys.exit(main())
