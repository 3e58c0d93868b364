"""The jobs that have objects in the bucket: which there are, what is known of one, and their deletion.

Nothing is unpickled here; `attached.py` has the values.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from lambda_worker.objects import MissingObjectError, ObjectInfo, ObjectStore, ObjectStoreError
from lambda_worker.protocol import Frame, ProtocolError, check_job_id, number_of, outcome_folder
from wren_backends import loops
from wren_backends.attached import checked_job_id
from wren_backends.connection import Connection, open_store
from wren_backends.errors import StorageError
from wren_backends.failures import Failure
from wren_backends.gather import gather_some
from wren_backends.reading import connect_functions, failure_error, failure_records, unknown_job, unseal
from wren_backends.record import MOST_CALLS, ReadRecord, job_folder, read_record

_DELETED_AT_ONCE = 1000  # Amazon S3 API, DeleteObjects

T = TypeVar("T")


@dataclass(frozen=True)
class JobSummary:
    """A job as a listing shows it.

    Attributes:
        job_id: Its id.
        found: Its record.
        frames: How many frames are committed; each holds the outcomes of one invocation's calls.
        objects: How many objects are the job's alone.
        size_bytes: Their size.
        newest: When the last of them was written, by the clock of S3.
    """

    job_id: str
    found: ReadRecord
    frames: int
    objects: int
    size_bytes: int
    newest: datetime


@dataclass(frozen=True)
class JobDetails:
    """What is in the bucket of one job.

    Attributes:
        summary: As a listing shows it.
        kinds: How many outcomes there are of each kind: `value`, `error`, `failed`.
        refused: Frames that are not authentic or cannot be read: `seq` of their first call, and why.
        missing: Numbers of calls that are known of and have no outcome.
        log_streams: CloudWatch log streams of the environments that committed outcomes.
        failures: Lambda's records of failed invocations, and what each means.
    """

    summary: JobSummary
    kinds: Mapping[str, int]
    refused: Mapping[int, str]
    missing: tuple[int, ...]
    log_streams: tuple[str, ...]
    failures: tuple[tuple[Failure, str], ...]


def list_jobs(connection: Connection) -> list[JobSummary]:
    """The jobs that have objects below the prefix, the newest last.

    One LIST for each thousand objects of jobs, one GET for each job.

    Args:
        connection: Where they are; see `connection.connect`.

    Raises:
        StorageError: The bucket cannot be read.
    """
    return _run(_list(_store(connection), "jobs/"), connection)


def describe_job(connection: Connection, job_id: str) -> JobDetails:
    """Everything about a job but its values; reads all of its frames.

    Raises:
        UnknownJobError: There are no objects of such a job.
        ConfigError: It is not a job's id, or the job ran on another function.
        StorageError: The bucket cannot be read.
    """
    return _run(_describe(connection, checked_job_id(job_id)), connection)


def delete_jobs(connection: Connection, job_ids: Iterable[str]) -> int:
    """Delete the records, outcomes and data of jobs; returns how many objects that were.

    A client that is still alive loses what it has not read yet. Blobs stay, since other jobs may have the same content,
    and so do Lambda's records of failures: the bucket's lifecycle rules delete both.

    Raises:
        UnknownJobError: There are no objects of one of them; nothing was deleted.
        ConfigError: One is not a job's id; nothing was deleted.
        StorageError: S3 refuses.
    """
    return _run(_delete(connection, [checked_job_id(one) for one in job_ids]), connection)


def _store(connection: Connection) -> ObjectStore:
    return open_store(connection, connection.prefix)


def _run(work: Coroutine[Any, Any, T], connection: Connection) -> T:
    """Run to the end, on a thread of its own: where this is called an event loop may run, as in a notebook."""
    try:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(loops.run, work).result()
    except ObjectStoreError as error:
        raise StorageError(
            f"the jobs in bucket {connection.bucket!r}: {error}. Check bucket and credentials"
        ) from error


async def _list(store: ObjectStore, folder: str) -> list[JobSummary]:
    objects: dict[str, list[ObjectInfo]] = {}
    async for one in store.list_info_async(folder):
        objects.setdefault(one.key.split("/")[1], []).append(one)

    async def summary(job_id: str) -> JobSummary:
        return _summary(job_id, await read_record(store, job_id), objects[job_id])

    found = await gather_some(summary, filter(_is_job_id, objects))
    return sorted(found, key=lambda one: (one.found.record.made if one.found.record else one.newest, one.job_id))


def _is_job_id(name: str) -> bool:
    """Whether it may be ours at all: anybody may put anything below `jobs/`."""
    try:
        return bool(check_job_id(name))
    except ProtocolError:
        return False


def _summary(job_id: str, found: ReadRecord, objects: list[ObjectInfo]) -> JobSummary:
    return JobSummary(
        job_id=job_id,
        found=found,
        frames=sum(one.key.startswith(outcome_folder(job_id)) for one in objects),
        objects=len(objects),
        size_bytes=sum(one.size for one in objects),
        newest=max(one.modified for one in objects),
    )


async def _describe(connection: Connection, job_id: str) -> JobDetails:
    store = _store(connection)
    summaries = await _list(store, job_folder(job_id))
    if not summaries:
        raise unknown_job(job_id, store)
    (summary,) = summaries
    functions = await asyncio.to_thread(connect_functions, summary.found.record, connection)
    frames, refused = await _read_frames(functions, store, job_id)
    # Of a call that was sent anew the newest counts.
    newest = sorted((outcome for frame in frames for outcome in frame.outcomes), key=lambda outcome: outcome.seq)
    outcomes = {number_of(outcome.seq): outcome for outcome in newest}
    calls = min(summary.found.record.calls, MOST_CALLS) if summary.found.record else 0
    return JobDetails(
        summary=summary,
        kinds=Counter(outcome.kind for outcome in outcomes.values()),
        refused=refused,
        missing=tuple(number for number in range(calls) if number not in outcomes),
        log_streams=tuple(sorted({frame.log_stream for frame in frames})),
        failures=await _failures(functions, summary),
    )


async def _read_frames(
    functions: Sequence[Connection], store: ObjectStore, job_id: str
) -> tuple[list[Frame], dict[int, str]]:
    frames, refused = list[Frame](), dict[int, str]()

    async def read(name: str) -> None:
        seq = int(name.rsplit("/", 1)[1])
        try:
            frames.append(unseal(await store.get_async(name), functions, job_id, seq))
        except MissingObjectError:
            return  # it has just been deleted
        except ProtocolError as error:
            refused[seq] = str(error)

    names = [one async for one in store.list_async(outcome_folder(job_id))]
    await gather_some(read, [name for name in names if name.rsplit("/", 1)[1].isdecimal()])
    return frames, refused


async def _failures(functions: Sequence[Connection], summary: JobSummary) -> tuple[tuple[Failure, str], ...]:
    record = summary.found.record
    if record is None:
        return ()
    found = []
    for records, function in failure_records(record, functions, open_store(functions[0], "")):
        found += [(one, str(failure_error(one, _label(one), function))) for one in await records.poll()]
    return tuple(sorted(found, key=lambda one: one[0].at))


def _label(failure: Failure) -> str:
    first, rest = failure.seqs[:1], len(failure.seqs) - 1
    return f"call {number_of(first[0]) if first else '?'}" + (f" and {rest} more" if rest > 0 else "")


async def _delete(connection: Connection, job_ids: list[str]) -> int:
    store = _store(connection)
    keys: list[str] = []
    for job_id in job_ids:
        found = [key async for key in store.list_async(job_folder(job_id))]
        if not found:
            raise unknown_job(job_id, store)
        keys += sorted(found, key=lambda key: key.endswith("/job.json"))  # the record last: what is left is found again
    for begin in range(0, len(keys), _DELETED_AT_ONCE):
        await store.delete_async(keys[begin : begin + _DELETED_AT_ONCE])
    return len(keys)
