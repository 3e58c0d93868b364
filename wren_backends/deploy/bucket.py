"""What the bucket has to be like: this account's, closed to the public, and cleared of objects that nobody asks for."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wren_backends.deploy.plan import Change, Step, brought_up_to_date
from wren_backends.errors import DeploymentError

KEPT_DAYS = 7
"""Days after which objects of jobs, blobs and records of failed invocations are deleted, unless said otherwise."""

TAG = "wren-backends:bucket"
"""Key of the tag that marks a bucket as made by us; its value is the function that it was made for."""

BLOCKS = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
"""The block on public access, all of it."""

_RECORDS = "aws/lambda/async/"

_NO_LOCATION = "us-east-1"  # Amazon S3 API, CreateBucket: the one region that may not be named


@dataclass(frozen=True)
class FoundBucket:
    """A bucket of this account as it is.

    Attributes:
        name: Its name.
        exists: Whether it is there.
        tags: Its tags.
        blocked: Whether all four settings of the block on public access are on.
        is_public: Whether a policy of it gives access to everybody.
        lifecycle: Its lifecycle configuration.
        being_made: Whether we were interrupted while making it.
    """

    name: str
    exists: bool
    tags: Mapping[str, str] = field(default_factory=dict)
    blocked: bool = False
    is_public: bool = False
    lifecycle: Mapping[str, Any] = field(default_factory=dict)
    being_made: bool = False

    @property
    def ours(self) -> bool:
        """Whether it was made by us."""
        return TAG in self.tags or self.being_made


def new_name(account: str, region: str) -> str:
    """A name for a bucket that nobody else can have taken, or take, before it is made."""
    return f"wren-{account}-{region}-{secrets.token_hex(5)}"


def find_ours(client: Any, account: str, region: str, function: str) -> str | None:
    """Name of the bucket that was made for a function in this region under a name of ours, if there is one."""
    from botocore.exceptions import ClientError

    try:
        listed = client.list_buckets()["Buckets"]
    except ClientError:  # who may not list buckets has to name theirs
        return None
    for one in listed:
        name = str(one["Name"])
        if name.startswith(f"wren-{account}-{region}-") and _tags(client, name, account).get(TAG) == function:
            return name
    return None


def look(client: Any, name: str, account: str, *, being_made: bool = False) -> FoundBucket:
    """Find out what a bucket is like; every request says whose it has to be.

    Args:
        client: boto3 client of S3.
        name: The bucket.
        account: The account that it has to belong to.
        being_made: Whether we were interrupted while making it.

    Raises:
        DeploymentError: It is somebody else's, or in another region.
        botocore.exceptions.ClientError: S3 refuses.
    """
    of_ours = {"Bucket": name, "ExpectedBucketOwner": account}
    if not check(client, name, account):
        return FoundBucket(name, exists=False, being_made=being_made)
    block = _or_none(client.get_public_access_block, of_ours, "NoSuchPublicAccessBlockConfiguration")
    blocked = block is not None and block["PublicAccessBlockConfiguration"] == BLOCKS
    status = None if blocked else _or_none(client.get_bucket_policy_status, of_ours, "NoSuchBucketPolicy")
    lifecycle = _or_none(client.get_bucket_lifecycle_configuration, of_ours, "NoSuchLifecycleConfiguration")
    return FoundBucket(
        name,
        exists=True,
        tags=_tags(client, name, account),
        blocked=blocked,
        is_public=bool(status and status["PolicyStatus"].get("IsPublic")),
        lifecycle=lifecycle or {},
        being_made=being_made,
    )


def check(client: Any, name: str, account: str) -> bool:
    """Whether a bucket exists; if it does, it is the account's and in the client's region.

    Raises:
        DeploymentError: It is somebody else's, or in another region.
        botocore.exceptions.ClientError: S3 refuses.
    """
    from botocore.exceptions import ClientError

    elsewhere = f"bucket {name!r} is in another region: give its region with --region, or another name with --bucket"
    try:
        answer = client.head_bucket(Bucket=name, ExpectedBucketOwner=account)
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status == 404:
            return False
        if status == 301:
            raise DeploymentError(elsewhere) from error
        if status == 403:
            raise DeploymentError(
                f"bucket {name!r} is not account {account}'s, or you may not list it: it was not touched. Give another "
                "name with --bucket, or have an administrator grant you what `wren setup --print-policy` shows"
            ) from error
        raise
    if region_of(answer) not in (None, client.meta.region_name):  # botocore goes where S3 sends it
        raise DeploymentError(elsewhere)
    return True


def region_of(answer: Mapping[str, Any]) -> str | None:
    """Where a bucket is, as the answer to HeadBucket says; None from a server that has no regions."""
    found = answer.get("BucketRegion") or answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
    return str(found) if found else None


def step(
    found: FoundBucket,
    *,
    account: str,
    region: str,
    prefix: str,
    functions: Sequence[str],
    tags: Mapping[str, str] | None = None,
    block_public: bool | None = None,
    days: int = KEPT_DAYS,
) -> Step:
    """What makes a bucket what it has to be. Encryption stays what it is: S3 encrypts every object since 2023.

    Args:
        found: What it is.
        account: Its owner.
        region: Where it is made.
        prefix: The project's key prefix in it.
        functions: Names of the functions, the base first.
        tags: For a bucket that we make, beside ours.
        block_public: Whether public access is blocked; None: of a bucket that we make or have made.
        days: See `put_lifecycle`.

    Raises:
        DeploymentError: It is open to the public, and nobody has said what to do about it.
    """
    of_ours = {"Bucket": found.name, "ExpectedBucketOwner": account}
    note = {"account": account, "name": found.name}
    changes, notes = [], []
    if not found.exists:
        place = {} if region == _NO_LOCATION else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        # Told before it is done: a bucket that was made and not tagged yet is known as ours all the same.
        changes += [
            Change("", "memory", "note_bucket", note),
            Change(
                "make it",
                "s3",
                "create_bucket",
                {"Bucket": found.name, **place},
                harmless=("BucketAlreadyOwnedByYou",),
                undo=Change("", "memory", "forget_bucket", note),
            ),
        ]
    owner = found.tags.get(TAG, functions[0])
    if owner != functions[0]:
        notes.append(f"made for function {owner!r}: `wren cleanup` of {functions[0]!r} will leave it")
    elif found.ours or not found.exists:
        wanted = {**found.tags, **(tags or {}), TAG: owner}
        if wanted != found.tags:
            tag_set = [{"Key": key, "Value": value} for key, value in sorted(wanted.items())]
            changes.append(
                Change("tag it as ours", "s3", "put_bucket_tagging", {**of_ours, "Tagging": {"TagSet": tag_set}})
            )
        if not found.exists or found.being_made:
            changes.append(Change("", "memory", "forget_bucket", note))
    else:
        notes.append("not made by wren: `wren cleanup` will leave it")
    if found.is_public and block_public is None and not found.ours:
        raise DeploymentError(
            f"bucket {found.name!r} is open to the public: give --block-public-access, which ends that, or "
            "--keep-public-access, or another bucket with --bucket"
        )
    if not found.blocked and block_public is not False:
        if block_public or found.ours or not found.exists:
            blocking = {**of_ours, "PublicAccessBlockConfiguration": BLOCKS}
            changes.append(Change("block public access", "s3", "put_public_access_block", blocking))
        else:  # what its lists of access rights (ACLs) give to everybody is not looked at
            notes.append("public access is not blocked, which --block-public-access does: see who may read it")
    changes += lifecycle_changes(found.lifecycle, found.name, account, prefix, functions, days)
    return brought_up_to_date("bucket", found.name, exists=found.exists, changes=changes, notes=notes)


def lifecycle_changes(
    present: Mapping[str, Any],
    bucket: str,
    account: str | None,
    prefix: str,
    functions: Sequence[str],
    days: int = KEPT_DAYS,
) -> list[Change]:
    """The request that makes what this library leaves in a bucket expire, if it does not yet.

    A blob that a client still wants and that has expired is uploaded again or said to be gone (see ARCHITECTURE.md).
    S3 has no way to change one rule: somebody who changes others at this very moment may undo this, or be undone.

    Raises:
        ValueError: `days` is less than 1.
    """
    if days < 1:
        raise ValueError(f"days={days!r}: has to be at least 1")
    ours = rules(prefix, functions, days)
    listed = list(present.get("Rules", ()))
    missing = [rule for rule in ours if not _is_there(rule, listed)]
    if not missing:
        return []
    others = [rule for rule in listed if rule.get("ID") not in {one["ID"] for one in ours}]
    parameters = _lifecycle(present, bucket, account, [*others, *ours])
    what = "objects of jobs"
    if len(missing) < len(ours):
        what = "also objects below " + ", ".join(str(rule["Filter"]["Prefix"]) for rule in missing)
    says = f"{what} expire after {days} days" + (", beside its other rules" if others else "")
    return [Change(says, "s3", "put_bucket_lifecycle_configuration", parameters)]


def lifecycle_removed(present: Mapping[str, Any], bucket: str, account: str, cleared: Sequence[str]) -> list[Change]:
    """The request that takes our rules for some folders away again."""
    ids = {_rule_id(folder) for folder in cleared}
    rules = list(present.get("Rules", ()))
    others = [rule for rule in rules if rule.get("ID") not in ids]
    if len(others) == len(rules):
        return []
    if others:
        parameters = _lifecycle(present, bucket, account, others)
        return [Change("take our lifecycle rules away", "s3", "put_bucket_lifecycle_configuration", parameters)]
    of_ours = {"Bucket": bucket, "ExpectedBucketOwner": account}
    return [Change("take our lifecycle rules away", "s3", "delete_bucket_lifecycle", of_ours)]


def rules(prefix: str, functions: Sequence[str], days: int = KEPT_DAYS) -> list[dict[str, Any]]:
    """The lifecycle rules, in the form of S3's API."""
    return [_rule(folder, days) for folder in folders(prefix, functions)]


