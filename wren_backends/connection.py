"""Where calls go: endpoints, credentials, bucket and function, found once for a configuration.

This is the only place that decides between AWS and the local cloud; everything below it speaks HTTP to either.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lambda_worker.objects import ObjectStore
from lambda_worker.protocol import FUNCTION_KEY_VARIABLE, python_version, shown
from wren_backends import redaction
from wren_backends.config import Config
from wren_backends.errors import ConfigError, DeploymentError, ProtocolMismatchError, StorageError
from wren_backends.events import logger

_FUNCTION_KEY = re.compile(r"[0-9A-Fa-f]{64}")
_CA_VARIABLE = "SSL_CERT_FILE"
_AWS_CONCURRENCY = 1000  # AWS Lambda quotas: default concurrent executions of an account


def _no_client(service: str) -> Any:
    raise DeploymentError(f"there is no {service} where this connection leads")


def _no_size(memory_mb: int) -> Connection:
    raise DeploymentError(f"there is no function with {memory_mb} MB where this connection leads")


@dataclass(frozen=True)
class Connection:
    """A function and a bucket, ready to be used.

    Attributes:
        is_local: Whether they are the local cloud's.
        region: AWS region.
        bucket: S3 bucket.
        prefix: Key prefix in it.
        function: Name of the Lambda function.
        lambda_url: Endpoint of Lambda's API.
        s3_url: Endpoint of S3; None for AWS's own.
        credentials: Gives botocore credentials, refreshed when due; called for every signature.
        s3_credentials: What `ObjectStore.open_s3` wants: fixed ones, or a provider.
        function_key: The function's secret, 32 bytes.
        memory_mb: The function's memory.
        timeout_s: The function's time limit in seconds.
        max_workers: Invocations in flight unless configured otherwise.
        stats: Counts of the local cloud's own servers; None on AWS.
        proxy_url: HTTP proxy on the way to Lambda; None: none.
        ca_file: PEM file of the authorities that certificates may come from; None: those of the system.
        is_gone: Whether there is nothing to talk to any more, as of a local cloud that has ended; never waits.
        keeps_log: Whether the function's log outlives this program: that of a local cloud of its own does not.
        architecture: `x86_64` or `arm64`; empty: this machine's.
        open_client: Gives boto3's client of another service in the same place, one for each service.
        beside: Connects to the function with so many MB of memory that stands beside this one; raises as `connect`.
    """

    is_local: bool
    region: str
    bucket: str
    prefix: str
    function: str
    lambda_url: str
    s3_url: str | None
    credentials: Callable[[], Any] = field(repr=False)
    s3_credentials: Mapping[str, Any] = field(repr=False)
    function_key: bytes = field(repr=False)
    memory_mb: int
    timeout_s: int
    max_workers: int
    stats: Callable[[], dict[str, Any]] | None = None
    proxy_url: str | None = field(default=None, repr=False)  # it may hold a password
    ca_file: str | None = None
    is_gone: Callable[[], bool] = lambda: False
    keeps_log: bool = True
    architecture: str = ""
    open_client: Callable[[str], Any] = field(default=_no_client, repr=False)
    beside: Callable[[int], Connection] = field(default=_no_size, repr=False)


_lock = threading.Lock()
_known: dict[Config, Connection] = {}


def connect(config: Config) -> Connection:
    """Find (and for the local cloud: make) what `config` names; cached until it is gone.

    Raises:
        ConfigError: No bucket, region or credentials.
        DeploymentError: The function does not exist or is not one of ours.
        ProtocolMismatchError: It runs another Python than this process.
        StorageError: The bucket does not exist or is not ours to use.
    """
    redaction.install()
    with _lock:
        if config not in _known or _known[config].is_gone():
            _known.pop(config, None)
            _known[config] = _connect_local(config) if is_local(config) else _connect_aws(config)
        return _known[config]


def open_store(connection: Connection, prefix: str, retry_s: float = 60.0) -> ObjectStore:
    """Objects below `prefix` of the connection's bucket; no request is made.

    Args:
        connection: Bucket and credentials.
        prefix: Key prefix.
        retry_s: How long requests are tried again, in seconds.
    """
    with _trusting(connection.ca_file):
        return ObjectStore.open_s3(
            connection.bucket,
            prefix,
            region=connection.region,
            endpoint_url=connection.s3_url,
            retry_s=retry_s,
            **connection.s3_credentials,
        )


@contextmanager
def _trusting(ca_file: str | None) -> Iterator[None]:
    """Have a store that is made here trust the same authorities as boto3 does.

    obstore has no option for it, but reads this variable while it makes a client.
    """
    if ca_file is None:
        yield
        return
    with _lock:
        before, os.environ[_CA_VARIABLE] = os.environ.get(_CA_VARIABLE), ca_file
        try:
            yield
        finally:
            del os.environ[_CA_VARIABLE]
            if before is not None:
                os.environ[_CA_VARIABLE] = before


def connect_larger(config: Config) -> Connection | None:
    """As `connect`, for the function that runs calls again which ran out of memory; None if there is to be none."""
    larger = config.of_larger_function()
    return connect(larger) if larger else None


def connect_to_find(config: Config) -> Connection:
    """As `connect`, for what somebody has left there: a local cloud that does not run yet has nothing to be found.

    Raises:
        DeploymentError: No local cloud runs, and `config` means one; or as `connect` does.
    """
    if is_local(config):
        from wren_backends.local.cloud import find_shared, runs_private

        if find_shared() is None and not runs_private():
            raise DeploymentError(
                "no bucket is configured and no local cloud runs, so there are no jobs: set WREN_BUCKET, or start a "
                "local cloud with `wren local up` before the program that makes the job (one that a program starts by "
                "itself ends with it, and its jobs too)"
            )
    return connect(config)


def used() -> list[Connection]:
    """Connections that this process has made and that are not gone, the newest last."""
    with _lock:
        return [one for one in _known.values() if not one.is_gone()]


def forget(config: Config) -> None:
    """Have the next `connect` find out anew: what `config` names has just been deployed."""
    with _lock:
        _known.pop(config, None)


def is_local(config: Config) -> bool:
    """Whether `config` means the local cloud."""
    return config.cloud == "local" or (config.cloud == "auto" and not config.bucket)


def default_max_workers(config: Config) -> int:
    """Invocations in flight where none are configured: an AWS account's usual limit, or the CPUs that are here."""
    return max(2, os.cpu_count() or 1) if is_local(config) else _AWS_CONCURRENCY


