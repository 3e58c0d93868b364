"""Examines an AWS account: credentials, clock, bucket, function, role and concurrency, by asking and changing nothing.

What the caller may not ask is not known, which is no fault of the thing: the finding names the right that is missing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from lambda_worker.protocol import FUNCTION_KEY_VARIABLE, python_version
from wren_backends.config import Config
from wren_backends.connection import default_max_workers
from wren_backends.deploy.function import EVENT_AGE_S
from wren_backends.deploy.package import HANDLER, function_zip
from wren_backends.deploy.policies import Scope, trust_policy, worker_policy
from wren_backends.deploy.role import POLICY_NAME as OWN_POLICY
from wren_backends.deploy.session import aws_session
from wren_backends.errors import DeploymentError, WrenError
from wren_backends.logs import log_group

Status = Literal["pass", "warn", "fail", "unknown"]

_SKEW_WARN_S, _SKEW_FAIL_S = 60.0, 300.0
"""AWS refuses signatures whose time is five minutes off (IAM User Guide, "Signature Version 4: timestamps")."""

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


class _DeniedError(Exception):
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

    def ask(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """Make one request.

        Raises:
            _DeniedError: The caller may not.
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
            code, status = _code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if "AccessDenied" in code or "NotAuthorized" in code or (service == "s3" and status == 403):
                name = f"{service}:{error.operation_name}"
                raise _DeniedError(_RIGHTS.get(name, name)) from error
            raise


def examine_account(account: Account) -> Iterator[Finding]:
    """Examine all parts, in the order in which they need each other."""
    steps: list[tuple[str, Callable[[Account], Iterator[Finding]]]] = [
        ("credentials", _credentials),
        ("bucket", _bucket),
        ("bucket lifecycle", _lifecycle),
        ("bucket public access", _public_access),
        ("concurrency", _account_concurrency),
    ]
    for one in account.config.each_function():
        steps.append((f"function {one.function}", _of(_function, one)))
    for what, step in steps:
        for finding in _guarded(account, what, step):
            account.is_usable = account.is_usable and finding.status != "fail"
            yield finding
        if what == "credentials" and not account.account_id:
            yield Finding("all else", "unknown", "nothing else can be asked without credentials")
            account.is_usable = False
            return


def _of(step: Callable[[Account, Config], Iterator[Finding]], config: Config) -> Callable[[Account], Iterator[Finding]]:
    return lambda account: step(account, config)


def _guarded(account: Account, what: str, step: Callable[[Account], Iterator[Finding]]) -> Iterator[Finding]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield from step(account)
    except _DeniedError as denied:
        fix = f"to have it looked at, have an administrator give you {denied}"
        yield Finding(what, "unknown", f"the caller has no right to look: {denied} is missing", fix)
    except ClientError as error:
        if _code(error) in _NOT_HERE:
            yield Finding(what, "unknown", f"what answers for AWS here does not know it ({error})")
        else:
            yield Finding(what, "fail", str(error), "wren doctor, when this has passed")
    except BotoCoreError as error:
        yield Finding(what, "fail", f"no answer: {error}", "check network, region and AWS_ENDPOINT_URL")
    except WrenError as error:
        yield Finding(what, "fail", str(error))


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


# ---- who asks, and when


def _credentials(account: Account) -> Iterator[Finding]:
    from botocore.exceptions import ClientError

    account.session = aws_session(account.config.region)
    account.region = account.session.region_name
    known = account.session.get_available_regions("lambda", account.session.get_partition_for_region(account.region))
    odd = "" if account.region in known else " (boto3 knows no such region)"
    yield Finding("region", "warn" if odd else "pass", account.region + odd, "WREN_REGION=..." if odd else "")
    credentials = account.session.get_credentials()
    if credentials is None:
        fix = "aws configure, or AWS_PROFILE=..., or WREN_CLOUD=local"
        yield Finding("credentials", "fail", "there are none", fix)
        return
    try:
        caller = account.ask("sts", "get_caller_identity")
    except ClientError as error:
        yield from _clock(error.response)
        yield Finding("credentials", "fail", f"AWS refuses them: {error}", "aws configure")
        return
    yield from _clock(caller)
    account.account_id, account.partition = caller["Account"], caller["Arn"].split(":")[1]
    yield Finding("credentials", "pass", f"{caller['Arn']}, found by boto3 in: {credentials.method}")


