"""The log group of a function: made before Lambda makes it, so that old lines are deleted and the group is ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wren_backends.deploy.plan import Change, Step, brought_up_to_date
from wren_backends.deploy.role import TAG

RETENTION_DAYS = 14
"""How long lines are kept in a group that has no other retention; longer than objects of jobs."""


@dataclass(frozen=True)
class FoundLogGroup:
    """A log group as it is.

    Attributes:
        name: Its name.
        arn: Its ARN without a star; empty if it is not there.
        retention_days: How long lines are kept; None: for ever.
        tags: Its tags.
    """

    name: str
    arn: str = ""
    retention_days: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


def log_group_name(function: str) -> str:
    """Name of the group that Lambda writes a function's output to."""
    return f"/aws/lambda/{function}"


def look(client: Any, function: str) -> FoundLogGroup:
    """Find out what the log group of a function is like.

    Raises:
        botocore.exceptions.ClientError: CloudWatch Logs refuses.
    """
    name = log_group_name(function)
    pages = client.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=name)
    found = next((one for page in pages for one in page["logGroups"] if one["logGroupName"] == name), None)
    if found is None:
        return FoundLogGroup(name)
    arn = str(found["arn"]).removesuffix(":*")
    tags = client.list_tags_for_resource(resourceArn=arn).get("tags") or {}
    return FoundLogGroup(name, arn, found.get("retentionInDays"), tags)


def step(found: FoundLogGroup, base: str, tags: Mapping[str, str] | None = None) -> Step:
    """What makes a log group what it has to be; one that was there before, or that Lambda made, stays as it is.

    Args:
        found: What it is.
        base: The (base) function that it is marked with.
        tags: Tags beside ours.
    """
    wanted = {**(tags or {}), TAG: base}
    changes = []
    if not found.arn:
        making = {"logGroupName": found.name, "tags": wanted}
        changes.append(
            Change("make it", "logs", "create_log_group", making, harmless=("ResourceAlreadyExistsException",))
        )
    elif found.tags.get(TAG) != base:
        kept = "for ever" if found.retention_days is None else f"for {found.retention_days} days"
        note = f"not made by this set-up, and left alone: its lines are kept {kept}, and clean-up leaves it"
        return Step("log group", found.name, "unchanged", (), (note,))
    elif not wanted.items() <= found.tags.items():
        changes.append(Change("tag it", "logs", "tag_resource", {"resourceArn": found.arn, "tags": wanted}))
    if found.retention_days is None:
        keeping = {"logGroupName": found.name, "retentionInDays": RETENTION_DAYS}
        changes.append(Change(f"delete lines after {RETENTION_DAYS} days", "logs", "put_retention_policy", keeping))
    return brought_up_to_date("log group", found.name, exists=bool(found.arn), changes=changes)
