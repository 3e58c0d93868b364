"""A scikit-learn grid search over the digits data set, run once in sequence and once on wren.

Without an AWS configuration it runs on the local cloud: `make demo`, or `python examples/grid_search.py`.
"""

from __future__ import annotations

import os
import time

from joblib import parallel_backend
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

import wren_backends

GRID = {"C": [0.1, 1.0, 10.0, 100.0], "gamma": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]}
FOLDS = 5


def search() -> GridSearchCV:
    """An unfitted search; its results do not depend on where it runs."""
    return GridSearchCV(SVC(), GRID, cv=FOLDS, n_jobs=-1)


def main() -> None:
    """Run it twice, check that both find the same, and print a table."""
    images, digits = load_digits(return_X_y=True)
    fits = len(GRID["C"]) * len(GRID["gamma"]) * FOLDS
    console = Console()
    console.print(f"Grid search: {fits} fits of an SVC on {len(images)} images of digits")

    began = time.perf_counter()
    with parallel_backend("sequential"):
        expected = search().fit(images, digits)
    sequential_s = time.perf_counter() - began

    # Starting up is not part of the search: the local cloud takes a second or two, AWS is always there.
    with wren_backends.WrenExecutor() as executor:
        place = "the local cloud" if executor.connection.is_local else f"AWS, {executor.connection.region}"
        progress = wren_backends.progress(fits, text=f"fits on {place}")
        with wren_backends.measure() as report, progress, parallel_backend("wren"):
            found = search().fit(images, digits)

    if found.best_params_ != expected.best_params_ or found.best_score_ != expected.best_score_:
        raise SystemExit(f"the two searches differ: {found.best_params_} and {expected.best_params_}")
    table = Table(title=f"Grid search on {place}", show_header=False)
    table.add_row("best score", f"{found.best_score_:.6f} (the sequential run's: {expected.best_score_:.6f})")
    table.add_row("best parameters", ", ".join(f"{name}={value}" for name, value in found.best_params_.items()))
    table.add_row("sequential run", f"{sequential_s:.2f} s")
    for name, value in report.rows():
        table.add_row(name, value)
    console.print(table)
    if executor.connection.is_local:
        console.print(
            f"{executor.connection.max_workers} execution environments share this machine's {os.cpu_count()} CPUs with "
            "all else that runs here, so they cannot be much quicker than one run in sequence. On Lambda up to 1,000 "
            "run at once."
        )


if __name__ == "__main__":
    main()
