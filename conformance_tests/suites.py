"""Which suites there are: what of whose tests runs, and what points them at this project."""

from __future__ import annotations

from dataclasses import dataclass

MODES = ("direct", "s3")


@dataclass(frozen=True)
class Suite:
    """Tests that somebody else wrote, or real programs, and how pytest is to run them.

    Attributes:
        name: What `SUITE=` takes.
        what: One line for the report.
        arguments: What pytest is told to collect.
        subset: What of it `make test` runs; empty if `make test` collects the files by itself, or nothing of them.
        plugin: Module that points the tests at this project; none if they do it by themselves.
        packages: Distributions whose versions the report gives.
        jobs: Processes that run tests side by side; 0: this one.
        timeout_s: Time limit of a test in seconds.
        interpreter: Which Python runs it: this one, or `cpython`, one that has CPython's own tests.
    """

    name: str
    what: str
    arguments: tuple[str, ...]
    subset: tuple[str, ...] = ()
    plugin: str | None = None
    packages: tuple[str, ...] = ()
    jobs: int = 0
    timeout_s: int = 300
    interpreter: str = "this"


SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            name="joblib",
            what="joblib/test/test_parallel.py, every test that takes a backend, with `wren`",
            arguments=("--pyargs", "joblib.test.test_parallel"),
            plugin="conformance_tests.joblib_plugin",
            packages=("joblib",),
        ),
        Suite(
            name="joblib-as-loky",
            what="joblib/test/test_parallel.py as it is, with `wren` in the place of loky",
            arguments=("--pyargs", "joblib.test.test_parallel"),
            plugin="conformance_tests.joblib_plugin",
            packages=("joblib",),
        ),
        Suite(
            name="dask",
            what="dask.tests, dask.diagnostics, dask.bag with `wren_get` as every scheduler",
            arguments=("--pyargs", "dask.tests", "dask.diagnostics", "dask.bag"),
            plugin="conformance_tests.dask_plugin",
            packages=("dask",),
            jobs=2,
        ),
        Suite(
            name="dask-array",
            what="dask.array with `wren_get` as every scheduler",
            arguments=("--pyargs", "dask.array"),
            plugin="conformance_tests.dask_plugin",
            packages=("dask", "numpy"),
            jobs=2,
        ),
        Suite(
            name="dask-dataframe",
            what="dask.dataframe with `wren_get` as every scheduler",
            arguments=("--pyargs", "dask.dataframe"),
            plugin="conformance_tests.dask_plugin",
            packages=("dask", "pandas"),
            jobs=2,
        ),
        Suite(
            name="sklearn",
            what="scikit-learn's model_selection, ensemble, feature_selection, multioutput, pipeline in "
            '`parallel_config(backend="wren")`',
            arguments=(
                "--pyargs",
                "sklearn.model_selection",
                "sklearn.ensemble",
                "sklearn.feature_selection",
                "sklearn.tests.test_multioutput",
                "sklearn.tests.test_pipeline",
            ),
            plugin="conformance_tests.sklearn_plugin",
            packages=("scikit-learn", "joblib"),
            jobs=2,
        ),
    )
}
