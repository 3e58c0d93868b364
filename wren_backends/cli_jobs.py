"""`wren jobs`: the jobs in the bucket, their results, and their deletion.

What lies in the bucket was written by others: texts are escaped before they reach the terminal.
"""

from __future__ import annotations

import json
import os
import re
import reprlib
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lambda_worker.protocol import number_of
from lambda_worker.ranges import ranges_of, texts
from wren_backends.config import Config
from wren_backends.deploy.log_group import log_group_name
from wren_backends.errors import ConfigError, UnknownJobError, WrenError

if TYPE_CHECKING:  # each command imports what it needs, so that the others start quickly
    from wren_backends.attached import AttachedJob
    from wren_backends.connection import Connection
    from wren_backends.jobs import JobDetails, JobSummary

_REPR_CHARS = 200
_ERROR_CHARS = 1000  # what to do next stands at the end of our own
_LINES = 20
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_FRESH = timedelta(hours=2)
"""A job that was not closed and has been heard of within this time may still run: see `follower.py`."""

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_out_option = click.option(
    "--out",
    type=click.Path(dir_okay=False, writable=True),
    help="Write a pickle of {number: value or exception} to this file.",
)


@click.group()
def jobs() -> None:
    """Come back to jobs of mode `s3`."""


@jobs.command(name="list")
@_json_option
def list_command(as_json: bool) -> None:
    """List the jobs that have objects in the bucket.

    A frame holds the outcomes of one invocation's calls, which may be several. Jobs of mode `direct` have no record,
    and objects only if calls ran for long.
    """
    from wren_backends.jobs import list_jobs

    connection = _connect()
    found = list_jobs(connection)
    if as_json:
        click.echo(json.dumps([_as_json(one) for one in found]))
        return
    if not found:
        click.echo(f"There are no jobs in s3://{connection.bucket}/{connection.prefix}.")
        return
    table = Table("job", "made (UTC)", "by", "mode", "calls", "frames", "bytes", "last written", "client")
    for one in found:
        table.add_row(*map(Text, _row(one)))
    # A terminal's width is known; a file or a pipe may have rows as long as they are.
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table)


@jobs.command()
@click.argument("job")
@_json_option
def show(job: str, as_json: bool) -> None:
    """Show what is known of a job. Outcomes by kind, what is missing, log streams, failures."""
    from wren_backends.jobs import describe_job

    connection = _connect()
    found = describe_job(connection, job)
    if as_json:
        click.echo(json.dumps(_details_as_json(found)))
        return
    for name, value in _rows(found, connection):
        click.echo(f"{name:>16}  {value}")


@jobs.command()
@click.argument("job")
@_out_option
def results(job: str, out: str | None) -> None:
    """Print the outcomes that there are.

    Nothing is waited for. Values are unpickled, so modules that they need have to be importable: also from the current
    folder.
    """
    with _attach(job) as attached:
        futures = attached.committed()
        left = len(attached.futures) - len(futures)
    _print_results(job, futures, out)
    if left:
        click.echo(f"{left} calls have no outcome yet: `wren jobs attach {job}` waits for them.", err=True)


@jobs.command()
@click.argument("job")
@_out_option
@click.option(
    "--patience",
    metavar="TIME",
    callback=lambda _, __, text: text and _duration(text),
    help="Give calls up after so long without any sign of life of the job, such as 10m. Default: over an hour.",
)
def attach(job: str, out: str | None, patience: timedelta | None) -> None:
    """Wait for a job, then do as `results` does.

    It waits until every call that is known has ended. Ctrl-C leaves the job as it is.
    """
    from wren_backends.attached import checked_job_id
    from wren_backends.progress import progress

    try:
        with progress(text=checked_job_id(job)), _attach(job, patience) as attached:
            attached.wait()
            futures = attached.futures
    except KeyboardInterrupt:
        click.echo(f"\nThe job goes on as it is. Come back with: wren jobs attach {job}", err=True)
        sys.exit(130)
    _print_results(job, futures, out)


