"""Creates the Lambda function, or brings it up to date, on AWS and on the local cloud alike."""

from __future__ import annotations

import contextlib
import platform
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lambda_worker.protocol import FUNCTION_KEY_VARIABLE, python_version
from wren_backends import redaction
from wren_backends.deploy.package import HANDLER, function_zip
from wren_backends.errors import DeploymentError

EVENT_AGE_S = 3600
"""Longest that an asynchronous invocation waits in Lambda's queue, in seconds (MaximumEventAgeInSeconds)."""

_ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True)
class FunctionSpec:
    """What a function has to be like.

    Attributes:
        name: Its name.
        role: ARN of the role it runs as.
        bucket: Bucket that records of failed asynchronous invocations go to.
        memory_mb: Its memory.
        timeout_s: Its time limit in seconds.
        layers: ARNs of layer versions with the user's packages.
        variables: Environment variables beside the ones that are made here.
    """

    name: str
    role: str
    bucket: str
    memory_mb: int
    timeout_s: int
    layers: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


def deploy(client: Any, spec: FunctionSpec) -> dict[str, Any]:
    """Make the function what `spec` says, with the worker of this environment, and return its configuration.

    A function that exists keeps its secret, so that jobs that are under way go on.

    Args:
        client: boto3 client of Lambda.
        spec: What it has to be like.

    Raises:
        DeploymentError: The packages of this machine do not run on Lambda.
        botocore.exceptions.ClientError: AWS refuses.
    """
    redaction.install()
    existing = _describe(client, spec.name)
    settings = _settings(spec, existing)
    if existing is None:
        with contextlib.suppress(client.exceptions.ResourceConflictException):  # somebody else was quicker
            client.create_function(Code={"ZipFile": function_zip()}, Architectures=[_architecture()], **settings)
        client.get_waiter("function_active_v2").wait(FunctionName=spec.name)
    else:
        client.update_function_code(FunctionName=spec.name, ZipFile=function_zip(), Architectures=[_architecture()])
        client.get_waiter("function_updated_v2").wait(FunctionName=spec.name)
        client.update_function_configuration(**settings)
        client.get_waiter("function_updated_v2").wait(FunctionName=spec.name)
    # Retrying is ours, and a crash has to be heard of where the client looks: in the bucket.
    client.put_function_event_invoke_config(
        FunctionName=spec.name,
        MaximumRetryAttempts=0,
        MaximumEventAgeInSeconds=EVENT_AGE_S,
        DestinationConfig={"OnFailure": {"Destination": f"arn:aws:s3:::{spec.bucket}"}},
    )
    return dict(client.get_function_configuration(FunctionName=spec.name))


def _describe(client: Any, name: str) -> dict[str, Any] | None:
    try:
        return dict(client.get_function_configuration(FunctionName=name))
    except client.exceptions.ResourceNotFoundException:
        return None


def _settings(spec: FunctionSpec, existing: Mapping[str, Any] | None) -> dict[str, Any]:
    variables = dict((existing or {}).get("Environment", {}).get("Variables", {})) | dict(spec.variables)
    variables.setdefault(FUNCTION_KEY_VARIABLE, secrets.token_hex(32))
    return {
        "FunctionName": spec.name,
        "Runtime": "python{}.{}".format(*python_version()),
        "Role": spec.role,
        "Handler": HANDLER,
        "Layers": list(spec.layers),
        "MemorySize": spec.memory_mb,
        "Timeout": spec.timeout_s,
        "Environment": {"Variables": variables},
    }


def _architecture() -> str:
    """Lambda's name for this machine's: the zip holds this machine's builds of obstore and blake3."""
    found = _ARCHITECTURES.get(platform.machine().lower())
    if found is None or sys.platform != "linux":
        raise DeploymentError(
            f"this machine is {sys.platform} on {platform.machine()}, and the function's packages are taken from it: "
            "deploy from Linux on x86_64 or arm64"
        )
    return found
