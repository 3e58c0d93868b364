"""Removes what `wren setup` has made, found by its tags, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wren_backends.config import Config
from wren_backends.deploy import bucket, function, log_group, role
from wren_backends.deploy.packages_step import layer_name, packages_folder
from wren_backends.deploy.plan import Change, Plan, Step
from wren_backends.deploy.setup import AwsParts, functions_beside, sizes_beside

_DELETED_AT_ONCE = 1000  # Amazon S3 API, DeleteObjects


@dataclass(frozen=True)
class Contents:
    """What lies in a bucket.

    Attributes:
        ours: How many objects (and versions of some) are below our folders.
        foreign: How many are not.
        examples: Some of their keys.
    """

    ours: int = 0
    foreign: int = 0
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Remains:
    """What there is to be removed, or to be left.

    Attributes:
        functions: Functions by name, the base first.
        log_groups: Their log groups.
        roles: The role.
        layers: Numbers of the versions of the packages' layer.
        bucket: The bucket; None if none is known.
        contents: What lies in it.
        settings: What the user's file says that we have written.
        path: That file.
    """

    functions: dict[str, function.FoundFunction]
    log_groups: tuple[log_group.FoundLogGroup, ...]
    role: role.FoundRole
    layers: tuple[int, ...]
    bucket: bucket.FoundBucket | None
    contents: Contents
    settings: dict[str, Any]
    path: str


class Objects:
    """Deletes the objects of a bucket; stands beside the clients that a plan is carried out with.

    Args:
        client: boto3 client of S3.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def delete(self, *, bucket: str, account: str, folders: Sequence[str] | None) -> None:
        """Delete all versions of the objects below folders, or with None of all."""
        batch: list[dict[str, str]] = []
        for prefix in [""] if folders is None else folders:
            for one in versions(self._client, bucket, account, prefix):
                batch.append(one)
                if len(batch) == _DELETED_AT_ONCE:
                    self._send(bucket, account, batch)
                    batch = []
        self._send(bucket, account, batch)

    def _send(self, bucket: str, account: str, batch: list[dict[str, str]]) -> None:
        if not batch:
            return
        answer = self._client.delete_objects(
            Bucket=bucket, ExpectedBucketOwner=account, Delete={"Objects": batch, "Quiet": True}
        )
        for error in answer.get("Errors", ()):
            from botocore.exceptions import ClientError

            raise ClientError({"Error": error}, f"DeleteObjects of {error.get('Key')!r}")


def versions(client: Any, bucket: str, account: str, prefix: str) -> Iterator[dict[str, str]]:
    """Key and version of all that lies below a prefix, marks of deletion included."""
    pages = client.get_paginator("list_object_versions").paginate(
        Bucket=bucket, ExpectedBucketOwner=account, Prefix=prefix
    )
    for page in pages:
        for one in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
            version = one.get("VersionId")
            yield {"Key": one["Key"], **({"VersionId": version} if version not in (None, "null") else {})}


def look(parts: AwsParts, config: Config, account: str, role_name: str) -> Remains:
    """Find out what is left of a set-up.

    Args:
        parts: Clients.
        config: Settings, with a region; without a bucket it is looked for.
        account: The account's number.
        role_name: Name of the role.

    Raises:
        DeploymentError: The bucket is somebody else's.
        botocore.exceptions.ClientError: AWS refuses.
    """
    lambda_client = parts["lambda"]
    names = list(
        dict.fromkeys((config.function, *sizes_beside(config, None), *functions_beside(lambda_client, config)))
    )
    functions = {name: function.look(lambda_client, name) for name in names}
    name = config.bucket or bucket.find_ours(parts["s3"], account, str(config.region), config.function)
    being_made = name in parts["memory"].buckets()
    found = bucket.look(parts["s3"], name, account, being_made=being_made) if name else None
    return Remains(
        functions=functions,
        log_groups=tuple(log_group.look(parts["logs"], name) for name in names),
        role=role.look(parts["iam"], role_name),
        layers=_layers(lambda_client, layer_name(config.function)),
        bucket=found,
        contents=_contents(parts["s3"], found, account, our_folders(config, names)),
        settings=parts["settings"].marked(),
        path=str(parts["settings"].path),
    )


def our_folders(config: Config, functions: Sequence[str]) -> list[str]:
    """Key prefixes of all that this library puts into a bucket."""
    return [*bucket.folders(config.prefix, functions), packages_folder(config.prefix)]


def plan(remains: Remains, config: Config, account: str, *, foreign_too: bool = False) -> Plan:
    """What has to be done to remove it, in an order that can be interrupted.

    Args:
        remains: What there is.
        config: Settings.
        account: The account's number.
        foreign_too: Whether a bucket of ours is deleted with objects in it that are not.
    """
    base = config.function
    steps = [function_step(name, found, base) for name, found in remains.functions.items()]
    deleted = {step.name for step in steps if step.state == "delete"}
    steps += [_log_group_step(one, base, deleted) for one in remains.log_groups if one.arn]
    steps += [_layer_step(layer_name(base), number) for number in remains.layers]
    steps.append(role_step(remains.role, base))
    if remains.bucket is not None:
        names = list(remains.functions)
        steps.append(_bucket_step(remains.bucket, remains.contents, config, account, names, foreign_too=foreign_too))
    if remains.settings:
        removing = Change(
            f"take out {', '.join(remains.settings)}", "settings", "remove", {"names": list(remains.settings)}
        )
        steps.append(Step("settings", remains.path, "delete", (removing,)))
    return Plan(tuple(step for step in steps if step.state != "unchanged"))


