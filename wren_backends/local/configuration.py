"""A function's settings: what may be set, with AWS's limits, and how it is shown.

What cannot be honoured here is refused.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .api_errors import constraint, invalid, unsupported

RUNTIMES = tuple(f"python3.{minor}" for minor in range(9, 15))
_ROLE = re.compile(r"arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+")
_HANDLER = re.compile(r"[^\s]{1,128}")
_ENVIRONMENT_BYTES = 4096
_RESERVED = frozenset(
    {
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
    }
)
# Settings that are fine as long as they say what is the case anyway.
_FIXED: dict[str, tuple[object, ...]] = {
    "DeadLetterConfig": ({}, {"TargetArn": ""}),
    "KMSKeyArn": ("",),
    "TracingConfig": ({}, {"Mode": "PassThrough"}),
    "FileSystemConfigs": ([],),
    "ImageConfig": ({},),
    "CodeSigningConfigArn": ("",),
    "PackageType": ("Zip",),
    "LoggingConfig": ({}, {"LogFormat": "Text"}),
    "CapacityProviderConfig": ({},),
    "DurableConfig": ({},),
    "TenancyConfig": ({},),
}


def host_architecture() -> str:
    """Return the architecture functions run on here, in AWS's words."""
    return "arm64" if platform.machine().lower() in ("arm64", "aarch64") else "x86_64"


@dataclass(frozen=True)
class FunctionSettings:
    """What a user sets of a function, apart from its code."""

    runtime: str
    role: str
    handler: str
    description: str = ""
    timeout_s: int = 3
    memory_mb: int = 128
    variables: Mapping[str, str] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    ephemeral_mb: int = 512
    snap_start: str = "None"
    architecture: str = field(default_factory=host_architecture)
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()

    def shown(self) -> dict[str, Any]:
        """Return these settings as the API shows them."""
        shown: dict[str, Any] = {
            "Runtime": self.runtime,
            "Role": self.role,
            "Handler": self.handler,
            "Description": self.description,
            "Timeout": self.timeout_s,
            "MemorySize": self.memory_mb,
            "EphemeralStorage": {"Size": self.ephemeral_mb},
            "PackageType": "Zip",
            "Architectures": [self.architecture],
            "TracingConfig": {"Mode": "PassThrough"},
        }
        if self.variables:
            shown["Environment"] = {"Variables": dict(self.variables)}
        if self.subnets:
            shown["VpcConfig"] = {
                "SubnetIds": list(self.subnets),
                "SecurityGroupIds": list(self.security_groups),
                "VpcId": "vpc-local",
                "Ipv6AllowedForDualStack": False,
            }
        return shown


def created(body: Mapping[str, Any]) -> FunctionSettings:
    """Read the settings of a CreateFunction request.

    Raises:
        ApiError: A value is missing, wrong or cannot be honoured.
    """
    for name, shown in (("Role", "role"), ("Runtime", "runtime"), ("Handler", "handler")):
        if not body.get(name):
            raise constraint("null", shown, "Member must not be null")
    return with_architecture(updated(FunctionSettings("", "", ""), body), body)


def updated(settings: FunctionSettings, body: Mapping[str, Any]) -> FunctionSettings:
    """Apply an UpdateFunctionConfiguration request.

    Raises:
        ApiError: A value is wrong or cannot be honoured.
    """
    for name, accepted in _FIXED.items():
        if body.get(name) is not None and body[name] not in accepted:
            raise unsupported(name, body[name])
    readers: dict[str, tuple[str, Callable[[Any], Any]]] = {
        "Runtime": ("runtime", _runtime),
        "Role": ("role", _role),
        "Handler": ("handler", _handler),
        "Description": ("description", _description),
        "Timeout": ("timeout_s", lambda value: _between(value, "timeout", 1, 900)),
        "MemorySize": ("memory_mb", lambda value: _between(value, "memorySize", 128, 10240)),
        "Environment": ("variables", _variables),
        "Layers": ("layers", _layers),
        "EphemeralStorage": ("ephemeral_mb", _ephemeral),
        "SnapStart": ("snap_start", _snap_start),
    }
    changes = {attribute: read(body[name]) for name, (attribute, read) in readers.items() if body.get(name) is not None}
    if body.get("VpcConfig") is not None:
        changes["subnets"], changes["security_groups"] = _network(body["VpcConfig"])
    return replace(settings, **changes)


