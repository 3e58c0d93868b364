"""Opens boto3's sessions: the user's for AWS, and one for the local cloud that nothing of the user's can disturb."""

from __future__ import annotations

import difflib
import functools
import os
from typing import Any

from wren_backends.errors import ConfigError


def aws_session(region: str | None) -> Any:
    """The session that boto3's configuration describes, its profile read.

    Args:
        region: AWS region; None: boto3's.

    Raises:
        ConfigError: The configuration cannot be read, names a profile or a file that is not there, or has no region.
    """
    import boto3
    from botocore.exceptions import BotoCoreError
    from botocore.utils import validate_region_name

    try:
        session = boto3.session.Session(region_name=region)
        session.get_credentials()
        found = session.region_name
    except BotoCoreError as error:
        raise ConfigError(
            f"boto3 cannot use the AWS configuration: {error}. Set AWS_PROFILE to one of `aws configure list-profiles` "
            "or mend ~/.aws/config, or use the local cloud: WREN_CLOUD=local"
        ) from None
    if not found:
        unread = " (AWS_REGION is set, but boto3 does not read it)" if os.environ.get("AWS_REGION") else ""
        raise ConfigError(
            f"no AWS region{unread}: set WREN_REGION or AWS_DEFAULT_REGION, or run `aws configure`; `wren setup`, "
            "`create_config` and `deploy_lambda` take --region too"
        )
    try:
        validate_region_name(found)
    except BotoCoreError:
        raise ConfigError(_no_such_region(session, found)) from None
    ca_file(session)
    return session


def about_region(session: Any, error: BaseException) -> str:
    """What is wrong with the session's region, if that is what a request failed for; else nothing.

    A region that boto3 does not know may be newer than boto3, so it counts only where nobody answers.

    Args:
        session: A session of boto3's.
        error: What the request raised.
    """
    from botocore.exceptions import BotoCoreError

    region = session.region_name
    if "scoped to a valid region" in str(error):
        return (
            f"what answers there is not region {region!r} ({error}): set WREN_REGION or --region to the one that it is"
        )
    if isinstance(error, BotoCoreError) and region not in _regions(session):
        return f"{_no_such_region(session, region)} ({error})"
    return ""


def _no_such_region(session: Any, region: str) -> str:
    close = difflib.get_close_matches(region, _regions(session), 1)
    meant = f"is it {close[0]!r}? Set" if close else "set"
    return f"boto3 knows no AWS region {region!r}: {meant} WREN_REGION or --region to one of AWS's"


def _regions(session: Any) -> list[str]:
    return [one for part in session.get_available_partitions() for one in session.get_available_regions("lambda", part)]


def ca_file(session: Any) -> str | None:
    """PEM file of the authorities that boto3 trusts: AWS_CA_BUNDLE, the profile's `ca_bundle` or botocore's own.

    Args:
        session: A session of boto3's.

    Raises:
        ConfigError: There is no such file.
    """
    from botocore.httpsession import get_cert_path

    named = session._session.get_config_variable("ca_bundle")
    if named and not os.path.isfile(named):
        raise ConfigError(f"AWS_CA_BUNDLE (or ca_bundle in ~/.aws/config) names {named!r}, which is not a file")
    found = named or get_cert_path(verify=True)
    return str(found) if found else None


def proxy_url(url: str) -> str | None:
    """The proxy that the environment names for `url`, by the rules of boto3 (HTTPS_PROXY, NO_PROXY).

    For plain HTTP it is not asked: then the server is one of the user's own, near by.
    """
    from botocore.utils import get_environ_proxies

    return get_environ_proxies(url).get("https") if url.startswith("https:") else None


def partition_of(region: str | None) -> str:
    """The partition that a region is in: `aws` where boto3 knows no such region, or none is named."""
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        return str(boto3.session.Session().get_partition_for_region(region)) if region else "aws"
    except BotoCoreError:
        return "aws"


def default_region() -> str | None:
    """The region that boto3's configuration names, if it names any."""
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        found = boto3.session.Session().region_name
    except BotoCoreError:
        return None
    return str(found) if found else None


@functools.cache
def local_session() -> Any:
    """One session for all clients, since each new one reads the descriptions of the services again."""
    import boto3
    import botocore.session

    nothing = (None, None, None, None)
    no_file = (None, None, os.devnull, None)
    own = {"profile": nothing, "config_file": no_file, "credentials_file": no_file}
    return boto3.session.Session(botocore_session=botocore.session.Session(session_vars=own))


def local_client(service: str, **more: Any) -> Any:
    """A client of the local cloud: never by way of a proxy, which the environment names for the world outside."""
    from botocore.config import Config

    return local_session().client(service, config=Config(proxies={}), **more)