def folders(prefix: str, functions: Sequence[str]) -> list[str]:
    """Key prefixes of all that expires: jobs, blobs and Lambda's records of failed invocations."""
    root = f"{prefix}/" if prefix else ""
    return [f"{root}jobs/", f"{root}blobs/", *(records_folder(one) for one in functions)]


def records_folder(function: str) -> str:
    """Key prefix of Lambda's records of a function's failed invocations (AWS Lambda developer guide)."""
    return f"{_RECORDS}{function}/"


def functions_of_rules(present: Mapping[str, Any]) -> list[str]:
    """Names of the functions that a bucket was set up for, as our lifecycle rules have them."""
    begin = _rule_id(_RECORDS)
    ids = [str(rule.get("ID", "")) for rule in present.get("Rules", ())]
    return [one.removeprefix(begin).rstrip("/") for one in ids if one.startswith(begin)]


def put_lifecycle(client: Any, bucket: str, prefix: str, function: str, days: int = KEPT_DAYS) -> None:
    """Have S3 delete what this library leaves in the bucket some days after it was written; other rules stay.

    Args:
        client: boto3 client of S3.
        bucket: The bucket.
        prefix: The project's key prefix in it, without slashes at its ends; may be empty.
        function: Name of the Lambda function, whose records of failed asynchronous invocations lie in the bucket too.
        days: How many days, at least 1.

    Raises:
        ValueError: `days` is less than 1.
        botocore.exceptions.ClientError: S3 refuses.
    """
    present = _or_none(client.get_bucket_lifecycle_configuration, {"Bucket": bucket}, "NoSuchLifecycleConfiguration")
    for change in lifecycle_changes(present or {}, bucket, None, prefix, [function], days):
        client.put_bucket_lifecycle_configuration(**change.parameters)


