"""Removes what `wren setup` has made, found by its tags, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wren_backends.config import Config
from wren_backends.deploy import bucket, emptying, function, log_group, role
from wren_backends.deploy.packages_step import layer_name
from wren_backends.deploy.plan import Change, Plan, Step
from wren_backends.deploy.publishing import DESCRIPTION
from wren_backends.deploy.setup import AwsParts, functions_beside

_ADOPTED = "it was there before `wren setup --adopt` took it over: delete it yourself"


@dataclass(frozen=True)
class Remains:
    """What there is to be removed, or to be left.

    Attributes:
        functions: Functions by name, the base first.
        log_groups: Their log groups.
        roles: The role.
        layers: Numbers of our versions of the packages' layer.
        bucket: The bucket; None if none is known.
        contents: What lies in it.
        settings: What the user's file says that we have written.
        settings_of: The function that the file is about.
        path: That file.
    """

    functions: dict[str, function.FoundFunction]
    log_groups: tuple[log_group.FoundLogGroup, ...]
    role: role.FoundRole
    layers: tuple[int, ...]
    bucket: bucket.FoundBucket | None
    contents: emptying.Contents
    settings: dict[str, Any]
    settings_of: str
    path: str


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
    names = list(dict.fromkeys((config.function, *config.sizes_beside(None), *functions_beside(lambda_client, config))))
    functions = {name: function.look(lambda_client, name) for name in names}
    name = config.bucket or bucket.find_ours(parts["s3"], account, str(config.region), config.function)
    being_made = name in parts["memory"].buckets(account)
    found = bucket.look(parts["s3"], name, account, being_made=being_made) if name else None
    return Remains(
        functions=functions,
        log_groups=tuple(log_group.look(parts["logs"], name) for name in names),
        role=role.look(parts["iam"], role_name),
        layers=_layers(lambda_client, layer_name(config.function)),
        bucket=found,
        contents=emptying.look(
            parts["s3"], found, account, config, emptying.own_functions(found, config.function, names)
        ),
        settings=parts["settings"].marked(),
        settings_of=str(parts["settings"].values().get("function", Config().function)),
        path=str(parts["settings"].path),
    )


def plan(
    remains: Remains, config: Config, account: str, *, foreign_too: bool = False, shared_too: bool = False
) -> Plan:
    """What has to be done to remove it, in an order that can be interrupted.

    A function that stays keeps what it needs: role, log group, packages, bucket and settings.

    Args:
        remains: What there is.
        config: Settings.
        account: The account's number.
        foreign_too: Whether a bucket of ours is deleted with objects in it that are not.
        shared_too: Whether objects go that other functions with this prefix may have, too.
    """
    base = config.function
    steps = [function_step(name, found, base) for name, found in remains.functions.items()]
    staying = [
        step.name for step in steps if step.state == "keep" and _counts(remains.functions[step.name], base, step)
    ]
    groups = [_log_group_step(one, base) for one in remains.log_groups if one.arn]
    kept_groups = {log_group.log_group_name(one) for one in staying}
    steps += [_kept(one, staying) if one.name in kept_groups else one for one in groups]
    steps += [] if staying else [_layer_step(layer_name(base), number) for number in remains.layers]
    steps.append(_kept(role_step(remains.role, base), staying))
    if remains.bucket is not None and not staying:
        names = list(remains.functions)
        more = {"foreign_too": foreign_too, "shared_too": shared_too}
        steps.append(emptying.step(remains.bucket, remains.contents, config, account, names, **more))
    elif remains.bucket is not None and remains.bucket.exists:
        steps.append(Step("bucket", remains.bucket.name, "keep", (), (_needed_by(staying),)))
    if remains.settings:
        steps.append(_settings_step(remains, base, staying))
    return Plan(tuple(step for step in steps if step.state != "unchanged"))


def _counts(found: function.FoundFunction, base: str, step: Step) -> bool:
    """Whether a function that stays is one of ours; another base's may have the name of a size of ours."""
    return step.name == base or found.tags.get(role.TAG) in (None, base)


def _needed_by(staying: list[str]) -> str:
    return f"function {staying[0]!r} stays and needs it"


def _kept(step: Step, staying: list[str]) -> Step:
    """A step as it was planned, or none if a function stays."""
    if step.state != "delete" or not staying:
        return step
    return Step(step.what, step.name, "keep", (), (_needed_by(staying),))


def _settings_step(remains: Remains, base: str, staying: list[str]) -> Step:
    if remains.settings_of != base:
        return Step("settings", remains.path, "keep", (), (f"they are function {remains.settings_of!r}'s",))
    names = list(remains.settings)
    removing = Change(f"take out {', '.join(names)}", "settings", "remove", {"names": names})
    return _kept(Step("settings", remains.path, "delete", (removing,)), staying)


def function_step(name: str, found: function.FoundFunction, base: str) -> Step:
    """The deletion of a function that is ours."""
    if found.configuration is None:
        return Step("function", name, "unchanged")
    if found.tags.get(role.TAG) != base:
        return Step("function", name, "keep", (), (_whose(found.tags, base),))
    if role.ADOPTED in found.tags:
        return Step("function", name, "keep", (), (_ADOPTED,))
    missing = ("ResourceNotFoundException",)
    deletion = Change("delete it", "lambda", "delete_function", {"FunctionName": name}, harmless=missing)
    return Step("function", name, "delete", (deletion,))


def role_step(found: role.FoundRole, base: str) -> Step:
    """The deletion of a role that is ours."""
    if not found.arn:
        return Step("role", found.name, "unchanged")
    if found.owner != base:
        return Step("role", found.name, "keep", (), (_whose(found.tags, base),))
    if role.ADOPTED in found.tags:
        return Step("role", found.name, "keep", (), (_ADOPTED,))
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


def _log_group_step(found: log_group.FoundLogGroup, base: str) -> Step:
    """The deletion of a group that set-up has made. One without a tag may be older than the function: it stays."""
    if found.tags.get(role.TAG) != base:
        why = f"{_whose(found.tags, base)}; to delete it: aws logs delete-log-group --log-group-name {found.name}"
        return Step("log group", found.name, "keep", (), (why,))
    missing = ("ResourceNotFoundException",)
    deletion = Change("delete it", "logs", "delete_log_group", {"logGroupName": found.name}, harmless=missing)
    return Step("log group", found.name, "delete", (deletion,))


def _layer_step(name: str, number: int) -> Step:
    deletion = Change("delete it", "lambda", "delete_layer_version", {"LayerName": name, "VersionNumber": number})
    return Step("layer", f"{name}:{number}", "delete", (deletion,))


def _layers(client: Any, name: str) -> tuple[int, ...]:
    """Numbers of the versions that we have published; layers have no tags."""
    pages = client.get_paginator("list_layer_versions").paginate(LayerName=name)
    try:
        found = [one for page in pages for one in page["LayerVersions"]]
        return tuple(one["Version"] for one in found if str(one.get("Description", "")).startswith(DESCRIPTION))
    except client.exceptions.ResourceNotFoundException:
        return ()
