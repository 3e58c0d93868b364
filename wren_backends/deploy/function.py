"""Creates the Lambda function, or brings it up to date, on AWS and on the local cloud alike."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lambda_worker.protocol import FUNCTION_KEY_VARIABLE, python_version
from wren_backends import redaction
from wren_backends.config import DEFAULT_MEMORY_MB, DEFAULT_TIMEOUT_S
from wren_backends.deploy.package import HANDLER, function_zip
from wren_backends.deploy.plan import Change, Step, brought_up_to_date, carry_out
from wren_backends.deploy.role import ADOPTED, TAG
from wren_backends.deploy.target import Target
from wren_backends.errors import DeploymentError

EVENT_AGE_S = 3600
"""Longest that an asynchronous invocation waits in Lambda's queue, in seconds (MaximumEventAgeInSeconds)."""

STACK_TAG = "aws:cloudformation:stack-name"
"""Key of the tag that CloudFormation puts on what a stack of its has made."""

_PASSING = (
    "cannot be assumed by Lambda",
    "does not have permissions to call",
    "KMS key is invalid for CreateGrant",  # so says KMS of a role that it has not heard of yet
)
_NONE: Mapping[str, Any] = {}


@dataclass(frozen=True)
class FunctionSpec:
    """What a function has to be like. What is None or empty is left as it is, or as Lambda makes it.

    Attributes:
        name: Its name.
        role: ARN of the role it runs as; empty: the one that it has.
        bucket: Bucket that records of failed asynchronous invocations go to.
        memory_mb: Its memory; of a new one 1769 MB.
        timeout_s: Its time limit in seconds; of a new one 900.
        layers: ARNs of layer versions with the user's packages; None: those that it has.
        variables: Environment variables beside the ones that are made here; an empty one is taken away.
        architecture: `x86_64` or `arm64`; None: what it has, or this machine's.
        ephemeral_mb: Its disk at /tmp.
        reserved_concurrency: Invocations that are kept for it, and that it is limited to.
        subnets: Subnets of a VPC that it is put into.
        security_groups: Security groups that it has there.
        tags: Tags beside our own.
        base: Name of the function that it stands beside, or empty.
    """

    name: str
    role: str
    bucket: str
    memory_mb: int | None = None
    timeout_s: int | None = None
    layers: tuple[str, ...] | None = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    architecture: str | None = None
    ephemeral_mb: int | None = None
    reserved_concurrency: int | None = None
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    base: str = ""


@dataclass(frozen=True)
class FoundFunction:
    """A function as it is.

    Attributes:
        configuration: Its configuration; None if it is not there.
        tags: Its tags.
        reserved_concurrency: What is kept for it.
        events: How its asynchronous invocations are handled; None if nobody has said so.
    """

    configuration: Mapping[str, Any] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    reserved_concurrency: int | None = None
    events: Mapping[str, Any] | None = None

    @property
    def variables(self) -> dict[str, str]:
        """Its environment variables."""
        return dict(((self.configuration or {}).get("Environment") or {}).get("Variables") or {})

    @property
    def layers(self) -> tuple[str, ...]:
        """ARNs of its layers."""
        return tuple(layer["Arn"] for layer in (self.configuration or {}).get("Layers") or ())

    @property
    def architecture(self) -> str | None:
        """Its architecture, if it is there."""
        return str(self.configuration["Architectures"][0]) if self.configuration else None

    @property
    def ours(self) -> bool:
        """Whether it is a function of this library's, whoever has made it."""
        handler = (self.configuration or {}).get("Handler")
        return TAG in self.tags or FUNCTION_KEY_VARIABLE in self.variables or handler == HANDLER


def deploy(client: Any, spec: FunctionSpec) -> dict[str, Any]:
    """Make the function what `spec` says, with this machine's worker, and return its configuration.

    A function that exists keeps its secret, so that jobs that are under way go on. Nothing is sent that would change
    nothing.

    Args:
        client: boto3 client of Lambda.
        spec: What it has to be like.

    Raises:
        DeploymentError: A package of the worker's is missing, or there is another function of that name.
        botocore.exceptions.ClientError: AWS refuses.
    """
    redaction.install()
    carry_out(step(look(client, spec.name), spec, function_zip()), {"lambda": client})
    return dict(client.get_function_configuration(FunctionName=spec.name))