def _forget_all() -> None:
    """After a fork the child has no local cloud and no connections of its own."""
    global _lock  # noqa: PLW0603  the lock may have been held by a thread that the child does not have
    _lock = threading.Lock()
    _known.clear()


os.register_at_fork(after_in_child=_forget_all)


def _connect_local(config: Config) -> Connection:
    from botocore.credentials import Credentials

    from wren_backends.deploy.local import ensure_local_function, prepare
    from wren_backends.deploy.session import local_client
    from wren_backends.local.cloud import find_shared, is_gone, start_private
    from wren_backends.local.errors import LocalCloudError
    from wren_backends.local.options import BUCKET

    with ThreadPoolExecutor(1) as pool:  # packing takes as long as starting, which is waiting
        pool.submit(prepare)
        try:
            shared = find_shared()
            cloud = shared or start_private()
        except LocalCloudError as error:
            raise DeploymentError(str(error)) from None  # it says all there is to say
    described = ensure_local_function(cloud, config, BUCKET)
    fixed = Credentials(cloud.access_key_id, cloud.secret_access_key)
    return Connection(
        is_local=True,
        region=cloud.region,
        bucket=BUCKET,
        prefix=config.prefix,
        function=described["FunctionName"],
        lambda_url=cloud.lambda_endpoint_url,
        s3_url=cloud.s3_endpoint_url,
        credentials=lambda: fixed,
        s3_credentials={
            "credentials": {
                "access_key_id": cloud.access_key_id,
                "secret_access_key": cloud.secret_access_key,
            }
        },
        function_key=_function_key(described),
        memory_mb=_limit(described, "MemorySize"),
        timeout_s=_limit(described, "Timeout"),
        max_workers=default_max_workers(config),
        stats=cloud.stats,
        keeps_log=shared is not None,
        is_gone=lambda: is_gone(cloud),
        open_client=_once(
            lambda service: local_client(
                service,
                region_name=cloud.region,
                endpoint_url=cloud.endpoint_url,
                aws_access_key_id=cloud.access_key_id,
                aws_secret_access_key=cloud.secret_access_key,
            )
        ),
        beside=lambda memory_mb: connect(config.of_size(memory_mb)),
    )


