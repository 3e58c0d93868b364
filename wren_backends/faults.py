"""Maps what Lambda and the worker answer when a call has no outcome to this library's errors. Pure functions."""

from __future__ import annotations

import json
from typing import Any

from lambda_worker.protocol import Outcome, Reply
from wren_backends.errors import (
    BrokenWrenExecutor,
    CallExitedError,
    CallStoppedError,
    ConfigError,
    DeploymentError,
    EnvironmentLostError,
    InvocationError,
    InvocationTimeoutError,
    OutOfMemoryError,
    ProtocolMismatchError,
    SerializationError,
    StorageError,
    TamperedObjectError,
    ThrottledError,
    WrenError,
)
from wren_backends.invoker import NO_S3, InvokeFault

_DEPLOYMENT_TYPES = (
    "Runtime.ImportModuleError",
    "Runtime.HandlerNotFound",
    "Runtime.UserCodeSyntaxError",
    "Runtime.MalformedHandlerName",
    "Runtime.InvalidEntrypoint",
    "Runtime.InvalidRuntime",
    "Sandbox.InitError",
    "Runtime.InitError",
)


def function_error(
    body: bytes, label: str, request_id: str, job_id: str, *, memory_mb: int, timeout_s: int, keeps_log: bool
) -> WrenError:
    """What a `FunctionError` means.

    Lambda tells its kinds apart by `errorType` and by the wording of `errorMessage`
    (AWS Lambda developer guide, "Troubleshoot invocation issues").

    Args:
        body: Lambda's JSON description.
        label: The call or calls.
        request_id: AWS request id.
        job_id: The job's id.
        memory_mb: The function's memory.
        timeout_s: The function's time limit.
        keeps_log: Whether the function's log outlives this program.
    """
    kind, text = _describe(body)
    where = f"{label} of job {job_id}, AWS request {request_id}"
    if kind == "Sandbox.Timedout" or "Task timed out after" in text:
        return InvocationTimeoutError(
            f"{where}: still running at the function's time limit of {timeout_s} s. "
            "Split the work, or deploy the function with a higher limit (WREN_TIMEOUT_S, at most 900)"
        )
    if kind == "Runtime.OutOfMemory":
        return OutOfMemoryError(
            f"{where}: needed more than the function's {memory_mb} MB ({text}). "
            "Pass smaller pieces, deploy the function with more memory (WREN_MEMORY_MB, at most 10240), or have such "
            f"calls run again with more (WREN_RETRY_MEMORY_MB). {_log_of(job_id, keeps_log=keeps_log)}"
        )
    if kind in _DEPLOYMENT_TYPES:
        return DeploymentError(
            f"{where}: the function cannot start ({kind}: {text}). Deploy it again: `wren deploy_lambda`"
        )
    if kind == "Function.ResponseSizeTooLarge":
        return InvocationError(f"{where}: {text}. This should not happen: please report it")
    reason = "as it does when code crashes or calls os._exit"
    if "signal: killed" in text:
        reason = f"as it may when memory runs out (the function has {memory_mb} MB) or code kills its own process"
    return EnvironmentLostError(
        f"{where}: its execution environment died ({kind}: {text}), {reason}. {_log_of(job_id, keeps_log=keeps_log)}"
    )


def _log_of(job_id: str, *, keeps_log: bool) -> str:
    """Where the last lines of a call are that came to no end of its own: Lambda does not tell its log stream."""
    if keeps_log:
        return f"`wren logs --job {job_id}` has the last lines it printed"
    return (
        "The last lines it printed are in a log that ends with this program: for one that stays, `wren local up`, run "
        "this again, then `wren logs`"
    )


def queued_too_long(label: str, request_id: str, limit_s: float) -> ThrottledError:
    """An asynchronous invocation that Lambda never ran, though it had taken it in."""
    return ThrottledError(
        f"{label}, AWS request {request_id}: Lambda had it in its queue for {limit_s:.0f} s and never ran it, for lack "
        "of concurrency. Ask AWS for more (Service Quotas, Lambda, concurrent executions), or give the function more"
    )


def refusal_in_error(body: bytes) -> Reply | None:
    """The reply of a worker that refused an asynchronous event, which it can only say by raising it."""
    kind, text = _describe(body)
    if kind != "RefusedEventError":
        return None
    try:
        return Reply.from_json(json.loads(text))
    except (ValueError, RecursionError):
        return None


def _describe(body: bytes) -> tuple[str, str]:
    try:
        raw: Any = json.loads(body)
    except (ValueError, RecursionError):  # the latter for JSON that is nested too deeply
        raw = None
    if not isinstance(raw, dict):
        return "unknown", body[:500].decode("utf-8", "replace")
    return str(raw.get("errorType", "unknown")), str(raw.get("errorMessage", ""))


