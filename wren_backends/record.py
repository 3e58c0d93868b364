"""The record of a job: what a process that never saw its client has to know of it, as JSON beside its outcomes.

`recorder.py` writes it, in mode `s3` only. In `direct` a small call costs no request to S3, and what is committed there
belongs to calls that ran for long: such a job can be listed and read without a record, but nobody else knows how many
calls it has.

The record is not sealed, since whoever reads it may have no access to the function's secret: it is checked for its
shape, never unpickled, and nothing that it says decides what is trusted.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lambda_worker.objects import MissingObjectError, ObjectStore
from lambda_worker.protocol import SENT_ANEW, ProtocolError, check_job_id, python_version
from wren_backends.config import Config

RECORD_FORMAT = 1
"""Version of the record; it is raised when an older reader would misunderstand a newer one."""

MOST_CALLS = 1_000_000
"""More calls are not waited for on the word of a record alone, since readers hold a Future for each: those beyond are
known once they are committed."""

MOST_RANGES = 2000
"""Ranges of calls without a value that a record names: it is written again and again, and stays a small object."""

_LIMIT_BYTES = 64 * 1024
_TEXT_CHARS = 300
_FUNCTION_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # AWS Lambda API, FunctionName


def job_folder(job_id: str) -> str:
    """Key prefix, below the project's, of everything that belongs to a job alone; raises ProtocolError."""
    return f"jobs/{check_job_id(job_id)}/"


def record_key(job_id: str) -> str:
    """Key of a job's record below the project's prefix; raises ProtocolError."""
    return f"{job_folder(job_id)}job.json"


@dataclass(frozen=True)
class JobRecord:
    """What is known of a job.

    Attributes:
        job_id: Its id.
        made: When its first invocation was about to be sent, UTC.
        user: Who runs the client.
        host: On which machine.
        pid: The client's process.
        program: Name of the client's program.
        mode: `direct` or `s3`.
        function: Name of the Lambda function.
        python: The client's (major, minor).
        version: The client's version of wren-backends.
        max_attempts: Attempts at a call whose execution environment died.
        retry_memory_mb: Memory in MB of the function on which calls run next that ran out of it; None if there is none.
        larger_function: Its name; empty if there is none.
        calls: How many calls had been numbered when this was written.
        ended: Numbers of calls that had ended without a value by then: first and last of each range, `MOST_RANGES` of
            them at most. The others that have no value may still get one.
        closed: When the client ended the job, every call of it having had its end; None if it did not (yet).
    """

    job_id: str
    made: datetime
    user: str
    host: str
    pid: int
    program: str
    mode: str
    function: str
    python: tuple[int, int]
    version: str
    max_attempts: int
    retry_memory_mb: int | None = None
    larger_function: str = ""
    calls: int = 0
    ended: tuple[tuple[int, int], ...] = ()
    closed: datetime | None = None

    @classmethod
    def of_this_process(cls, job_id: str, functions: Sequence[str], config: Config) -> JobRecord:
        """The record of a job that this process makes now, on a function and perhaps a larger one."""
        return cls(
            job_id=job_id,
            made=now(),
            user=_user(),
            host=socket.gethostname()[:_TEXT_CHARS],
            pid=os.getpid(),
            program=(Path(sys.argv[0]).name if sys.argv else "")[:_TEXT_CHARS] or "python",
            mode=config.mode,
            function=functions[0],
            python=python_version(),
            version=version("wren-backends"),
            max_attempts=config.max_attempts,
            retry_memory_mb=config.retry_memory_mb,
            larger_function="".join(functions[1:]),
        )

    def to_json(self) -> dict[str, Any]:
        """JSON form, ready for `json.dumps`."""
        return {
            "format": RECORD_FORMAT,
            "job": self.job_id,
            "made": self.made.isoformat(),
            "by": {"user": self.user, "host": self.host, "pid": self.pid, "program": self.program},
            "mode": self.mode,
            "function": self.function,
            "python": list(self.python),
            "wren_backends": self.version,
            "max_attempts": self.max_attempts,
            "retry_memory_mb": self.retry_memory_mb,
            "larger_function": self.larger_function,
            "calls": self.calls,
            "ended": [list(pair) for pair in self.ended],
            "closed": self.closed.isoformat() if self.closed else None,
        }

    @classmethod
    def from_json(cls, raw: object, job_id: str) -> JobRecord:
        """Decode what lies in the bucket, trusting nothing about it.

        Raises:
            ProtocolError: It is not a record of this format, or is another job's.
        """
        record = _mapping(raw)
        if record.get("format") != RECORD_FORMAT:
            raise ProtocolError(f"its format is {record.get('format')!r:.50}, this version reads {RECORD_FORMAT}")
        if record.get("job") != job_id:
            raise ProtocolError(f"a record of job {record.get('job')!r:.80} lies where that of {job_id!r} belongs")
        by, mode, function = _mapping(record.get("by")), record.get("mode"), _text(record, "function")
        larger = _text(record, "larger_function") if "larger_function" in record else ""
        if mode not in ("direct", "s3") or not all(_FUNCTION_NAME.fullmatch(one) for one in (function, larger or "-")):
            raise ProtocolError("the record names no mode or no function")
        return cls(
            job_id=job_id,
            made=_time(record.get("made")),
            user=_text(by, "user"),
            host=_text(by, "host"),
            pid=_number(by, "pid", 2**32),
            program=_text(by, "program"),
            mode=mode,
            function=function,
            python=_pair(record.get("python")),
            version=_text(record, "wren_backends"),
            max_attempts=_number(record, "max_attempts", 2**31),
            retry_memory_mb=_number(record, "retry_memory_mb", 2**31) if larger else None,
            larger_function=larger,
            calls=_number(record, "calls", 10**12 - 1),
            ended=_ranges(record.get("ended", [])),
            closed=_time(record["closed"]) if record.get("closed") is not None else None,
        )


