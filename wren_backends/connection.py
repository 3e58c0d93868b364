"""Where calls go: endpoints, credentials, bucket and function, found once for a configuration.

This is the only place that decides between AWS and the local cloud; everything below it speaks HTTP to either.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lambda_worker.objects import ObjectStore
from wren_backends import redaction
from wren_backends.config import Config
from wren_backends.described import (
    account_of,
    architecture_of,
    check_bucket,
    describe,
    function_key_of,
    limit_of,
    name_of,
)
from wren_backends.errors import ConfigError, DeploymentError, StorageError

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
        function_key=function_key_of(described),
        memory_mb=limit_of(described, "MemorySize"),
        timeout_s=limit_of(described, "Timeout"),
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
        described = describe(client, config)
        check_bucket(session.client("s3"), config.bucket, account_of(described))
    except (ConfigError, DeploymentError, StorageError) as error:
        if error.__cause__ is not None and (wrong := about_region(session, error.__cause__)):
            raise ConfigError(wrong) from error.__cause__
        raise
    return Connection(
        is_local=False,
        region=session.region_name,
        bucket=config.bucket,
        prefix=config.prefix,
        function=name_of(described),
        lambda_url=client.meta.endpoint_url,
        s3_url=os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"),
        credentials=lambda: credentials,
        s3_credentials={"credential_provider": _s3_provider(credentials)},
        function_key=function_key_of(described),
        memory_mb=limit_of(described, "MemorySize"),
        timeout_s=limit_of(described, "Timeout"),
        max_workers=default_max_workers(config),
        proxy_url=proxy_url(client.meta.endpoint_url),
        ca_file=ca_file(session),
        architecture=architecture_of(described),
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
