"""PyWren's API: a PyWren program runs with `import wren_backends.pywren as pywren`.

The names, signatures and results are those of PyWren 0.4.0 (https://pypi.org/project/pywren/0.4.0/). What PyWren left
out (timeouts, cancelling, `exception`, callbacks) works, and nothing waits for what cannot come any more. Calls run in
mode `s3` unless another one is configured, so that futures can be pickled and read by another process.
"""

from __future__ import annotations

from wren_backends.pywren import wrenconfig, wrenlogging
from wren_backends.pywren.executor import Executor
from wren_backends.pywren.future import JobState, ResponseFuture
from wren_backends.pywren.wren import (
    ALL_COMPLETED,
    ALWAYS,
    ANY_COMPLETED,
    default_executor,
    dummy_executor,
    get_all_results,
    lambda_executor,
    local_executor,
    remote_executor,
    standalone_executor,
    wait,
)

__version__ = "0.4.0"
"""The version of PyWren whose API this is."""

__all__ = [
    "ALL_COMPLETED",
    "ALWAYS",
    "ANY_COMPLETED",
    "Executor",
    "JobState",
    "ResponseFuture",
    "default_executor",
    "dummy_executor",
    "get_all_results",
    "lambda_executor",
    "local_executor",
    "remote_executor",
    "standalone_executor",
    "wait",
    "wrenconfig",
    "wrenlogging",
]
