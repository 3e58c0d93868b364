"""What the bucket has to be like: objects of jobs that nobody asks for any more expire."""

from __future__ import annotations

from typing import Any

KEPT_DAYS = 7
"""Days after which objects of jobs, blobs and records of failed invocations are deleted, unless said otherwise."""


def put_lifecycle(client: Any, bucket: str, prefix: str, function: str, days: int = KEPT_DAYS) -> None:
    """Have S3 delete what this library leaves in the bucket some days after it was written; other rules stay.

    A blob that a client still wants and that has expired is uploaded again or said to be gone (see ARCHITECTURE.md).
    S3 has no way to change one rule: somebody who changes others at this very moment may undo this, or be undone.

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
    if days < 1:
        raise ValueError(f"days={days!r}: has to be at least 1")
    root = f"{prefix}/" if prefix else ""
    folders = (f"{root}jobs/", f"{root}blobs/", f"aws/lambda/async/{function}/")
    ours = [_rule(folder, days) for folder in folders]
    present = _present(client, bucket)
    rules = [rule for rule in present.get("Rules", []) if rule.get("ID") not in {one["ID"] for one in ours}]
    more = {name: present[name] for name in ("TransitionDefaultMinimumObjectSize",) if name in present}
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [*rules, *ours]}, **more)


def _present(client: Any, bucket: str) -> dict[str, Any]:
    from botocore.exceptions import ClientError

    try:
        return dict(client.get_bucket_lifecycle_configuration(Bucket=bucket))
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") == "NoSuchLifecycleConfiguration":
            return {}
        raise


def _rule(folder: str, days: int) -> dict[str, Any]:
    """A rule for one folder, versions and parts of uploads that were never completed included."""
    return {
        "ID": f"wren-backends {folder}"[:255],  # S3's limit
        "Status": "Enabled",
        "Filter": {"Prefix": folder},
        "Expiration": {"Days": days},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": days},
    }