@jobs.command()
@click.argument("job_ids", metavar="JOB...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All jobs below the prefix.")
@click.option(
    "--older-than",
    "age",
    metavar="TIME",
    callback=lambda _, __, text: text and _duration(text),
    help="Jobs whose last object was written so long ago, such as 7d, 12h or 30m.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def clean(job_ids: tuple[str, ...], everything: bool, age: timedelta | None, yes: bool) -> None:
    """Delete the records, outcomes and data of jobs.

    Blobs (functions, arguments, modules) stay: jobs that send the same content share them. The bucket's lifecycle rules
    delete them, and Lambda's records of failures, some days after they were written.
    """
    from wren_backends.jobs import delete_jobs, list_jobs

    if bool(job_ids) + everything + (age is not None) != 1:
        raise click.UsageError("say which jobs: JOB..., --all or --older-than 7d")
    connection = _connect()
    chosen = _choose(list_jobs(connection), job_ids, everything, age)
    if not chosen:
        click.echo("There is nothing to delete.")
        return
    objects, size = sum(one.objects for one in chosen), sum(one.size_bytes for one in chosen)
    click.echo(
        f"{len(chosen)} jobs, {objects} objects, {size:,} bytes in s3://{connection.bucket}/{connection.prefix}:"
    )
    for line in _bounded([f"{one.job_id}{_warning(one)}" for one in chosen]):
        click.echo(f"  {line}")
    if not yes:
        click.confirm("Delete them?", abort=True)
    deleted = delete_jobs(connection, [one.job_id for one in chosen])
    click.echo(f"{deleted} objects deleted. Blobs stay: other jobs may share them, and the bucket lets them expire.")


def _connect() -> Connection:
    """The function and bucket that are configured."""
    from wren_backends.connection import connect_to_find

    return connect_to_find(Config.load())


def _attach(job: str, patience: timedelta | None = None) -> AttachedJob:
    from wren_backends.executor import WrenExecutor

    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # at the end, so that no file there takes the place of an installed module
    patience_s = None if patience is None else patience.total_seconds()
    return WrenExecutor.attach(job, connection=_connect(), patience_s=patience_s, forward_output=False)


def _choose(
    found: list[JobSummary], job_ids: Iterable[str], everything: bool, age: timedelta | None
) -> list[JobSummary]:
    from wren_backends.attached import checked_job_id

    if everything:
        return found
    if age is not None:
        return [one for one in found if datetime.now(UTC) - one.newest >= age]
    known = {one.job_id: one for one in found}
    for job_id in map(checked_job_id, job_ids):
        if job_id not in known:
            raise UnknownJobError(
                f"there is no job {job_id}, so nothing was deleted: `wren jobs list` shows those there are"
            )
    return [known[job_id] for job_id in dict.fromkeys(job_ids)]


def _warning(one: JobSummary) -> str:
    record = one.found.record
    fresh = datetime.now(UTC) - one.newest < _FRESH
    return "  (may still run: its client has not closed it)" if record and not record.closed and fresh else ""


# ---- what is shown


def shown(text: str) -> str:
    """A text of somebody else's in one line, without anything that a terminal would obey."""
    line = re.sub(r"\s+", " ", text)
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)


def _row(one: JobSummary) -> list[str]:
    record, trouble = one.found.record, one.found.trouble
    if record is None:
        made, by, mode, calls, client = "", "record unreadable" if trouble else "no record", "", "", ""
    else:
        made, by = f"{record.made:%Y-%m-%d %H:%M:%S}", f"{record.user}@{record.host} {record.program}"
        mode, calls, client = record.mode, f"{record.calls:,}", "closed it" if record.closed else "has not closed it"
    age = f"{_age(one.newest)} ago"
    return [one.job_id, made, shown(by), mode, calls, f"{one.frames:,}", f"{one.size_bytes:,}", age, client]