def look(client: Any, name: str) -> FoundFunction:
    """Find out what a function is like.

    Raises:
        botocore.exceptions.ClientError: Lambda refuses.
    """
    missing = client.exceptions.ResourceNotFoundException
    try:
        found = client.get_function(FunctionName=name)
    except missing:
        return FoundFunction()
    try:
        events = client.get_function_event_invoke_config(FunctionName=name)
    except missing:
        events = None
    reserved = (found.get("Concurrency") or {}).get("ReservedConcurrentExecutions")
    return FoundFunction(found["Configuration"], found.get("Tags") or {}, reserved, events)


def step(found: FoundFunction, spec: FunctionSpec, code: bytes, *, adopt: bool = False) -> Step:
    """What makes a function what it has to be.

    Args:
        found: What it is.
        spec: What it has to be.
        code: Its zip.
        adopt: Take over a function that is none of this library's.

    Raises:
        DeploymentError: It is somebody else's, or does not show its environment variables.
    """
    there = found.configuration
    if there is None:
        changes = _creation(spec, code)
        return brought_up_to_date("function", spec.name, exists=False, changes=changes)
    if not found.ours and not adopt:
        raise DeploymentError(
            f"there is a Lambda function {spec.name!r} that wren did not make: give another name with --name "
            "(WREN_FUNCTION), or take it over with --adopt, which replaces its code and settings"
        )
    base = spec.base or spec.name
    if found.tags.get(TAG, base) != base and not adopt:
        raise DeploymentError(
            f"function {spec.name!r} was made for function {found.tags[TAG]!r}: give another name with --name "
            "(WREN_FUNCTION), or take it over with --adopt, which replaces its code and settings"
        )
    hidden = (there.get("Environment") or {}).get("Error")
    if hidden:
        raise DeploymentError(
            f"function {spec.name!r} does not show its environment variables ({hidden}): you need kms:Decrypt for the "
            "key that encrypts them"
        )
    changes = [*_code_changes(found, spec, code), *_setting_changes(found, spec)]
    changes += [*_event_changes(found, spec), *_concurrency_changes(found, spec)]
    notes = []
    if STACK_TAG in found.tags:
        notes.append(f"CloudFormation's stack {found.tags[STACK_TAG]!r} has made it: change its settings there too")
    else:
        changes += _tag_changes(found, spec)
    return brought_up_to_date("function", spec.name, exists=True, changes=changes, notes=notes)


def _creation(spec: FunctionSpec, code: bytes) -> list[Change]:
    architecture = spec.architecture or Target.here().architecture
    wanted = _wanted(FoundFunction(), spec)
    parameters = {
        "FunctionName": spec.name,
        "Code": {"ZipFile": code},
        "Architectures": [architecture],
        **wanted,
        "Tags": _tags(spec),
    }
    says = f"make it: {wanted['Runtime']}, {architecture}, {wanted['MemorySize']} MB, {wanted['Timeout']} s"
    # Somebody else may be quicker.
    harmless = ("ResourceConflictException",)
    making = Change(says, "lambda", "create_function", parameters, "function_active", harmless, _PASSING)
    empty = FoundFunction({})
    return [making, *_event_changes(empty, spec), *_concurrency_changes(empty, spec)]


def _code_changes(found: FoundFunction, spec: FunctionSpec, code: bytes) -> list[Change]:
    there, architecture = found.configuration or {}, spec.architecture or found.architecture
    says = []
    if there["CodeSha256"] != base64.b64encode(hashlib.sha256(code).digest()).decode():
        says.append("its code is another version of the worker")
    if there["Architectures"] != [architecture]:
        says.append(f"architecture {there['Architectures'][0]} -> {architecture}")
    if not says:
        return []
    parameters = {"FunctionName": spec.name, "ZipFile": code, "Architectures": [architecture]}
    return [Change(", ".join(says), "lambda", "update_function_code", parameters, "function_updated")]


def _setting_changes(found: FoundFunction, spec: FunctionSpec) -> list[Change]:
    wanted, there = _wanted(found, spec), _present(found)
    changed = {name: value for name, value in wanted.items() if there.get(name) != value}
    if not changed:
        return []
    says = ", ".join(_said(name, there.get(name), value) for name, value in changed.items())
    parameters = {"FunctionName": spec.name, **changed}
    return [Change(says, "lambda", "update_function_configuration", parameters, "function_updated", refusals=_PASSING)]


