"""Examines an AWS account: credentials, clock, bucket, function, role and concurrency, by asking and changing nothing.

What the caller may not ask is not known, which is no fault of the thing: the finding names the right that is missing.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from wren_backends.connection import default_max_workers
from wren_backends.deploy.session import aws_session
from wren_backends.doctor_account import Account, Finding, Status, guarded
from wren_backends.doctor_bucket import examine_bucket, examine_lifecycle, examine_public_access
from wren_backends.doctor_function import examine_function

_SKEW_WARN_S, _SKEW_FAIL_S = 60.0, 300.0
"""AWS refuses signatures whose time is five minutes off (IAM User Guide, "Signature Version 4: timestamps")."""


def examine_account(account: Account) -> Iterator[Finding]:
    """Examine all parts, in the order in which they need each other."""
    has_bucket = True
    steps: list[tuple[str, Callable[[Account], Iterator[Finding]]]] = [
        ("credentials", _credentials),
        ("bucket", examine_bucket),
        ("bucket lifecycle", examine_lifecycle),
        ("bucket public access", examine_public_access),
        ("concurrency", _account_concurrency),
    ]
    for what, step in steps:
        if what in ("bucket lifecycle", "bucket public access") and not has_bucket:
            continue
        for finding in guarded(account, what, step):
            account.is_usable = account.is_usable and finding.status != "fail"
            has_bucket = has_bucket and not (what == "bucket" and finding.status == "fail")
            yield finding
        if what == "credentials" and not account.account_id:
            yield Finding("all else", "unknown", "nothing else can be asked without credentials")
            account.is_usable = False
            return
    for one in account.functions():
        for finding in guarded(account, f"function {one.function}", functools.partial(examine_function, config=one)):
            account.is_usable = account.is_usable and finding.status != "fail"
            yield finding


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