def _rows(found: JobDetails, connection: Connection) -> Iterable[tuple[str, str]]:
    summary, record = found.summary, found.summary.found.record
    yield "job", summary.job_id
    if summary.found.trouble:
        yield "record", shown(summary.found.trouble)
    if record is not None:
        yield "made", f"{record.made:%Y-%m-%d %H:%M:%S} UTC"
        yield "by", shown(f"{record.user}@{record.host}, process {record.pid}, {record.program}")
        version = "{}.{}".format(*record.python)
        yield "with", shown(f"mode {record.mode}, Python {version}, wren-backends {record.version}")
        yield "function", record.function
        yield "closed", f"{record.closed:%Y-%m-%d %H:%M:%S} UTC" if record.closed else "not by its client"
        yield "calls", f"{record.calls:,}"
    yield "outcomes", ", ".join(f"{found.kinds.get(kind, 0):,} {kind}" for kind in ("value", "error", "failed"))
    yield "missing", ", ".join(_bounded(texts(ranges_of(found.missing)))) or "none"
    yield "objects", f"{summary.objects:,}, {summary.size_bytes:,} bytes, last written {_age(summary.newest)} ago"
    for seq, why in list(found.refused.items())[:_LINES]:
        yield "refused", f"frame {seq}: {shown(why)}"
    yield "log group", log_group_name(record.function if record else connection.function)
    for stream in _bounded(list(found.log_streams)):
        yield "log stream", shown(stream)
    for failure, meaning in found.failures[-_LINES:]:
        yield "failure", f"{failure.at:%H:%M:%S} attempt {failure.attempt}: {shown(meaning)}"


def _as_json(one: JobSummary) -> dict[str, Any]:
    return {
        "job": one.job_id,
        "record": one.found.record.to_json() if one.found.record else None,
        "trouble": one.found.trouble,
        "frames": one.frames,
        "objects": one.objects,
        "bytes": one.size_bytes,
        "last_written": one.newest.isoformat(),
    }


def _details_as_json(found: JobDetails) -> dict[str, Any]:
    return {
        **_as_json(found.summary),
        "outcomes": dict(found.kinds),
        "refused": {str(seq): why for seq, why in found.refused.items()},
        "missing": list(found.missing),
        "log_streams": list(found.log_streams),
        "failures": [
            {
                "calls": [number_of(seq) for seq in one.seqs],
                "attempt": one.attempt,
                "at": one.at.isoformat(),
                "meaning": meaning,
            }
            for one, meaning in found.failures
        ],
    }


def _print_results(job: str, futures: Mapping[int, Future[Any]], out: str | None) -> None:
    from wren_backends.attached import ended

    for seq, future in futures.items():
        click.echo(f"{seq:>8}  {_kind(future):<6}  {_short(ended(future))}")
    if out is not None:
        _write(job, {seq: ended(future) for seq, future in futures.items()}, out)
        click.echo(f"{len(futures)} outcomes written to {out}", err=True)


def _write(job: str, found: dict[int, Any], out: str) -> None:
    import cloudpickle

    try:
        data = cloudpickle.dumps(found)
        with open(out, "wb") as file:
            file.write(data)
    except Exception as error:
        raise ConfigError(
            f"the outcomes could not be written to {out}: {error}. They are still in the bucket: "
            f"wren jobs results {job} --out ..."
        ) from error


def _kind(future: Future[Any]) -> str:
    error = future.exception()
    return "value" if error is None else "failed" if isinstance(error, WrenError) else "error"


def _short(value: object) -> str:
    if isinstance(value, BaseException):
        try:
            text = f"{type(value).__qualname__}: {value}"
        except Exception:  # noqa: BLE001  the user's class may raise anything
            text = type(value).__qualname__
    else:
        text = _repr.repr(value)
    line, most = shown(text), _ERROR_CHARS if isinstance(value, BaseException) else _REPR_CHARS
    return line if len(line) <= most else line[: most - 3] + "..."


_repr = reprlib.Repr()
_repr.maxother = _repr.maxstring = _REPR_CHARS


def _bounded(lines: list[str]) -> list[str]:
    return lines if len(lines) <= _LINES else [*lines[:_LINES], f"and {len(lines) - _LINES:,} more"]


def _age(at: datetime) -> str:
    seconds = max(0.0, (datetime.now(UTC) - at).total_seconds())
    unit = next((unit for unit in ("d", "h", "m") if seconds >= _UNITS_S[unit]), "s")
    return f"{seconds / _UNITS_S[unit]:.0f} {unit}"


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,6}) ?([smhdw])", text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is no time: a number and s, m, h, d or w, such as 7d")
    return timedelta(seconds=int(match[1]) * _UNITS_S[match[2]])
