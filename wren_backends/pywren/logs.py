"""The lines that an invocation wrote to CloudWatch Logs, of AWS or of the local cloud."""

from __future__ import annotations

from typing import Any

from wren_backends.connection import Connection, connect
from wren_backends.deploy.session import aws_session, local_client
from wren_backends.errors import DeploymentError
from wren_backends.pywren.future import ResponseFuture


def invocation_log(future: ResponseFuture) -> list[tuple[int, str]]:
    """Lines from START to REPORT of the invocation that ran a call, with their times in milliseconds since 1970.

    Args:
        future: Of a call that has ended.

    Raises:
        ValueError: Nothing is known of where it ran.
        DeploymentError: CloudWatch refuses.
    """
    status = future.run_status or {}
    request_id, stream, group = (
        status.get(f"{one}") for one in ("aws_request_id", "log_stream_name", "log_group_name")
    )
    config = future.config
    if not request_id or not stream or config is None:
        raise ValueError(
            f"{future} has no log: it did not run on Lambda, or ended without a word of where (see its exception())"
        )
    inside, found = False, []
    for moment, text in _lines(connect(config), str(group), str(stream)):
        inside = inside or f"START RequestId: {request_id}" in text
        if inside:
            found.append((moment, text))
        if inside and f"REPORT RequestId: {request_id}" in text:
            break
    return found


def _lines(connection: Connection, group: str, stream: str) -> Any:
    from botocore.exceptions import BotoCoreError, ClientError

    client, token = _client(connection), None
    while True:
        more: dict[str, Any] = {"nextToken": token} if token else {}
        try:
            page = client.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True, **more)
        except (ClientError, BotoCoreError) as error:
            raise DeploymentError(
                f"the log {stream} of {group} cannot be read: {error}. The caller needs logs:GetLogEvents on that group"
            ) from error
        yield from ((int(one["timestamp"]), str(one["message"]).strip()) for one in page["events"])
        if page["nextForwardToken"] == token:
            return
        token = page["nextForwardToken"]


def _client(connection: Connection) -> Any:
    if not connection.is_local:
        return aws_session(connection.region).client("logs")
    credentials = connection.credentials()
    return local_client(
        "logs",
        region_name=connection.region,
        endpoint_url=connection.lambda_url,
        aws_access_key_id=credentials.access_key,
        aws_secret_access_key=credentials.secret_key,
    )
