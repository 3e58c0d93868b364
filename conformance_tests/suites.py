"""Which suites there are: what of whose tests runs, and what points them at this project."""

from __future__ import annotations

from dataclasses import dataclass

MODES = ("direct", "s3")
BOTH = ("both",)

_CORE = (
    "conformance_tests/s3",
    "tests/executor/test_contract.py",
    "tests/executor/test_modes.py",
    "tests/joblib_backend",
    "tests/dask_get",
    "tests/jobs",
    "tests/trust",
)
"""What has to hold on every S3: the three surfaces, attaching to jobs, and what is trusted."""


@dataclass(frozen=True)
class Suite:
    """Tests that somebody else wrote, or real programs, and how pytest is to run them.

    Attributes:
        name: What `SUITE=` takes.
        what: One line for the report.
        arguments: What pytest is told to collect.
        subset: What of it `make test` runs, in `direct`; empty if it collects those files anyway, or nothing of them.
        plugin: Module that points the tests at this project; none if they do it by themselves.
        packages: Distributions whose versions the report gives.
        jobs: Processes that run tests side by side; 0: this one.
        timeout_s: Time limit of a test in seconds.
        modes: What it is run for, one after the other; `both`: its tests take care of the modes themselves.
        server: S3 server to start for it, of `s3_servers.py`, in place of the local cloud's.
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
    modes: tuple[str, ...] = MODES
    server: str | None = None
    interpreter: str = "this"

    @property
    def is_ours(self) -> bool:
        """Whether its tests are this repository's, which start their cloud by themselves."""
        return self.modes == BOTH


SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            name="cpython",
            what="CPython's test.test_concurrent_futures, its mixins with `WrenExecutor`",
            arguments=("-p", "no:logging", "conformance_tests/cpython"),
            packages=("cloudpickle",),
            interpreter="cpython",
        ),
        Suite(
            name="joblib",
            what="joblib/test/test_parallel.py, every test that takes a backend, with `wren`",
            arguments=("--pyargs", "joblib.test.test_parallel"),
            subset=(
                *("--pyargs", "joblib.test.test_parallel", "-k"),
                "error_capture or error_in_task_iterator or timeout_fail or nested_exception or multiple_generator",
            ),
            plugin="conformance_tests.joblib_plugin",
            packages=("joblib",),
        ),
        Suite(
            name="dask",
            what="dask.tests, dask.diagnostics, dask.bag with `wren_get` as every scheduler",
            arguments=("--pyargs", "dask.tests", "dask.diagnostics", "dask.bag"),
            subset=("--pyargs", "dask.tests.test_callbacks", "dask.tests.test_traceback", "dask.tests.test_delayed"),
            plugin="conformance_tests.dask_plugin",
            packages=("dask",),
            jobs=2,
        ),
        Suite(
            name="dask-array",
            what="dask.array with `wren_get` as every scheduler",
            arguments=("--pyargs", "dask.array"),
            subset=("--pyargs", "dask.array.tests.test_map_blocks", "dask.array.tests.test_gufunc"),
            plugin="conformance_tests.dask_plugin",
            packages=("dask", "numpy"),
            jobs=2,
            timeout_s=1200,  # test_slicing_none_int_ellipes computes 4,000 arrays
        ),
        Suite(
            name="dask-dataframe",
            what="dask.dataframe.dask_expr with `wren_get` as every scheduler",
            arguments=("--pyargs", "dask.dataframe.dask_expr"),
            subset=(
                "--pyargs",
                *(f"dask.dataframe.dask_expr.tests.test_{one}" for one in ("concat", "cumulative", "repartition")),
            ),
            plugin="conformance_tests.dask_plugin",
            packages=("dask", "pandas"),
            jobs=2,
        ),
        Suite(
            name="dask-dataframe-api",
            what="the older tests of dask.dataframe's interface and of its files, with `wren_get` as every scheduler",
            arguments=("--pyargs", "dask.dataframe.tests", "dask.dataframe.io", "dask.dataframe.tseries"),
            plugin="conformance_tests.dask_plugin",
            packages=("dask", "pandas"),
            jobs=2,
            timeout_s=1200,  # test_arithmetics_different_index takes minutes
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
            subset=("--pyargs", "sklearn.tests.test_multioutput"),
            plugin="conformance_tests.sklearn_plugin",
            packages=("scikit-learn", "joblib"),
            jobs=2,
        ),
        Suite(
            name="programs",
            what="programs that take an executor, a map or joblib, each in its documented way",
            arguments=("conformance_tests/programs",),
            packages=(
                *("scipy", "tornado", "tqdm", "toolz", "networkx", "dask"),
                *("adaptive", "emcee", "dynesty", "mlxtend", "imbalanced-learn", "hdbscan"),
            ),
        ),
        Suite(
            name="documents",
            what="every file in examples/ and every code block of the README and docs/",
            arguments=("tests/docs/test_documents.py", "-k", "blocks_run or examples_run"),
            modes=BOTH,
        ),
        Suite(
            name="core-on-ceph",
            what="this project's own tests of executor, joblib, dask, jobs and trust, on Ceph's S3 gateway",
            arguments=_CORE,
            modes=BOTH,
            server="ceph",
            packages=("obstore",),
        ),
        Suite(
            name="core-on-ministack",
            what="the same on MiniStack",
            arguments=_CORE,
            modes=BOTH,
            server="ministack",
            packages=("obstore",),
        ),
    )
}