def _connect_aws(config: Config) -> Connection:
    if not config.bucket:
        raise ConfigError("cloud='aws' needs a bucket: set WREN_BUCKET to one of yours, or have `wren setup` make all")
    from wren_backends.deploy.session import about_region, aws_session, ca_file, proxy_url

    session = aws_session(config.region)
    credentials = session.get_credentials()
    if credentials is None:
        origin = Config.origins().get("bucket", "argument")
        raise ConfigError(
            f"no AWS credentials found for bucket {config.bucket!r} ({origin}): run `aws configure`, set AWS_PROFILE, "
            "or use the local cloud: WREN_CLOUD=local"
        )
    client = session.client("lambda")
    try:
        described = _describe_sized(client, config)
        _check_bucket(session.client("s3"), config.bucket, _account(described))
    except (ConfigError, DeploymentError, StorageError) as error:
        if error.__cause__ is not None and (wrong := about_region(session, error.__cause__)):
            raise ConfigError(wrong) from error.__cause__
        raise
    return Connection(
        is_local=False,
        region=session.region_name,
        bucket=config.bucket,
        prefix=config.prefix,
        function=_name(described),
        lambda_url=client.meta.endpoint_url,
        s3_url=os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"),
        credentials=lambda: credentials,
        s3_credentials={"credential_provider": _s3_provider(credentials)},
        function_key=_function_key(described),
        memory_mb=_limit(described, "MemorySize"),
        timeout_s=_limit(described, "Timeout"),
        max_workers=default_max_workers(config),
        proxy_url=proxy_url(client.meta.endpoint_url),
        ca_file=ca_file(session),
        architecture=_architecture(described),
        open_client=_once(lambda service: session.client(service, config=_patience())),
        beside=lambda memory_mb: connect(config.of_size(memory_mb)),
    )


def _patience() -> Any:
    """Whoever asks does so again and again, and may have to end meanwhile."""
    from botocore.config import Config as ClientConfig

    return ClientConfig(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2})


def _once(make: Callable[[str], Any]) -> Callable[[str], Any]:
    """Each client is made once, by one thread at a time: boto3's sessions are not safe for threads, its clients are."""
    lock, made = threading.Lock(), dict[str, Any]()

    def find(service: str) -> Any:
        with lock:
            if service not in made:
                made[service] = make(service)
            return made[service]

    return find


def _s3_provider(credentials: Any) -> Callable[[], dict[str, Any]]:
    """Credentials in obstore's form, asked for again before they expire."""

    def provide() -> dict[str, Any]:
        frozen = credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": getattr(credentials, "_expiry_time", None),
        }

    return provide


def _describe_sized(client: Any, config: Config) -> dict[str, Any]:
    """Configuration of the function with the memory that is asked for: the base, or one that stands beside it."""
    base = _describe(client, config.function, "make it with `wren setup`")
    has_mb, wanted_mb = base.get("MemorySize"), config.memory_mb
    if wanted_mb is None or has_mb == wanted_mb:
        return base
    how = (
        f"memory_mb={wanted_mb} asks for it, since {config.function!r} has {has_mb} MB. Make it beside that one with "
        f"`wren setup --size {wanted_mb}`, change that one with `wren deploy_lambda --memory {wanted_mb}`, or "
        "leave memory_mb out"
    )
    return _describe(client, config.name_of_size(wanted_mb), how)


def _describe(client: Any, function: str, how: str) -> dict[str, Any]:
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


def _check_bucket(client: Any, bucket: str, account: str) -> None:
    """A bucket that does not exist, or is not the account's, is better known now than with the first large argument."""
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


def _name(described: Mapping[str, Any]) -> str:
    name = described.get("FunctionName")
    if not isinstance(name, str) or not name:
        raise DeploymentError("what answers for Lambda describes a function without a name: check AWS_ENDPOINT_URL")
    return name


def _architecture(described: Mapping[str, Any]) -> str:
    found = described.get("Architectures")
    return str(found[0]) if isinstance(found, list) and found else "x86_64"


def _account(described: Mapping[str, Any]) -> str:
    """Number of the account that the function is in."""
    parts = str(described.get("FunctionArn")).split(":")
    if len(parts) < 7 or not parts[4].isdecimal():
        raise DeploymentError(
            f"the configuration of function {described.get('FunctionName')!r} has no FunctionArn with an account"
        )
    return parts[4]


def _limit(described: Mapping[str, Any], name: str) -> int:
    found = described.get(name)
    if not isinstance(found, int) or found <= 0:
        raise DeploymentError(f"the configuration of function {described.get('FunctionName')!r} has no {name}")
    return found


def _function_key(described: Mapping[str, Any]) -> bytes:
    variables = (described.get("Environment") or {}).get("Variables") or {}
    key = variables.get(FUNCTION_KEY_VARIABLE)
    if not isinstance(key, str) or not _FUNCTION_KEY.fullmatch(key):
        raise DeploymentError(
            f"function {described.get('FunctionName')!r} has no {FUNCTION_KEY_VARIABLE} of 64 hexadecimal digits: "
            "make it with `wren deploy_lambda`, or set WREN_FUNCTION to the right one"
        )
    return bytes.fromhex(key)
