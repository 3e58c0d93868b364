"""What AWS says of a function and of a bucket, checked before anything is sent there."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from lambda_worker.protocol import FUNCTION_KEY_VARIABLE, python_version, shown
from wren_backends.config import Config
from wren_backends.errors import ConfigError, DeploymentError, ProtocolMismatchError, StorageError
from wren_backends.events import logger

_FUNCTION_KEY = re.compile(r"[0-9A-Fa-f]{64}")


def describe(client: Any, config: Config) -> dict[str, Any]:
    """Configuration of the function with the memory that is asked for: the base, or one that stands beside it.

    Raises:
        ConfigError: The credentials are missing or refused.
        DeploymentError: There is no such function, or it cannot be described.
        ProtocolMismatchError: It runs another Python than this process.
    """
    base = _describe_one(client, config.function, "make it with `wren setup`")
    has_mb, wanted_mb = base.get("MemorySize"), config.memory_mb
    if wanted_mb is None or has_mb == wanted_mb:
        return base
    how = (
        f"memory_mb={wanted_mb} asks for it, since {config.function!r} has {has_mb} MB. Make it beside that one with "
        f"`wren setup --size {wanted_mb}`, change that one with `wren deploy_lambda --memory {wanted_mb}`, or "
        "leave memory_mb out"
    )
    return _describe_one(client, config.name_of_size(wanted_mb), how)


def _describe_one(client: Any, function: str, how: str) -> dict[str, Any]:
    """Configuration of the function, checked against this process; `how` says how it is made."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        found: dict[str, Any] = client.get_function_configuration(FunctionName=function)
    except NoCredentialsError as error:
        raise ConfigError(f"no AWS credentials: {error}; run `aws configure` or set AWS_PROFILE") from error
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code == "ResourceNotFoundException":
            raise DeploymentError(f"there is no Lambda function {function!r}: {how}") from error
        if code not in ("AccessDeniedException", "AccessDenied") and _status(error) == 403:
            raise ConfigError(f"AWS refuses the credentials ({error}): set them with `aws configure`") from error
        raise DeploymentError(
            f"function {function!r} cannot be described: {error}; the caller needs lambda:GetFunctionConfiguration"
        ) from error
    except BotoCoreError as error:
        raise DeploymentError(f"Lambda cannot be reached: {error}; check the region and the network") from error
    except Exception as error:  # botocore's parsers raise whatever comes of what is no answer of Lambda's
        raise DeploymentError(
            f"what answers for Lambda cannot be understood ({type(error).__name__}: {shown(str(error))}): check the "
            "region, and AWS_ENDPOINT_URL if it is set"
        ) from error
    ours = "python{}.{}".format(*python_version())
    if found.get("Runtime") != ours:
        raise ProtocolMismatchError(
            f"function {function!r} runs {found.get('Runtime')}, this process {ours}, and pickled code needs the same: "
            "deploy it again from this environment with `wren deploy_lambda --environment`"
        )
    logger.log(logging.DEBUG, "function.found name=%s memory_mb=%s", function, found.get("MemorySize"))
    return found


def check_bucket(client: Any, bucket: str, account: str) -> None:
    """See to it that a bucket can be used; that is better known now than with the first large argument.

    Raises:
        StorageError: It does not exist, is in another region, or is not the account's.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    from wren_backends.deploy.bucket import region_of

    try:
        answer = client.head_bucket(Bucket=bucket)
    except ClientError as error:
        # 403: the user may have no s3:ListBucket and still be allowed what calls need
        if _status(error) != 403:
            text = "does not exist" if _status(error) == 404 else f"cannot be used ({error})"
            raise StorageError(f"bucket {bucket!r} {text}: set WREN_BUCKET to one of yours, in this region") from error
    except BotoCoreError as error:
        raise StorageError(f"S3 cannot be reached: {error}; check the region and the network") from error
    else:
        if region_of(answer) not in (None, client.meta.region_name):  # botocore goes where S3 sends it
            raise StorageError(
                f"bucket {bucket!r} is in region {region_of(answer)}: set WREN_BUCKET to one of yours, in this region"
            )
        _check_owner(client, bucket, account)


def _check_owner(client: Any, bucket: str, account: str) -> None:
    """Whoever may list a bucket without saying whose it is, and may not when they do, is in somebody else's."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client.head_bucket(Bucket=bucket, ExpectedBucketOwner=account)
    except (BotoCoreError, ClientError) as error:
        if isinstance(error, ClientError) and _status(error) == 403:
            raise StorageError(
                f"bucket {bucket!r} is not account {account}'s, which the function is in, so somebody else could read "
                "all that is sent: set WREN_BUCKET to one of yours"
            ) from error
        raise StorageError(f"bucket {bucket!r} cannot be used ({error}): try again, or set WREN_BUCKET") from error


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def name_of(described: Mapping[str, Any]) -> str:
    """The function's name; raises DeploymentError if it has none."""
    name = described.get("FunctionName")
    if not isinstance(name, str) or not name:
        raise DeploymentError("what answers for Lambda describes a function without a name: check AWS_ENDPOINT_URL")
    return name


def architecture_of(described: Mapping[str, Any]) -> str:
    """`x86_64`, Lambda's default, or `arm64`."""
    found = described.get("Architectures")
    return str(found[0]) if isinstance(found, list) and found else "x86_64"


def account_of(described: Mapping[str, Any]) -> str:
    """Number of the account that the function is in; raises DeploymentError if none is said."""
    parts = str(described.get("FunctionArn")).split(":")
    if len(parts) < 7 or not parts[4].isdecimal():
        raise DeploymentError(
            f"the configuration of function {described.get('FunctionName')!r} has no FunctionArn with an account"
        )
    return parts[4]


def limit_of(described: Mapping[str, Any], name: str) -> int:
    """`MemorySize` in MB, or `Timeout` in seconds; raises DeploymentError if it is not said."""
    found = described.get(name)
    if not isinstance(found, int) or found <= 0:
        raise DeploymentError(f"the configuration of function {described.get('FunctionName')!r} has no {name}")
    return found


def function_key_of(described: Mapping[str, Any]) -> bytes:
    """The function's secret, 32 bytes; raises DeploymentError if it is not one of ours."""
    variables = (described.get("Environment") or {}).get("Variables") or {}
    key = variables.get(FUNCTION_KEY_VARIABLE)
    if not isinstance(key, str) or not _FUNCTION_KEY.fullmatch(key):
        raise DeploymentError(
            f"function {described.get('FunctionName')!r} has no {FUNCTION_KEY_VARIABLE} of 64 hexadecimal digits: "
            "make it with `wren deploy_lambda`, or set WREN_FUNCTION to the right one"
        )
    return bytes.fromhex(key)