def _lifecycle(
    present: Mapping[str, Any], bucket: str, account: str | None, listed: list[Mapping[str, Any]]
) -> dict[str, Any]:
    more = {name: present[name] for name in ("TransitionDefaultMinimumObjectSize",) if name in present}
    owner = {"ExpectedBucketOwner": account} if account else {}
    return {"Bucket": bucket, **owner, "LifecycleConfiguration": {"Rules": listed}, **more}


def _is_there(rule: Mapping[str, Any], listed: Sequence[Mapping[str, Any]]) -> bool:
    """Whether it is among them; S3 may show a filter in another form than it was given."""
    found = next((one for one in listed if one.get("ID") == rule["ID"]), None)
    return found is not None and all(found.get(name) == value for name, value in rule.items())


def _rule_id(folder: str) -> str:
    return f"wren-backends {folder}"[:255]  # S3's limit


def _rule(folder: str, days: int) -> dict[str, Any]:
    """A rule for one folder, versions and parts of uploads that were never completed included."""
    return {
        "ID": _rule_id(folder),
        "Status": "Enabled",
        "Filter": {"Prefix": folder},
        "Expiration": {"Days": days},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": days},
    }


def _tags(client: Any, name: str, account: str) -> dict[str, str]:
    found = _or_none(client.get_bucket_tagging, {"Bucket": name, "ExpectedBucketOwner": account}, "NoSuchTagSet")
    return {one["Key"]: one["Value"] for one in (found or {}).get("TagSet", ())}


def _or_none(ask: Any, parameters: Mapping[str, Any], *codes: str) -> Any:
    """What S3 answers, or None for an error that means that there is nothing of the kind."""
    from botocore.exceptions import ClientError

    try:
        return ask(**parameters)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in codes:
            return None
        raise
