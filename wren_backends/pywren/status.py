"""What PyWren tells of a call, in its words: `run_status` is the worker's side of it, `invoke_status` the client's.

Times are seconds since 1970, by the clock of the side that they belong to.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

from wren_backends.errors import WrenError
from wren_backends.origin import origin_of
from wren_backends.pywren.callfuture import CallFuture


def invoke_status(future: CallFuture, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The client's side of a call that has ended.

    Args:
        future: Its future.
        metadata: What was known when it was submitted.
    """
    sent_at, done_at = future.sent_at or future.submitted_at, future.done_at or future.submitted_at
    return {
        **metadata,
        "lambda_invoke_timestamp": future.submitted_at,
        "lambda_invoke_time": sent_at - future.submitted_at,
        "status_done_timestamp": done_at,
        "status_query_count": 0,  # one LIST serves all calls of a job
        "download_output_timestamp": done_at,
        "download_output_time": 0.0,  # it comes with the status
    }


def run_status(
    future: CallFuture, error: BaseException | None, invoked: Mapping[str, Any], log_group: str
) -> dict[str, Any]:
    """The worker's side of a call that has ended.

    Args:
        future: Its future.
        error: What it ended in.
        invoked: Its `invoke_status`.
        log_group: CloudWatch log group of its function.
    """
    failed = error if isinstance(error, WrenError) or (error and not future.status) else None
    found: dict[str, Any] = {
        "exception": str(failed) if failed else None,
        "call_id": invoked.get("call_id"),
        "callset_id": invoked.get("callset_id"),
        "host_submit_time": invoked.get("host_submit_time"),
        "setup_time": 0.0,  # no runtime is fetched for a call
    }
    if failed is not None:
        found["exception_args"] = failed.args
        found["exception_traceback"] = "".join(traceback.format_exception(failed))
    origin = origin_of(future)
    if origin is not None:
        found |= {
            # Where the exception could not carry them: by the client's clock, as if it had come home at once.
            "start_time": (future.done_at or 0.0) - origin.seconds,
            "end_time": future.done_at,
            "exec_time": origin.seconds,
            "cpu_time": origin.cpu_s,
            "max_rss_bytes": origin.rss_bytes,
            "stdout": origin.stdout,
            "stderr": origin.stderr,
            "runtime_cached": not origin.was_cold,
            "environment_id": origin.environment_id,
            "aws_request_id": origin.request_id,
            "log_group_name": log_group,
            "log_stream_name": origin.log_stream,
        }
    return found | future.status
