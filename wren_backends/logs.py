"""Reads the functions' logs out of CloudWatch Logs: those of a job or a call, from some time on, and as they come.

FilterLogEvents does it all: by phrase it finds the streams that a job has lines in, and then gives their lines. It is
asked again for the last while, since lines arrive late and out of order; those that were seen are left out.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from lambda_worker.loglines import begun_phrase
from wren_backends.attribution import Attribution, Line, LogEvent
from wren_backends.config import Config
from wren_backends.connection import is_local
from wren_backends.deploy.local import local_name_pattern
from wren_backends.deploy.log_group import log_group_name
from wren_backends.errors import ConfigError, DeploymentError

_LATE_MS = 30_000
"""How late a line may appear and still be found by who follows the log."""

_BEFORE_MS = 1000
"""How long before the worker's first line of an invocation Lambda's own may have been written."""

_STREAMS = 100  # FilterLogEvents, API reference: most logStreamNames
_PRUNED_FROM = 50_000

_CONSOLES = {
    "aws": "console.aws.amazon.com",
    "aws-cn": "console.amazonaws.cn",
    "aws-us-gov": "console.amazonaws-us-gov.com",
}
"""Hosts of AWS's consoles, by partition."""


@dataclass(frozen=True)
class Logs:
    """The log groups of the configured functions.

    Attributes:
        client: boto3 client of CloudWatch Logs.
        groups: Names of the groups.
    """

    client: Any
    groups: tuple[str, ...]

    def events(self, group: str, start_ms: int, *, phrase: str = "", streams: Sequence[str] = ()) -> Iterator[LogEvent]:
        """Lines of a group in the order of their time, as far as CloudWatch keeps it; none if there is no such group.

        Args:
            group: The log group.
            start_ms: The earliest, milliseconds since 1970.
            phrase: What they have to hold.
            streams: At most 100 log streams that they have to be in; none given: any.

        Raises:
            DeploymentError: They cannot be read; the message says which right is missing.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        asked: dict[str, Any] = {"logGroupName": group, "startTime": max(0, start_ms)}
        if phrase:
            asked["filterPattern"] = f'"{phrase}"'
        if streams:
            asked["logStreamNames"] = list(streams)
        try:
            for page in self.client.get_paginator("filter_log_events").paginate(**asked):
                found = [_event(group, one) for one in page.get("events", ())]
                yield from sorted(found, key=lambda one: one.at_ms)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "ResourceNotFoundException":
                raise unreadable(group, error) from error
        except BotoCoreError as error:
            raise DeploymentError(f"CloudWatch Logs cannot be reached: {error}; check region and network") from error

    def newest_stream(self, group: str) -> str | None:
        """The stream of a group that was written to last; raises as `events` does."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            found = self.client.describe_log_streams(
                logGroupName=group, orderBy="LastEventTime", descending=True, limit=1
            )["logStreams"]
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "ResourceNotFoundException":
                return None
            raise unreadable(group, error, "logs:DescribeLogStreams") from error
        except BotoCoreError as error:
            raise DeploymentError(f"CloudWatch Logs cannot be reached: {error}; check region and network") from error
        return str(found[0]["logStreamName"]) if found else None


def unreadable(group: str, error: Any, right: str = "logs:FilterLogEvents") -> DeploymentError:
    """What it means that CloudWatch Logs refuses."""
    if "AccessDenied" in error.response.get("Error", {}).get("Code", ""):
        return DeploymentError(
            f"the log group {group} may not be read: {error}. The caller needs {right} on it: "
            '`wren create_role --print` shows it under "client"'
        )
    return DeploymentError(f"the log group {group} cannot be read: {error}")