@dataclass(frozen=True)
class ReadRecord:
    """What was found where a job's record lies.

    Attributes:
        record: The record; None if there is none, or none that can be read.
        trouble: Why it cannot be read; empty if it can, or if there is none.
        modified: When it was written, by the clock of S3; None if there is none.
    """

    record: JobRecord | None = None
    trouble: str = ""
    modified: datetime | None = None


async def read_record(store: ObjectStore, job_id: str) -> ReadRecord:
    """Read a job's record; raises ObjectStoreError."""
    try:
        data, info = await store.get_small_async(record_key(job_id), _LIMIT_BYTES)
    except MissingObjectError:
        return ReadRecord()
    except ProtocolError as error:
        return ReadRecord(trouble=str(error))
    try:
        return ReadRecord(JobRecord.from_json(json.loads(bytes(data)), job_id), modified=info.modified)
    except (ValueError, RecursionError) as error:
        return ReadRecord(trouble=f"its record cannot be read: {error}", modified=info.modified)


def now() -> datetime:
    """The time, UTC, as records have it."""
    return datetime.now(UTC).replace(microsecond=0)


def _user() -> str:
    try:
        return getpass.getuser()[:_TEXT_CHARS]
    except (KeyError, OSError, ImportError):  # a user id without a name, as in many containers
        return str(os.getuid()) if hasattr(os, "getuid") else "?"


def _mapping(raw: object) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise ProtocolError("the record is not made of JSON objects")
    return raw


def _text(raw: dict[str, Any], name: str) -> str:
    value = raw.get(name)
    if not isinstance(value, str) or len(value) > _TEXT_CHARS:
        raise ProtocolError(f"the record's {name!r} is missing, too long or no text")
    return value


def _number(raw: dict[str, Any], name: str, most: int) -> int:
    value = raw.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ProtocolError(f"the record's {name!r} is missing or no number from 0 to {most}")
    return value


def _time(raw: object) -> datetime:
    try:
        found = datetime.fromisoformat(raw) if isinstance(raw, str) else None
        if found is not None and found.tzinfo is not None and found.year >= 2000:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ProtocolError("the record has a time that is none")


def _ranges(raw: object) -> tuple[tuple[int, int], ...]:
    if not isinstance(raw, list) or len(raw) > MOST_RANGES:
        raise ProtocolError(f"the record's 'ended' is no list of at most {MOST_RANGES} ranges")
    found, before = [], -2
    for one in raw:
        if not (isinstance(one, list) and len(one) == 2 and all(type(end) is int for end in one)):
            raise ProtocolError("the record's 'ended' has a range that is none")
        first, last = one
        if not before + 1 < first <= last < SENT_ANEW:
            raise ProtocolError("the record's 'ended' has ranges that are not in order")
        found.append((first, last))
        before = last
    return tuple(found)


def _pair(raw: object) -> tuple[int, int]:
    if isinstance(raw, list) and len(raw) == 2:
        major, minor = raw
        if type(major) is int and type(minor) is int and 0 <= major < 100 and 0 <= minor < 1000:
            return major, minor
    raise ProtocolError("the record's 'python' is not [major, minor]")
