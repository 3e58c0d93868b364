"""What it takes to read a job that another process made: the right functions, authentic frames, failures in words."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence

from lambda_worker import codec
from lambda_worker.objects import ObjectStore
from lambda_worker.protocol import Bytes, Frame
from wren_backends import faults
from wren_backends.connection import Connection
from wren_backends.deploy.function import EVENT_AGE_S
from wren_backends.errors import ConfigError, DeploymentError, UnknownJobError, WrenError
from wren_backends.events import logger
from wren_backends.failures import Failure, FailureRecords
from wren_backends.record import JobRecord


def unknown_job(job_id: str, store: ObjectStore) -> UnknownJobError:
    """The error for a job of which there is no object."""
    return UnknownJobError(
        f"there is no job {job_id} in {store.where}: `wren jobs list` shows those there are. "
        "A job of mode `direct` leaves none unless a call ran for long; objects expire after some days"
    )


def check_function(record: JobRecord, connection: Connection) -> None:
    """Check that the secret that is at hand is that of the job's function.

    The record is not sealed, so the function that it names is not used instead: whoever may write to the bucket could
    name one of their own, and have this process unpickle what they like.

    Raises:
        ConfigError: It is another function's.
    """
    ours = connection.function
    if record.function == ours or (connection.is_local and _stem(record.function) == _stem(ours)):
        return
    raise ConfigError(
        f"job {record.job_id} ran on function {record.function!r}, and this is {ours!r}: "
        f"set WREN_FUNCTION={record.function} if that is a function of yours"
    )


def connect_functions(record: JobRecord | None, connection: Connection) -> list[Connection]:
    """The function that a job ran on and, if it had one and it is still there, the larger one, each with its secret.

    Which one is larger goes by this process's settings; the record only says how large it is. A job of mode `direct`
    has no record, and what a larger function committed for it cannot be read.

    Raises:
        ConfigError: The job ran on another function.
    """
    if record is None:
        return [connection]
    check_function(record, connection)
    found = [connection]
    if record.retry_memory_mb is not None:
        try:
            found.append(connection.beside(record.retry_memory_mb))
        except (ConfigError, DeploymentError) as error:
            logger.warning("function.unreachable name=%s error=%s", record.larger_function, error)
    return found


def unopened(error: codec.TamperedError, record: JobRecord | None, functions: Sequence[Connection]) -> str:
    """What it means that none of a job's functions sealed a frame."""
    if record is None:
        return (
            f"{error}. Somebody else writes to the bucket, or a larger function than {functions[0].function} sealed it"
        )
    if record.larger_function and len(functions) == 1:
        return f"{error}. Function {record.larger_function} may have sealed it, which cannot be reached from here"
    return f"{error}. Somebody else writes to the bucket"


def failure_records(
    record: JobRecord, functions: Sequence[Connection], root: ObjectStore
) -> list[tuple[FailureRecords, Connection]]:
    """Where Lambda puts its records of a job's failures, with the function that each is of.

    They are found under the names that the record gives: those of local functions change with the code in them.
    """
    names = record.function, record.larger_function
    return [
        (FailureRecords(root, record.job_id, name, record.made), function)
        for name, function in zip(names, functions, strict=False)
    ]


def unseal(data: Bytes, functions: Sequence[Connection], job_id: str, seq: int) -> Frame:
    """As `codec.unseal`, for a frame that any of `functions` may have sealed; raises TamperedError, ProtocolError."""
    *others, last = functions
    for function in others:
        with contextlib.suppress(codec.TamperedError):
            return codec.unseal(data, codec.job_key(function.function_key, job_id), job_id, seq)
    return codec.unseal(data, codec.job_key(last.function_key, job_id), job_id, seq)


def failure_error(failure: Failure, label: str, connection: Connection) -> WrenError:
    """What a record of a failed asynchronous invocation means for one of its calls."""
    reply = faults.refusal_in_error(failure.body)
    if reply is not None:
        return faults.refusal(reply, label, connection.function)
    if failure.condition == "EventAgeExceeded":
        return faults.queued_too_long(label, failure.request_id, EVENT_AGE_S)
    return faults.function_error(
        failure.body,
        label,
        failure.request_id,
        failure.job_id,
        memory_mb=connection.memory_mb,
        timeout_s=connection.timeout_s,
        keeps_log=connection.keeps_log,
    )


def _stem(function: str) -> str:
    """Name of a local function without the hash that ends it (see deploy/local.py)."""
    return re.sub(r"-[0-9a-f]{12}$", "", function)
