"""Opens boto3's sessions: the user's for AWS, and one for the local cloud that nothing of the user's can disturb."""

from __future__ import annotations

import functools
import os
from typing import Any

from wren_backends.errors import ConfigError


def aws_session(region: str | None) -> Any:
    """The session that boto3's configuration describes, its profile read.

    Args:
        region: AWS region; None: boto3's.

    Raises:
        ConfigError: The configuration cannot be read, names a profile that is not there, or has no region.
    """
    import boto3
    from botocore.exceptions import BotoCoreError

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
        raise ConfigError("no AWS region: set WREN_REGION or AWS_DEFAULT_REGION, or run `aws configure`")
    return session


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