def refusal(reply: Reply, label: str, function: str) -> WrenError:
    """What a worker's refusal to run an event means."""
    detail = reply.detail
    match reply.refused:
        case "protocol":
            return ProtocolMismatchError(
                f"{label}: {detail}. Deploy function {function!r} again from this environment: `wren deploy_lambda`"
            )
        case "python":
            return ProtocolMismatchError(
                f"{label}: {detail}. Deploy function {function!r} again from this environment, with its packages: "
                "`wren deploy_lambda --environment`"
            )
        case "packages":
            differing, _, install = detail.partition("\n")
            return ProtocolMismatchError(
                f"{label}: {differing}, and what one of them pickles the other cannot be trusted to unpickle. Deploy "
                f"function {function!r} again with those of this environment: `wren deploy_lambda --environment`. If "
                f"Lambda has no wheels for them, take the function's here: `{install}`"
            )
        case "initializer":
            return BrokenWrenExecutor(f"the executor's initializer failed in the worker:\n{detail}")
        case "configuration":
            return DeploymentError(f"{label}: {detail}. Deploy function {function!r} again: `wren deploy_lambda`")
        case "missing":
            return StorageError(f"{label}: what it needs is gone from the bucket ({detail}). Make a new executor")
        case "tampered":
            return TamperedObjectError(f"{label}: {detail}. Somebody else writes to the bucket")
        case "denied":
            return StorageError(f"{label}: the worker could not use S3: {detail}. Check that bucket and role are right")
        case _:
            return InvocationError(f"{label}: the worker refused the event: {detail}")


def protocol_error(error: Exception, label: str, function: str) -> WrenError:
    """A reply that this client cannot read."""
    return ProtocolMismatchError(
        f"{label}: function {function!r} gave a reply that this version of wren-backends cannot read ({error}). "
        "Deploy it again from this environment: `wren deploy_lambda`"
    )


def failure(outcome: Outcome, label: str) -> WrenError:
    """What an outcome of kind `failed` means."""
    detail = outcome.detail
    match outcome.reason:
        case "unpicklable_value":
            return SerializationError(f"{label}: {detail}. Return something that pickles, such as plain data")
        case "unpicklable_error":
            return SerializationError(f"{label} raised, but {detail}")
        case "unloadable":
            return SerializationError(
                f"{label}: its function or arguments could not be unpickled in the worker. A module that is missing "
                "there has to be among the function's packages: `wren setup` deploys those of this environment, "
                f"`--packages NAME` others. The worker said:\n{detail}"
            )
        case "missing_blob":
            return StorageError(f"{label}: what it carries is gone from the bucket ({detail}). Submit it again")
        case "tampered_blob":
            return TamperedObjectError(f"{label}: {detail}. Somebody else writes to the bucket")
        case "time_limit":
            limit_s, _, where = detail.partition("\n")
            return InvocationTimeoutError(
                f"{label}: stopped shortly before the function's time limit of {limit_s} s. Split the work, or deploy "
                f"the function with a higher limit (WREN_TIMEOUT_S, at most 900). It was here:\n{where}"
            )
        case "stopped":
            return CallStoppedError(f"{label} was not begun: its client had given it up. Submit it again")
        case "exited":
            exited = CallExitedError(f"{label} ended with {detail}. Raise an ordinary exception instead")
            exited.interrupted = detail.startswith("KeyboardInterrupt")
            return exited
        case _:
            return StorageError(f"{label}: the worker could not use S3: {detail}. Check that bucket and role are right")


def invoke_fault(fault: InvokeFault, label: str, function: str, spent_s: float, lost: int = 0) -> WrenError:
    """What a request to Lambda that finally failed means.

    Args:
        fault: The last one.
        label: The call or calls.
        function: Name of the function.
        spent_s: For how long it was tried, in seconds.
        lost: Attempts so far that ended with their environment, or whose response was lost.
    """
    if fault.kind == "throttled":
        return ThrottledError(
            f"{label}: Lambda refused it for {spent_s:.0f} s ({fault}). Lower max_workers, or ask AWS for more "
            "concurrency (Service Quotas, Lambda, concurrent executions)"
        )
    if fault.code == NO_S3:
        return StorageError(f"{label}: no worker could use S3 for {spent_s:.0f} s ({fault}). Check network and region")
    if fault.kind == "lost":
        return InvocationError(
            f"{label}: the connection to Lambda broke before the response was there ({fault}; attempt {lost}, and "
            "max_attempts allows no more). It may have run. Check the network"
        )
    if fault.kind != "rejected":
        return InvocationError(
            f"{label}: Lambda did not answer for {spent_s:.0f} s ({fault}). Check network and region"
        )
    if fault.code == "ResourceNotFoundException":
        return DeploymentError(
            f"{label}: there is no function {function!r} ({fault}). Make it with `wren deploy_lambda`"
        )
    if fault.is_too_large:
        return SerializationError(
            f"{label}: its event is too large for Lambda ({fault}). Lower WREN_INLINE_LIMIT_BYTES"
        )
    if "Token" in fault.code or "Signature" in fault.code or "AccessDenied" in fault.code or "Client" in fault.code:
        return ConfigError(f"{label}: Lambda refused the credentials ({fault}). Check them with `wren test_function`")
    return InvocationError(f"{label}: Lambda refused the invocation ({fault})")