def function_step(name: str, found: function.FoundFunction, base: str) -> Step:
    """The deletion of a function that is ours."""
    if found.configuration is None:
        return Step("function", name, "unchanged")
    if found.tags.get(role.TAG) != base:
        return Step("function", name, "keep", (), (_whose(found.tags, base),))
    missing = ("ResourceNotFoundException",)
    deletion = Change("delete it", "lambda", "delete_function", {"FunctionName": name}, harmless=missing)
    return Step("function", name, "delete", (deletion,))


def role_step(found: role.FoundRole, base: str) -> Step:
    """The deletion of a role that is ours."""
    if not found.arn:
        return Step("role", found.name, "unchanged")
    if found.owner != base:
        return Step("role", found.name, "keep", (), (_whose(found.tags, base),))
    if found.others:
        why = f"it has policies that wren did not make: {', '.join(found.others)}. Take them away first"
        return Step("role", found.name, "keep", (), (why,))
    policy = {"RoleName": found.name, "PolicyName": role.POLICY_NAME}
    deletion = Change("delete it", "iam", "delete_role", {"RoleName": found.name}, harmless=("NoSuchEntity",))
    if found.policy is None:
        return Step("role", found.name, "delete", (deletion,))
    first = Change("delete its policy", "iam", "delete_role_policy", policy, harmless=("NoSuchEntity",))
    return Step("role", found.name, "delete", (first, deletion))


def _whose(tags: Any, base: str) -> str:
    if function.STACK_TAG in tags:
        return f"CloudFormation's stack {tags[function.STACK_TAG]!r} has made it: delete the stack"
    owner = tags.get(role.TAG)
    return f"it is function {owner!r}'s" if owner else "wren did not make it"


def _log_group_step(found: log_group.FoundLogGroup, base: str, deleted: set[str]) -> Step:
    """A group of ours, or one that Lambda has made for a function of ours."""
    of_ours = found.name in {log_group.log_group_name(one) for one in deleted}
    if found.tags.get(role.TAG) != base and not (of_ours and not found.tags):
        return Step("log group", found.name, "keep", (), (_whose(found.tags, base),))
    missing = ("ResourceNotFoundException",)
    deletion = Change("delete it", "logs", "delete_log_group", {"logGroupName": found.name}, harmless=missing)
    return Step("log group", found.name, "delete", (deletion,))


def _layer_step(name: str, number: int) -> Step:
    deletion = Change("delete it", "lambda", "delete_layer_version", {"LayerName": name, "VersionNumber": number})
    return Step("layer", f"{name}:{number}", "delete", (deletion,))


def _layers(client: Any, name: str) -> tuple[int, ...]:
    pages = client.get_paginator("list_layer_versions").paginate(LayerName=name)
    try:
        return tuple(one["Version"] for page in pages for one in page["LayerVersions"])
    except client.exceptions.ResourceNotFoundException:
        return ()


def _contents(client: Any, found: bucket.FoundBucket | None, account: str, folders: Sequence[str]) -> Contents:
    if found is None or not found.exists:
        return Contents()
    if not found.ours:  # what else lies there is nobody's business
        return Contents(sum(1 for folder in folders for _ in versions(client, found.name, account, folder)))
    counted = Contents()
    for one in versions(client, found.name, account, ""):
        if one["Key"].startswith(tuple(folders)):
            counted = replace(counted, ours=counted.ours + 1)
        else:
            counted = replace(counted, foreign=counted.foreign + 1, examples=(*counted.examples, one["Key"])[:3])
    return counted


def _bucket_step(
    found: bucket.FoundBucket,
    contents: Contents,
    config: Config,
    account: str,
    functions: Sequence[str],
    *,
    foreign_too: bool,
) -> Step:
    if not found.exists:
        return Step("bucket", found.name, "unchanged")
    owner = found.tags.get(bucket.TAG)
    goes = found.ours and owner in (None, config.function) and (foreign_too or not contents.foreign)
    folders = None if goes else our_folders(config, functions)
    of_ours = {"bucket": found.name, "account": account, "folders": folders}
    changes = []
    if contents.ours or (goes and contents.foreign):
        says = f"delete {contents.ours} objects of jobs"
        if goes and contents.foreign:
            says += f", and {contents.foreign} others, such as {', '.join(contents.examples)}"
        changes.append(Change(says, "objects", "delete", of_ours))
    if goes:
        deletion = {"Bucket": found.name, "ExpectedBucketOwner": account}
        changes += [
            Change("delete it", "s3", "delete_bucket", deletion, harmless=("NoSuchBucket",)),
            Change("", "memory", "forget_bucket", {"name": found.name}),
        ]
        return Step("bucket", found.name, "delete", tuple(changes))
    changes += bucket.lifecycle_removed(found.lifecycle, found.name, account, config.prefix, functions)
    if contents.foreign:
        why = f"{contents.foreign} objects in it are not wren's, such as {', '.join(contents.examples)}"
    else:
        why = f"it is function {owner!r}'s" if owner else "wren did not make it"
    return Step("bucket", found.name, "update" if changes else "keep", tuple(changes), (f"it stays: {why}",))
