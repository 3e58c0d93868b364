"""The role that the functions run as: made once, brought up to date, and never taken from somebody else unasked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from wren_backends.deploy.plan import Change, State, Step, brought_up_to_date, send
from wren_backends.deploy.policies import Document, Scope, trust_policy, worker_policy
from wren_backends.errors import DeploymentError

TAG = "wren-backends:function"
"""Key of the tag that marks a role or a function as ours; its value is the (base) function that it was made for."""

ADOPTED = "wren-backends:adopted"
"""Key of the tag that marks a role or a function as made by somebody else: clean-up leaves it."""

POLICY_NAME = "wren-backends"
"""Name of our policy in the role."""

DESCRIPTION = "What the Lambda function "
"""How the description of a role of ours begins."""

_MOST_CHARS, _SUFFIX = 64, "-worker"
"""IAM quotas: characters of a role's name."""

_CHANGES: dict[State, Literal["created", "updated", "unchanged"]] = {
    "create": "created",
    "update": "updated",
    "unchanged": "unchanged",
}


@dataclass(frozen=True)
class MadeRole:
    """What `create_role` has left on AWS.

    Attributes:
        arn: ARN of the role.
        change: What was done to it.
        others: Names of policies that it has from elsewhere, and that were left alone.
    """

    arn: str
    change: Literal["created", "updated", "unchanged"]
    others: tuple[str, ...]


def default_role_name(function: str) -> str:
    """How the role of a function is called where nobody says otherwise."""
    return f"{function[: _MOST_CHARS - len(_SUFFIX)]}{_SUFFIX}"


def create_role(client: Any, name: str, scope: Scope, *, adopt: bool = False) -> MadeRole:
    """Make the role that a function runs as, or bring it up to date. Doing it twice does nothing the second time.

    Policies that somebody else gave the role stay: a worker may have to read data of its user's.

    Args:
        client: boto3 client of IAM.
        name: The role's name.
        scope: The function and its place in S3.
        adopt: Take over a role that was made otherwise, or for another function.

    Raises:
        DeploymentError: There is such a role and it is not this function's, or AWS refuses.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        found = look(client, name)
        planned = step(found, scope, adopt=adopt)
        answers = [send(change, {"iam": client}) for change in planned.changes]
    except ClientError as error:
        raise DeploymentError(refused(name, error)) from error
    except BotoCoreError as error:
        raise DeploymentError(f"role {name!r} was not made: {error}; check credentials and network") from error
    # Not asked for: IAM takes its time to know of a role that it has made.
    arn = found.arn or str(answers[0]["Role"]["Arn"])
    return MadeRole(arn, _CHANGES[planned.state], found.others)


@dataclass(frozen=True)
class FoundRole:
    """A role as it is.

    Attributes:
        name: Its name.
        arn: Its ARN; empty if it is not there.
        owner: The function that it was made for; empty if it was made otherwise.
        trust: Who may take it on.
        policy: Our policy.
        others: Names of its other policies.
        tags: Its tags.
    """

    name: str
    arn: str = ""
    owner: str = ""
    trust: Document | None = None
    policy: Document | None = None
    others: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


def look(client: Any, name: str) -> FoundRole:
    """Find out what a role is like.

    Raises:
        botocore.exceptions.ClientError: IAM refuses.
    """
    try:
        role = client.get_role(RoleName=name)["Role"]
    except client.exceptions.NoSuchEntityException:
        return FoundRole(name)
    tags = {tag["Key"]: tag["Value"] for tag in role.get("Tags", ())}
    return FoundRole(
        name,
        role["Arn"],
        tags.get(TAG, ""),
        role["AssumeRolePolicyDocument"],
        _own_policy(client, name),
        _others(client, name),
        tags,
    )


def step(found: FoundRole, scope: Scope, *, adopt: bool = False, tags: Mapping[str, str] | None = None) -> Step:
    """What makes a role what it has to be.

    Args:
        found: What it is.
        scope: The functions and their place in S3.
        adopt: Take over a role that was made otherwise, or for another function.
        tags: For the role, beside ours.

    Raises:
        DeploymentError: It is not this function's.
    """
    name, wanted_tags = found.name, {**(tags or {}), TAG: scope.function}
    if found.arn and found.owner != scope.function:
        wanted_tags[ADOPTED] = "true"
    tag_list = [{"Key": key, "Value": value} for key, value in wanted_tags.items()]
    trust = json.dumps(trust_policy())
    changes = []
    if not found.arn:
        making = {
            "RoleName": name,
            "AssumeRolePolicyDocument": trust,
            "Description": f"{DESCRIPTION}{scope.function} of wren-backends may do",
            "Tags": tag_list,
        }
        changes.append(Change("make it, for Lambda alone to take on", "iam", "create_role", making))
    else:
        if found.owner != scope.function and not adopt:
            whose = f"is function {found.owner!r}'s" if found.owner else "was not made by `wren create_role`"
            raise DeploymentError(
                f"role {name!r} exists and {whose}: give another name (`wren setup --role-name`, "
                "`wren create_role --name`), or take it over with --adopt, which replaces who may assume it and what "
                f"function {scope.function!r} may do"
            )
        if not wanted_tags.items() <= found.tags.items():
            changes.append(Change("tag it", "iam", "tag_role", {"RoleName": name, "Tags": tag_list}))
        if found.trust != trust_policy():
            trusting = {"RoleName": name, "PolicyDocument": trust}
            changes.append(Change("let Lambda alone take it on", "iam", "update_assume_role_policy", trusting))
    if found.policy != worker_policy(scope):
        policy = json.dumps(worker_policy(scope), separators=(",", ":"))
        putting = {"RoleName": name, "PolicyName": POLICY_NAME, "PolicyDocument": policy}
        changes.append(Change(_said(found.policy, scope), "iam", "put_role_policy", putting))
    notes = [f"other policies, which are left alone: {', '.join(found.others)}"] if found.others else []
    return brought_up_to_date("role", name, exists=bool(found.arn), changes=changes, notes=notes)


def _said(present: Document | None, scope: Scope) -> str:
    """What another policy changes; where functions of further sizes are all that is new, that is said."""
    had = json.dumps(present)
    known = tuple(one for one in scope.beside if f":/aws/lambda/{one}:*" in had)
    if present == worker_policy(replace(scope, beside=known)):
        return f"let it write the logs of {', '.join(one for one in scope.beside if one not in known)} too"
    return f"let it use {scope.place} and write its logs"


def refused(name: str, error: Any) -> str:
    """What to say when IAM refuses."""
    text = f"role {name!r} was not made: {error}"
    if "AccessDenied" in error.response.get("Error", {}).get("Code", ""):
        text += (
            "; it takes iam:GetRole, CreateRole, TagRole, UpdateAssumeRolePolicy, GetRolePolicy, PutRolePolicy, "
            "ListRolePolicies and ListAttachedRolePolicies. If you are not to have them, show an administrator "
            "`wren create_role --print`"
        )
    return text


def _own_policy(client: Any, name: str) -> Document | None:
    try:
        return dict(client.get_role_policy(RoleName=name, PolicyName=POLICY_NAME)["PolicyDocument"])
    except client.exceptions.NoSuchEntityException:
        return None


def _others(client: Any, name: str) -> tuple[str, ...]:
    inline = client.get_paginator("list_role_policies").paginate(RoleName=name)
    attached = client.get_paginator("list_attached_role_policies").paginate(RoleName=name)
    found = [one for page in inline for one in page["PolicyNames"] if one != POLICY_NAME]
    return (*found, *(one["PolicyName"] for page in attached for one in page["AttachedPolicies"]))