def _clock(answer: Mapping[str, Any]) -> Iterator[Finding]:
    try:
        there = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return
    off_s = time.time() - there
    status: Status = "pass" if abs(off_s) < _SKEW_WARN_S else "warn" if abs(off_s) < _SKEW_FAIL_S else "fail"
    text = "agrees with AWS's" if status == "pass" else f"is {abs(off_s):.0f} s {'ahead' if off_s > 0 else 'behind'}"
    yield Finding(
        "clock", status, text, "" if status == "pass" else "set it, or have NTP do so: timedatectl set-ntp on"
    )


# ---- the bucket


def _bucket(account: Account) -> Iterator[Finding]:
    from botocore.exceptions import ClientError

    bucket = account.config.bucket
    if not bucket:
        yield Finding("bucket", "fail", "none is configured", "WREN_BUCKET=...")
        return
    try:
        found = account.ask("s3", "head_bucket", Bucket=bucket)
    except ClientError as error:
        if error.response["ResponseMetadata"].get("HTTPStatusCode") != 404:
            raise
        yield Finding("bucket", "fail", f"{bucket} does not exist", f"wren setup, or aws s3 mb s3://{bucket}")
        return
    headers = found["ResponseMetadata"]["HTTPHeaders"]
    place = found.get("BucketRegion") or headers.get("x-amz-bucket-region") or account.region
    if place != account.region:
        fix = f"WREN_REGION={place}, or another bucket"
        yield Finding("bucket", "fail", f"{bucket} is in {place}, the function in {account.region}", fix)
        return
    yield Finding("bucket", "pass", f"{bucket}, in {place}")
    try:
        account.ask("s3", "head_bucket", Bucket=bucket, ExpectedBucketOwner=account.account_id)
    except _DeniedError:
        text = f"{bucket} belongs to another account than {account.account_id}, which can read all that lies there"
        yield Finding("bucket owner", "warn", text, "WREN_BUCKET=... with a bucket of your own")
    else:
        yield Finding("bucket owner", "pass", f"this account, {account.account_id}")


def _lifecycle(account: Account) -> Iterator[Finding]:
    from botocore.exceptions import ClientError

    config = account.config
    root = f"{config.prefix}/" if config.prefix else ""
    wanted = {f"{root}jobs/", f"{root}blobs/", f"aws/lambda/async/{config.function}/"}
    try:
        rules = account.ask("s3", "get_bucket_lifecycle_configuration", Bucket=config.bucket).get("Rules", [])
    except ClientError as error:
        if _code(error) != "NoSuchLifecycleConfiguration":
            raise
        rules = []
    expiring = [_prefix(one) for one in rules if one.get("Status") == "Enabled" and "Expiration" in one]
    missing = sorted(one for one in wanted if not any(one.startswith(prefix) for prefix in expiring))
    if missing:
        text = f"nothing deletes old objects below {', '.join(missing)}"
        yield Finding("bucket lifecycle", "warn", text, "wren setup, or now and then wren jobs clean --older-than 7d")
    else:
        yield Finding("bucket lifecycle", "pass", "old objects of jobs, blobs and records of failures expire")


def _prefix(rule: Mapping[str, Any]) -> str:
    return str((rule.get("Filter") or {}).get("Prefix", rule.get("Prefix", "")))


def _public_access(account: Account) -> Iterator[Finding]:
    from botocore.exceptions import ClientError

    bucket = account.config.bucket
    try:
        blocked = account.ask("s3", "get_public_access_block", Bucket=bucket)["PublicAccessBlockConfiguration"]
    except ClientError as error:
        if _code(error) != "NoSuchPublicAccessBlockConfiguration":
            raise
        blocked = {}
    kinds = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    is_open = [kind for kind in kinds if not blocked.get(kind)]
    if is_open:
        settings = ",".join(f"{kind}=true" for kind in kinds)
        fix = f"aws s3api put-public-access-block --bucket {bucket} --public-access-block-configuration {settings}"
        yield Finding("bucket public access", "warn", f"not blocked: {', '.join(is_open)}", fix)
    else:
        yield Finding("bucket public access", "pass", "blocked")


# ---- the function


