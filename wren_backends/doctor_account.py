"""What the examinations of an AWS account share: what they find, how they ask, and what it means not to be answered."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from wren_backends import redaction
from wren_backends.config import Config
from wren_backends.errors import WrenError

Status = Literal["pass", "warn", "fail", "unknown"]

_RIGHTS = {
    "s3:HeadBucket": "s3:ListBucket",
    "s3:GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "s3:GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
}
"""Rights that have another name than the operation (Service Authorization Reference)."""

_NOT_HERE = ("NotImplemented", "MethodNotAllowed", "UnknownOperationException", "501", "405")


@dataclass(frozen=True)
class Finding:
    """What is known of one part.

    Attributes:
        what: The part.
        status: `pass`; `warn`: it works, but may not be what is wanted; `fail`: calls will fail or worse; `unknown`: it
            could not be looked at.
        found: What was found.
        fix: What to type, or to do.
    """

    what: str
    status: Status
    found: str
    fix: str = ""


class DeniedError(Exception):
    """The caller may not ask; the message is the right that it takes."""


@dataclass
class Account:
    """What has been learnt so far; `is_usable` says whether a call is worth making."""

    config: Config
    is_usable: bool = True
    account_id: str = ""
    partition: str = "aws"
    region: str = ""
    session: Any = None
    _clients: dict[str, Any] = field(default_factory=dict)
    _functions: list[Config] | None = None

    def __post_init__(self) -> None:
        redaction.install()

    def functions(self) -> list[Config]:
        """Settings of each function: those that the settings name and, if the caller may list them, all there are."""
        from botocore.exceptions import BotoCoreError, ClientError

        from wren_backends.deploy.setup import functions_beside

        if self._functions is None:
            there: dict[str, int] = {}
            with contextlib.suppress(BotoCoreError, ClientError):  # what is wrong is said of each part
                there = functions_beside(self.session.client("lambda"), self.config)
            self._functions = self.config.each_function(there)
        return self._functions

    def ask(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """Make one request.

        Raises:
            DeniedError: The caller may not.
            botocore.exceptions.ClientError: It was refused otherwise.
            botocore.exceptions.BotoCoreError: There was no answer.
        """
        from botocore.config import Config as ClientConfig
        from botocore.exceptions import ClientError

        if service not in self._clients:
            quick = ClientConfig(connect_timeout=10, read_timeout=20, retries={"total_max_attempts": 2})
            self._clients[service] = self.session.client(service, config=quick)
        try:
            return dict(getattr(self._clients[service], operation)(**parameters))
        except ClientError as error:
            code, status = code_of(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if "AccessDenied" in code or "NotAuthorized" in code or (service == "s3" and status == 403):
                name = f"{service}:{error.operation_name}"
                raise DeniedError(_RIGHTS.get(name, name)) from error
            raise


def guarded(account: Account, what: str, step: Callable[[Account], Iterator[Finding]]) -> Iterator[Finding]:
    """What a step finds, and what it means that it was not answered."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield from step(account)
    except DeniedError as denied:
        fix = f"to have it looked at, have an administrator give you {denied}"
        yield Finding(what, "unknown", f"the caller has no right to look: {denied} is missing", fix)
    except ClientError as error:
        if code_of(error) in _NOT_HERE:
            yield Finding(what, "unknown", f"what answers for AWS here does not know it ({error})")
        else:
            yield Finding(what, "fail", str(error), "wren doctor, when this has passed")
    except BotoCoreError as error:
        yield Finding(what, "fail", f"no answer: {error}", "check network, region and AWS_ENDPOINT_URL")
    except WrenError as error:
        yield Finding(what, "fail", str(error))


def code_of(error: Any) -> str:
    """AWS's code of a ClientError."""
    return str(error.response.get("Error", {}).get("Code", ""))