def with_architecture(settings: FunctionSettings, body: Mapping[str, Any]) -> FunctionSettings:
    """Apply what a CreateFunction or UpdateFunctionCode request says of it; one that is not this machine's cannot run.

    Raises:
        ApiError: Lambda has no such architecture.
    """
    wanted = body.get("Architectures")
    if wanted is None:
        return settings
    if wanted not in (["x86_64"], ["arm64"]):
        raise constraint(wanted, "architectures", "Member must satisfy enum value set: [x86_64, arm64]")
    return replace(settings, architecture=wanted[0])


def _network(value: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Subnets and security groups, which are kept and shown; functions have this machine's network all the same."""
    subnets, groups = tuple(value.get("SubnetIds") or ()), tuple(value.get("SecurityGroupIds") or ())
    for one, prefix in [*((one, "subnet") for one in subnets), *((one, "sg") for one in groups)]:
        if not re.fullmatch(rf"{prefix}-[0-9a-zA-Z]+", one):
            raise constraint(
                one, "vpcConfig", f"Member must satisfy regular expression pattern: ^{prefix}-[0-9a-zA-Z]*$"
            )
    if bool(subnets) != bool(groups):
        raise invalid("SubnetIds and SecurityIds must coexist or be both empty list.")
    return subnets, groups


def _runtime(value: str) -> str:
    if value not in RUNTIMES:
        rule = f"Member must satisfy enum value set: [{', '.join(RUNTIMES)}] or be a valid ARN"
        raise invalid(f"Value {value} at 'runtime' failed to satisfy constraint: {rule}")
    return value


def _role(value: str) -> str:
    if not _ROLE.fullmatch(value):
        raise constraint(value, "role", f"Member must satisfy regular expression pattern: {_ROLE.pattern}")
    return value


def _handler(value: str) -> str:
    if not _HANDLER.fullmatch(value):
        raise constraint(value, "handler", r"Member must satisfy regular expression pattern: [^\s]+")
    return value


def _description(value: str) -> str:
    if len(value) > 256:
        raise constraint(value, "description", "Member must have length less than or equal to 256")
    return value


def _between(value: int, name: str, lowest: int, highest: int) -> int:
    if not isinstance(value, int) or value < lowest:
        raise constraint(value, name, f"Member must have value greater than or equal to {lowest}")
    if value > highest:
        raise constraint(value, name, f"Member must have value less than or equal to {highest}")
    return value


def _variables(value: Mapping[str, Any]) -> Mapping[str, str]:
    variables: dict[str, str] = dict(value.get("Variables") or {})
    prefix = (
        "Lambda was unable to configure your environment variables because the environment variables you have provided"
    )
    reserved = sorted(_RESERVED & variables.keys())
    if reserved:
        raise invalid(
            f"{prefix} contains reserved keys that are currently not supported for modification. "
            f"Reserved keys used in this request: {', '.join(reserved)}"
        )
    measured = json.dumps(variables, separators=(",", ":"))
    if len(measured.encode()) > _ENVIRONMENT_BYTES:
        raise invalid(f"{prefix} exceeded the 4KB limit. String measured: {measured}")
    for name in variables:
        if not re.fullmatch(r"[a-zA-Z]\w*", name):
            raise constraint(
                name,
                "environment.variables",
                r"Map keys must satisfy regular expression pattern: [a-zA-Z]([a-zA-Z0-9_])+",
            )
    return variables


def _layers(value: list[str]) -> tuple[str, ...]:
    if len(value) > 5:
        raise invalid("Layers count exceeded the limit of 5 layers")
    return tuple(value)


def _ephemeral(value: Mapping[str, Any]) -> int:
    size = _between(int(value["Size"]), "ephemeralStorage.size", 512, 10240)
    free_mb = shutil.disk_usage(tempfile.gettempdir()).free >> 20
    if size > max(free_mb, 512):
        raise invalid(f"EphemeralStorage of {size} MB is more than the {free_mb} MB that are free on this disk")
    return size


def _snap_start(value: Mapping[str, Any]) -> str:
    apply_on = str(value.get("ApplyOn") or "None")
    if apply_on not in ("None", "PublishedVersions"):
        raise constraint(apply_on, "snapStart.applyOn", "Member must satisfy enum value set: [PublishedVersions, None]")
    return apply_on