def _wanted(found: FoundFunction, spec: FunctionSpec) -> dict[str, Any]:
    """The settings that a function has to have, as Lambda's API calls them."""
    new = found.configuration is None
    variables = {name: value for name, value in {**found.variables, **spec.variables}.items() if value != ""}
    variables.setdefault(FUNCTION_KEY_VARIABLE, secrets.token_hex(32))
    network = {"SubnetIds": list(spec.subnets), "SecurityGroupIds": list(spec.security_groups)}
    wanted = {
        "Runtime": "python{}.{}".format(*python_version()),
        "Role": spec.role or None,
        "Handler": HANDLER,
        "Layers": None if spec.layers is None else list(spec.layers),
        "MemorySize": spec.memory_mb or (DEFAULT_MEMORY_MB if new else None),
        "Timeout": spec.timeout_s or (DEFAULT_TIMEOUT_S if new else None),
        "Environment": {"Variables": variables},
        "EphemeralStorage": {"Size": spec.ephemeral_mb} if spec.ephemeral_mb else None,
        "VpcConfig": network if spec.subnets else None,
    }
    return {name: value for name, value in wanted.items() if value is not None and not (new and value == [])}


def _present(found: FoundFunction) -> dict[str, Any]:
    """A function's settings in the form in which they are given."""
    there = found.configuration or _NONE
    network = there.get("VpcConfig") or {}
    return {
        **there,
        "Layers": list(found.layers),
        "Environment": {"Variables": found.variables},
        "VpcConfig": {name: network.get(name) or [] for name in ("SubnetIds", "SecurityGroupIds")},
    }


def _said(name: str, old: Any, new: Any) -> str:
    """A change of a setting in a few words; of environment variables, which may be secrets, the names."""
    if name == "Environment":
        before, after = old["Variables"], new["Variables"]
        differing = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
        return f"environment variables {', '.join(differing)}"
    if name == "Layers":
        return f"layers {_short(old)} -> {_short(new)}"
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    if isinstance(new, dict):
        old, new = ("/".join(map(str, (one or {}).values())) for one in (old, new))
    return f"{words} {old} -> {new}"


def _short(arns: Any) -> str:
    return ", ".join(":".join(str(arn).split(":")[-2:]) for arn in arns or ()) or "none"


def _event_changes(found: FoundFunction, spec: FunctionSpec) -> list[Change]:
    """Retrying is ours, and a crash has to be heard of where the client looks: in the bucket."""
    there = found.events or {}
    partition = (spec.role or str((found.configuration or {}).get("Role") or "arn:aws")).split(":")[1]
    destination = f"arn:{partition}:s3:::{spec.bucket}"
    present = (
        there.get("MaximumRetryAttempts"),
        there.get("MaximumEventAgeInSeconds"),
        ((there.get("DestinationConfig") or {}).get("OnFailure") or {}).get("Destination"),
    )
    if present == (0, EVENT_AGE_S, destination):
        return []
    parameters = {
        "FunctionName": spec.name,
        "MaximumRetryAttempts": 0,
        "MaximumEventAgeInSeconds": EVENT_AGE_S,
        "DestinationConfig": {"OnFailure": {"Destination": destination}},
    }
    says = f"no retries of Lambda's own, records of failures go to s3://{spec.bucket}"
    return [Change(says, "lambda", "put_function_event_invoke_config", parameters, refusals=_PASSING)]


def _concurrency_changes(found: FoundFunction, spec: FunctionSpec) -> list[Change]:
    wanted = spec.reserved_concurrency
    if wanted is None or wanted == found.reserved_concurrency:
        return []
    parameters = {"FunctionName": spec.name, "ReservedConcurrentExecutions": wanted}
    return [Change(f"keep {wanted} invocations for it, and no more", "lambda", "put_function_concurrency", parameters)]


def _tags(spec: FunctionSpec) -> dict[str, str]:
    return {**spec.tags, TAG: spec.base or spec.name}


def _tag_changes(found: FoundFunction, spec: FunctionSpec) -> list[Change]:
    wanted = _tags(spec)
    if found.tags.get(TAG) != wanted[TAG]:  # what we make has it from the start
        wanted[ADOPTED] = "true"
    if wanted.items() <= found.tags.items():
        return []
    arn = str((found.configuration or {})["FunctionArn"])
    says = "tag it as taken over" if ADOPTED in wanted else "tag it as ours"
    return [Change(says, "lambda", "tag_resource", {"Resource": arn, "Tags": wanted})]