def open_logs(config: Config) -> Logs:
    """The logs of the functions that `config` names.

    Raises:
        DeploymentError: The local cloud is meant and none runs that outlives its program.
        ConfigError: boto3 is not configured.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    from wren_backends.deploy.session import aws_session
    from wren_backends.deploy.setup import functions_beside

    if not is_local(config):
        session = aws_session(config.region)
        there: dict[str, int] = {}
        with contextlib.suppress(BotoCoreError, ClientError):  # then those that the settings name have to do
            there = functions_beside(session.client("lambda"), config)
        names = [one.function for one in config.each_function(there)]
        return Logs(session.client("logs"), tuple(log_group_name(name) for name in names))
    client = _local_client()
    pattern = re.compile(log_group_name(local_name_pattern(config.function)))
    pages = client.get_paginator("describe_log_groups").paginate()
    groups = [one["logGroupName"] for page in pages for one in page["logGroups"]]
    return Logs(client, tuple(one for one in groups if pattern.fullmatch(one)))


def _local_client() -> Any:
    from wren_backends.deploy.session import local_client
    from wren_backends.local.cloud import find_shared

    cloud = find_shared()
    if cloud is None:
        raise DeploymentError(
            "no bucket is configured and no local cloud runs, so there are no logs: set WREN_BUCKET, or start a local "
            "cloud with `wren local up` (one that a program starts by itself ends with it, and its logs too)"
        )
    return local_client(
        "logs",
        region_name=cloud.region,
        endpoint_url=cloud.endpoint_url,
        aws_access_key_id=cloud.access_key_id,
        aws_secret_access_key=cloud.secret_access_key,
    )


class Tail:
    """Reads what belongs to a job or a call, once or again and again.

    Args:
        logs: Where.
        start_ms: From when on, milliseconds since 1970.
        job_id: The job; None: any, and lines that belong to none.
        call: Number of the call in that job; None: any.
    """

    def __init__(self, logs: Logs, start_ms: int, job_id: str | None = None, call: int | None = None) -> None:
        self._logs = logs
        self._start_ms = start_ms
        self._newest_ms: dict[str, int] = {}  # by group: one function may have written long after another
        self._job_id = job_id
        self._call = call
        self._attribution = Attribution()
        self._seen: dict[tuple[str, str], int] = {}
        self._most_seen = _PRUNED_FROM
        self._streams: dict[tuple[str, str], int] = {}

    def poll(self) -> Iterator[Line]:
        """Lines that have come since the last time; raises as `Logs.events` does."""
        for group in self._logs.groups:
            for event in self._events(group):
                if (group, event.event_id) in self._seen:
                    continue
                self._see(event)
                for line in self._attribution.take(event):
                    if line.is_of(self._job_id, self._call):
                        yield line

    def rest(self) -> Iterator[Line]:
        """Lines of which nobody has said where they belong, when no more will come."""
        return (line for line in self._attribution.rest() if line.is_of(self._job_id, self._call))

    def _events(self, group: str) -> Iterator[LogEvent]:
        again_ms = max(self._start_ms, self._newest_ms.get(group, 0) - _LATE_MS)
        if self._job_id is None:
            yield from self._logs.events(group, again_ms)
            return
        for event in self._logs.events(group, again_ms, phrase=begun_phrase(self._job_id)):
            if (group, event.stream) not in self._streams:
                self._streams[group, event.stream] = event.at_ms - _BEFORE_MS
        for fresh in (True, False):
            # Those that have just been found are read from their beginning, the others from where lines may be late.
            some = [one for (of, one), at_ms in self._streams.items() if of == group and (at_ms < again_ms) == fresh]
            for first in range(0, len(some), _STREAMS):
                chunk = some[first : first + _STREAMS]
                yield from self._logs.events(group, min(self._streams[group, one] for one in chunk), streams=chunk)
        for key in self._streams:
            if key[0] == group:
                self._streams[key] = max(self._streams[key], again_ms)

    def _see(self, event: LogEvent) -> None:
        self._seen[event.group, event.event_id] = event.at_ms
        self._newest_ms[event.group] = max(self._newest_ms.get(event.group, 0), event.at_ms)
        if len(self._seen) > self._most_seen:
            old_ms = {group: newest_ms - 2 * _LATE_MS for group, newest_ms in self._newest_ms.items()}
            self._seen = {one: at_ms for one, at_ms in self._seen.items() if at_ms >= old_ms[one[0]]}
            self._most_seen = max(_PRUNED_FROM, 2 * len(self._seen))


def console_url(function: str, region: str, partition: str, stream: str = "") -> str:
    """Address of a function's log, or of one stream of it, in AWS's console.

    Raises:
        ConfigError: AWS has no public console for such a partition.
    """
    if partition not in _CONSOLES:
        raise ConfigError(f"there is no public console for the partition {partition!r} of region {region!r}")
    place = f"https://{region}.{_CONSOLES[partition]}/cloudwatch/home?region={region}"
    path = f"#logsV2:log-groups/log-group/{_twice(log_group_name(function))}"
    return place + path + (f"/log-events/{_twice(stream)}" if stream else "")


def _twice(name: str) -> str:
    """As the console wants names in its addresses: quoted, and again with `$` in the place of `%`."""
    return quote(quote(name, safe=""), safe="").replace("%", "$")


def _event(group: str, raw: Any) -> LogEvent:
    return LogEvent(raw["eventId"], raw["timestamp"], group, raw["logStreamName"], raw["message"])
