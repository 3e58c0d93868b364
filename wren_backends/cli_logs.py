"""`wren logs` and PyWren's `print_latest_logs` and `log_url`: what the functions have written.

What stands in a log was written by others: it is made harmless before it reaches the terminal.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from wren_backends.config import Config
from wren_backends.errors import ConfigError, DeploymentError
from wren_backends.terminal import harmless

if TYPE_CHECKING:  # each command imports what it needs, so that the others start quickly
    from wren_backends.attribution import Line
    from wren_backends.logs import Tail

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SINCE, _SINCE_OF_JOB = "1h", "1d"
_POLL_S = 2.0
"""Between two looks at a log: FilterLogEvents may be asked five times a second in a region (CloudWatch Logs quotas)."""

_STREAM_CHARS = 8


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on as more is written, until Ctrl-C.")
@click.option("--job", help="Only what belongs to this job.")
@click.option("--call", type=click.IntRange(min=0), help="Only what belongs to the call of this number; takes --job.")
@click.option(
    "--since",
    help=f"From when on: 10m, 2h, 7d, or a time such as 2026-01-31T12:00 (UTC). Default: {_SINCE}, "
    f"with --job {_SINCE_OF_JOB}.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each line.")
def logs(follow: bool, job: str | None, call: int | None, since: str | None, as_json: bool) -> None:
    """Show what the function has written to its log.

    That is all of it, or that of a job or a call. Each line has its time (UTC), the end of its log stream's name (one
    stream is one execution environment), and the call that it belongs to where that is known. What calls print is there
    whatever became of them.
    """
    from wren_backends.attached import checked_job_id
    from wren_backends.logs import Tail, open_logs

    if call is not None and job is None:
        raise ConfigError("--call needs --job: calls are numbered within their job")
    start = _start(since or (_SINCE if job is None else _SINCE_OF_JOB))
    settings = Config.load()
    tail = Tail(open_logs(settings), int(start.timestamp() * 1000), job and checked_job_id(job), call)
    if follow:
        _follow(tail, as_json)
    elif not _print(itertools.chain(tail.poll(), tail.rest()), as_json):
        what = f"job {job}" if job else f"function {settings.function!r}"
        click.echo(
            f"Nothing of {what}{'' if call is None else f', call {call}'} is in the log since {start:%Y-%m-%d %H:%M} "
            "UTC: look further back with --since. On AWS a line takes some seconds to get there.",
            err=True,
        )


def _follow(tail: Tail, as_json: bool) -> None:
    try:
        _print(tail.poll(), as_json)
        while True:
            time.sleep(_POLL_S)
            try:
                _print(tail.poll(), as_json)
            except DeploymentError as error:  # it worked before, so it may again
                click.echo(f"wren: {error}. Trying again.", err=True)
    except KeyboardInterrupt:
        _print(tail.rest(), as_json)


@click.command(name="print_latest_logs")
def print_latest_logs() -> None:
    """Show the log stream that was written to last. That is the log of one execution environment."""
    from wren_backends.logs import open_logs

    settings = Config.load()
    opened = open_logs(settings)
    newest = [(group, stream) for group in opened.groups if (stream := opened.newest_stream(group))]
    events = [list(opened.events(group, 0, streams=[stream])) for group, stream in newest]
    if not any(events):
        raise DeploymentError(
            f"function {settings.function!r} has no log yet: it gets one when it is first called, such as by "
            "`wren test_function`"
        )
    for event in max(filter(None, events), key=lambda one: one[-1].at_ms):
        click.echo(f"{_moment(event.at_ms)} {harmless(event.text.rstrip())}")


@click.command(name="log_url")
@click.option("--stream", default="", help="Of this log stream; the notes of exceptions name it.")
def log_url(stream: str) -> None:
    """Print where AWS's console shows the function's log."""
    from wren_backends.connection import is_local
    from wren_backends.deploy.session import aws_session
    from wren_backends.logs import console_url

    settings = Config.load()
    if is_local(settings):
        raise ConfigError("the local cloud has no console: `wren logs` shows what calls wrote")
    session = aws_session(settings.region)
    partition = session.get_partition_for_region(session.region_name)
    click.echo(console_url(settings.function, session.region_name, partition, stream))


def _start(since: str) -> datetime:
    match = re.fullmatch(r"(\d{1,6}) ?([smhdw])", since.strip())
    if match is not None:
        return datetime.now(UTC) - timedelta(**{_UNITS[match[2]]: int(match[1])})
    try:
        found = datetime.fromisoformat(since)
    except ValueError:
        raise click.BadParameter(
            f"{since!r} is no time: a number and s, m, h, d or w, such as 10m, or a time such as 2026-01-31T12:00",
            param_hint="--since",
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _print(lines: Iterable[Line], as_json: bool) -> int:
    count = 0
    for count, line in enumerate(lines, 1):  # noqa: B007  the count is what is wanted
        click.echo(json.dumps(_as_json(line)) if as_json else _as_text(line))
    return count


def _as_text(line: Line) -> str:
    where = line.event.stream[-_STREAM_CHARS:]
    return f"{_moment(line.event.at_ms)} {where} {_who(line):<10} {harmless(line.text)}".rstrip()


def _who(line: Line) -> str:
    if line.call is not None:
        return f"call {line.call}"
    if line.invocation is None:
        return ""
    first, last = line.invocation.calls[0][0], line.invocation.calls[-1][1]
    return f"call {first}" if first == last else f"calls {first}-{last}"


def _as_json(line: Line) -> dict[str, Any]:
    return {
        "at": datetime.fromtimestamp(line.event.at_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        "text": line.text,
        "job": line.job_id or None,
        "call": line.call,
        "attempt": line.invocation.attempt if line.invocation else None,
        "request": line.request_id or None,
        "log_group": line.event.group,
        "log_stream": line.event.stream,
    }


def _moment(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}.{at_ms % 1000:03d}"
