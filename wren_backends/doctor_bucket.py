"""Examines the bucket: whether it is there, whose it is, whether what is old goes, and who may read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from wren_backends.deploy.bucket import records_folder, region_of
from wren_backends.doctor_account import Account, DeniedError, Finding, code_of


def examine_bucket(account: Account) -> Iterator[Finding]:
    """Whether it exists, here, and belongs to this account."""
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
    place = region_of(found) or account.region
    if place != account.region:
        fix = f"WREN_REGION={place}, or another bucket"
        yield Finding("bucket", "fail", f"{bucket} is in {place}, the function in {account.region}", fix)
        return
    yield Finding("bucket", "pass", f"{bucket}, in {place}")
    try:
        account.ask("s3", "head_bucket", Bucket=bucket, ExpectedBucketOwner=account.account_id)
    except DeniedError:
        text = f"{bucket} belongs to another account than {account.account_id}, which can read all that lies there"
        yield Finding("bucket owner", "fail", text, "WREN_BUCKET=... with a bucket of your own: calls refuse this one")
    else:
        yield Finding("bucket owner", "pass", f"this account, {account.account_id}")


def examine_lifecycle(account: Account) -> Iterator[Finding]:
    """Whether old objects expire."""
    from botocore.exceptions import ClientError

    config = account.config
    root = f"{config.prefix}/" if config.prefix else ""
    failures = {records_folder(one.function) for one in account.functions()}
    wanted = {f"{root}jobs/", f"{root}blobs/", *failures}
    try:
        rules = account.ask("s3", "get_bucket_lifecycle_configuration", Bucket=config.bucket).get("Rules", [])
    except ClientError as error:
        if code_of(error) != "NoSuchLifecycleConfiguration":
            raise
        rules = []
    expiring = [prefix for one in rules if _expires(one) and (prefix := _prefix(one)) is not None]
    missing = sorted(one for one in wanted if not any(one.startswith(prefix) for prefix in expiring))
    if missing:
        text = f"nothing deletes old objects below {', '.join(missing)}"
        yield Finding("bucket lifecycle", "warn", text, "wren setup, or now and then wren jobs clean --older-than 7d")
    else:
        yield Finding("bucket lifecycle", "pass", "old objects of jobs, blobs and records of failures expire")


def _expires(rule: Mapping[str, Any]) -> bool:
    """Whether it deletes objects; there are rules that clear marks of deletion only."""
    expiration = rule.get("Expiration") or {}
    return rule.get("Status") == "Enabled" and ("Days" in expiration or "Date" in expiration)


def _prefix(rule: Mapping[str, Any]) -> str | None:
    """What it is for; None if it is only for objects with certain tags, or of certain sizes."""
    chosen = rule.get("Filter") or {}
    return str(chosen.get("Prefix", rule.get("Prefix", ""))) if chosen.keys() <= {"Prefix"} else None


def examine_public_access(account: Account) -> Iterator[Finding]:
    """Whether it can be opened to everybody."""
    from botocore.exceptions import ClientError

    bucket = account.config.bucket
    try:
        blocked = account.ask("s3", "get_public_access_block", Bucket=bucket)["PublicAccessBlockConfiguration"]
    except ClientError as error:
        if code_of(error) != "NoSuchPublicAccessBlockConfiguration":
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
