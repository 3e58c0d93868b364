"""The AWS entry point: `lambda_worker.handler.handler` is what the Lambda function is configured with."""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
from typing import Any

from lambda_worker.objects import ObjectStore
from lambda_worker.packages import Packages, PackagesError
from lambda_worker.protocol import FUNCTION_KEY_VARIABLE, IN_WORKER_VARIABLE, PRELOAD_VARIABLE
from lambda_worker.runner import Runner, refuse

_log = logging.getLogger("lambda_worker")

_MB_PER_CPU = 1769
_PACKAGES_SHARE = 0.8  # of an invocation's time; what is unpacked by then is found by the next one
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")

os.environ[IN_WORKER_VARIABLE] = "1"
# Taken out of the environment so that no subprocess and no dump of the environment shows it.
_function_key = os.environ.pop(FUNCTION_KEY_VARIABLE, "")
_runner: Runner | None = None


def _limit_threads() -> None:
    """Let BLAS and OpenMP use the CPUs that the function's memory pays for, not those that the host shows.

    1,769 MB are one vCPU (AWS Lambda developer guide, "Configure Lambda function memory").
    """
    memory_mb = int(os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", _MB_PER_CPU))
    for name in _THREAD_VARIABLES:
        os.environ.setdefault(name, str(max(1, round(memory_mb / _MB_PER_CPU))))


def _lend_path() -> None:
    """Let Python processes that calls start find the packages that this one does.

    Lambda's own `PYTHONPATH` leaves layers out (AWS Lambda developer guide, "Defined runtime environment variables"),
    and joblib's helper processes begin with an import of joblib.
    """
    ours = [one for one in sys.path if os.path.isdir(one) and not one.startswith(sys.base_prefix)]
    os.environ["PYTHONPATH"] = os.pathsep.join(ours)


def _preload() -> None:
    """Import what most calls need while the environment initialises; with SnapStart that is once per version."""
    for name in filter(None, os.environ.get(PRELOAD_VARIABLE, "").split(",")):
        try:
            importlib.import_module(name)
        except ImportError as error:
            _log.warning("preload.skipped module=%s error=%s", name, error)


def _open_store(bucket: str, prefix: str) -> ObjectStore:
    region = os.environ.get("AWS_REGION", "us-east-1")
    return ObjectStore.open_s3(bucket, prefix, region=region, endpoint_url=os.environ.get("AWS_ENDPOINT_URL_S3"))


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Run one event; `context` is awslambdaric's LambdaContext."""
    global _runner  # noqa: PLW0603  an execution environment has one runner, made after the snapshot was taken
    if not re.fullmatch("[0-9A-Fa-f]{64}", _function_key):
        detail = f"the function has no {FUNCTION_KEY_VARIABLE} of 64 hexadecimal digits"
        return refuse(event, "configuration", detail)
    try:
        _packages.ensure(_PACKAGES_SHARE * context.get_remaining_time_in_millis() / 1000)
    except PackagesError as error:
        return refuse(event, error.reason, str(error))
    if _runner is None:
        _lend_path()
        memory_bytes = int(context.memory_limit_in_mb or 0) * 1024 * 1024
        _runner = Runner(bytes.fromhex(_function_key), _open_store, context.log_stream_name or "", memory_bytes)
    return _runner.run(event, context.aws_request_id, context.get_remaining_time_in_millis() / 1000)


_limit_threads()
_packages = Packages.of_this_function(_open_store)
if _packages.begin():
    _preload()