def _function(account: Account, config: Config) -> Iterator[Finding]:
    from botocore.exceptions import ClientError

    what = f"function {config.function}"
    try:
        found = account.ask("lambda", "get_function_configuration", FunctionName=config.function)
    except ClientError as error:
        if _code(error) != "ResourceNotFoundException":
            raise
        yield Finding(what, "fail", f"there is none in {account.region}", "wren deploy_lambda")
        return
    yield from _itself(account, config, what, found)
    for part, step in (("failures of", _events), ("concurrency of", _reserved), ("log of", _log)):
        yield from _guarded(account, f"{part} {config.function}", _of(step, config))


def _itself(account: Account, config: Config, what: str, found: Mapping[str, Any]) -> Iterator[Finding]:
    yield _first_wrong(what, found) or Finding(
        what, "pass", f"{found['Runtime']}, {found['MemorySize']} MB, {found['Timeout']} s, {found.get('State')}"
    )
    limits = {"MemorySize": config.memory_mb, "Timeout": config.timeout_s}
    other = [
        f"{name} {found[name]} (configured: {value})"
        for name, value in limits.items()
        if value and found[name] != value
    ]
    if other:
        yield Finding(what, "warn", ", ".join(other), "wren deploy_lambda")
    yield _code_of(what, found)
    yield from _role(account, config, found["Role"])


def _first_wrong(what: str, found: Mapping[str, Any]) -> Finding | None:
    """What keeps calls from running on it, if anything does."""
    runtime = "python{}.{}".format(*python_version())
    variables = (found.get("Environment") or {}).get("Variables") or {}
    update = found.get("LastUpdateStatus", "Successful")
    reasons = [
        (found.get("Runtime") != runtime, f"it runs {found.get('Runtime')}, this process {runtime}"),
        (found.get("Handler") != HANDLER, f"its handler is {found.get('Handler')}, not wren-backends'"),
        (not variables.get(FUNCTION_KEY_VARIABLE), f"it has no {FUNCTION_KEY_VARIABLE}"),
        (found.get("State", "Active") not in ("Active", "Inactive"), f"it is {found.get('State')}: {_reason(found)}"),
        (update == "Failed", f"its last update failed: {found.get('LastUpdateStatusReason', 'no reason given')}"),
    ]
    for is_so, text in reasons:
        if is_so:
            return Finding(what, "fail", text, "wren deploy_lambda")
    if update == "InProgress":
        return Finding(what, "warn", "it is being updated", "wren doctor, in a minute")
    return None


def _reason(found: Mapping[str, Any]) -> str:
    return str(found.get("StateReason") or found.get("StateReasonCode") or "no reason given")


def _code_of(what: str, found: Mapping[str, Any]) -> Finding:
    try:
        ours = base64.b64encode(hashlib.sha256(function_zip()).digest()).decode()
    except DeploymentError as error:
        return Finding(what, "unknown", f"its code cannot be compared: {error}")
    if found.get("CodeSha256") == ours:
        return Finding(what, "pass", "its worker is that of this environment")
    text = f"its worker is not what this environment would deploy (last modified {found.get('LastModified')})"
    return Finding(what, "warn", text, "wren deploy_lambda")


def _events(account: Account, config: Config) -> Iterator[Finding]:
    from botocore.exceptions import ClientError

    what = f"failures of {config.function}"
    wrong: Status = "fail" if config.mode == "s3" else "warn"
    try:
        found = account.ask("lambda", "get_function_event_invoke_config", FunctionName=config.function)
    except ClientError as error:
        if _code(error) != "ResourceNotFoundException":
            raise
        found = {}
    destination = ((found.get("DestinationConfig") or {}).get("OnFailure") or {}).get("Destination")
    wanted = f"arn:{account.partition}:s3:::{config.bucket}"
    if found.get("MaximumRetryAttempts") != 0:
        text = "Lambda itself runs failed events of mode s3 again, unseen by wren-backends"
    elif destination != wanted:
        text = f"records of failed events of mode s3 go to {destination or 'nowhere'}, not to {config.bucket}"
    elif found.get("MaximumEventAgeInSeconds") != EVENT_AGE_S:
        text = (
            f"events wait for {found.get('MaximumEventAgeInSeconds')} s in Lambda's queue, {EVENT_AGE_S} are expected"
        )
    else:
        yield Finding(what, "pass", f"recorded in {config.bucket}, not retried by Lambda")
        return
    yield Finding(what, wrong, text, "wren deploy_lambda")


def _reserved(account: Account, config: Config) -> Iterator[Finding]:
    what = f"concurrency of {config.function}"
    reserved = account.ask("lambda", "get_function_concurrency", FunctionName=config.function).get(
        "ReservedConcurrentExecutions"
    )
    wanted = config.max_workers or default_max_workers(config)
    undo = f"aws lambda delete-function-concurrency --function-name {config.function}"
    if reserved is None:
        yield Finding(what, "pass", "none is reserved: it shares the account's")
    elif reserved == 0:
        yield Finding(what, "fail", "0 is reserved, which switches it off", undo)
    elif reserved < wanted:
        text = f"{reserved} reserved, while up to {wanted} invocations are sent at once"
        yield Finding(what, "warn", text, f"WREN_MAX_WORKERS={reserved}, or {undo}")
    else:
        yield Finding(what, "pass", f"{reserved} reserved")


def _account_concurrency(account: Account) -> Iterator[Finding]:
    limits = account.ask("lambda", "get_account_settings")["AccountLimit"]
    most, free = limits["ConcurrentExecutions"], limits.get("UnreservedConcurrentExecutions")
    wanted = account.config.max_workers or default_max_workers(account.config)
    text = f"the account runs {most} invocations at once, {free} of them unreserved"
    if most < wanted:
        fix = f"WREN_MAX_WORKERS={most}, or ask for more: Service Quotas, Lambda, concurrent executions"
        yield Finding("concurrency", "warn", f"{text}, while up to {wanted} are sent", fix)
    else:
        yield Finding("concurrency", "pass", text)


def _log(account: Account, config: Config) -> Iterator[Finding]:
    from botocore.exceptions import ClientError

    what, group = f"log of {config.function}", log_group(config.function)
    try:
        account.ask("logs", "filter_log_events", logGroupName=group, limit=1)
    except ClientError as error:
        if _code(error) != "ResourceNotFoundException":
            raise
        yield Finding(what, "pass", f"{group} will be there with the first call")
    else:
        yield Finding(what, "pass", f"{group} can be read")


# ---- the role


def _role(account: Account, config: Config, arn: str) -> Iterator[Finding]:
    name = arn.rpartition("/")[2]
    what = f"role {name}"
    yield from _guarded(account, what, lambda _: _trust(account, what, name))
    yield from _guarded(account, what, lambda _: _policy(account, config, what, name))


def _trust(account: Account, what: str, name: str) -> Iterator[Finding]:
    from botocore.exceptions import ClientError

    try:
        found = account.ask("iam", "get_role", RoleName=name)["Role"]["AssumeRolePolicyDocument"]
    except ClientError as error:
        if _code(error) != "NoSuchEntity":
            raise
        yield Finding(what, "fail", "there is none, so the function cannot start", f"wren create_role --name {name}")
        return
    found = json.loads(found) if isinstance(found, str) else found
    if found == trust_policy():
        yield Finding(what, "pass", "only Lambda may take it on")
    else:
        text = "its trust policy is not `wren create_role`'s: others than Lambda may take it on, or Lambda may not"
        yield Finding(what, "warn", text, f"wren create_role --name {name} --adopt")


def _policy(account: Account, config: Config, what: str, name: str) -> Iterator[Finding]:
    from botocore.exceptions import ClientError

    try:
        found = account.ask("iam", "get_role_policy", RoleName=name, PolicyName=OWN_POLICY)["PolicyDocument"]
    except ClientError as error:
        if _code(error) != "NoSuchEntity":
            raise
        yield Finding(what, "warn", f"it has no policy of `wren create_role`'s ({OWN_POLICY})", _create(name))
        return
    found = json.loads(found) if isinstance(found, str) else found
    for whole in (False, True):
        if found == worker_policy(replace(_scope(account), whole_bucket=whole)):
            place = "the whole bucket" if whole else f"{account.config.bucket}/{account.config.prefix}"
            yield Finding(what, "pass", f"it may use {place} and write its log")
            return
    yield Finding(what, "warn", f"its policy {OWN_POLICY} is not what the settings call for", _create(name))


def _create(name: str) -> str:
    return f"wren create_role --name {name}"


def _scope(account: Account) -> Scope:
    config = account.config
    return Scope(
        config.function,
        config.bucket or "",
        config.prefix,
        account.region,
        account=account.account_id,
        partition=account.partition,
        beside=tuple(one.function for one in config.each_function()[1:]),
    )
