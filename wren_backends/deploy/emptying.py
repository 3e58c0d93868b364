"""What clean-up takes out of a bucket: all, if it was made for the function, otherwise what is the function's own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wren_backends.config import Config
from wren_backends.deploy import bucket
from wren_backends.deploy.packages_step import packages_folder
from wren_backends.deploy.plan import Change, Step

_DELETED_AT_ONCE = 1000  # Amazon S3 API, DeleteObjects


@dataclass(frozen=True)
class Contents:
    """What lies in a bucket, versions of objects counted one by one.

    Attributes:
        records: How many of Lambda's records of failed invocations of our functions.
        shared: How many objects of jobs, blobs and packages, which all functions with this prefix have together.
        foreign: How many others; not counted in a bucket that was not made for our function.
        examples: Some of their keys.
    """

    records: int = 0
    shared: int = 0
    foreign: int = 0
    examples: tuple[str, ...] = ()


class Objects:
    """Deletes the objects of a bucket; stands beside the clients that a plan is carried out with.

    Args:
        client: boto3 client of S3.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def delete(self, *, bucket: str, account: str, folders: Sequence[str] | None) -> None:
        """Delete all versions of the objects below folders, or with None of all."""
        batch: list[dict[str, str]] = []
        for prefix in [""] if folders is None else folders:
            for one in versions(self._client, bucket, account, prefix):
                batch.append(one)
                if len(batch) == _DELETED_AT_ONCE:
                    self._send(bucket, account, batch)
                    batch = []
        self._send(bucket, account, batch)

    def _send(self, bucket: str, account: str, batch: list[dict[str, str]]) -> None:
        if not batch:
            return
        answer = self._client.delete_objects(
            Bucket=bucket, ExpectedBucketOwner=account, Delete={"Objects": batch, "Quiet": True}
        )
        for error in answer.get("Errors", ()):
            from botocore.exceptions import ClientError

            raise ClientError({"Error": error}, f"DeleteObjects of {error.get('Key')!r}")


def versions(client: Any, bucket: str, account: str, prefix: str) -> Iterator[dict[str, str]]:
    """Key and version of all that lies below a prefix, marks of deletion included."""
    pages = client.get_paginator("list_object_versions").paginate(
        Bucket=bucket, ExpectedBucketOwner=account, Prefix=prefix
    )
    for page in pages:
        for one in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
            # "null" is a version's name too: of what was written before the bucket had versions.
            yield {name: one[name] for name in ("Key", "VersionId") if name in one}


def look(
    client: Any, found: bucket.FoundBucket | None, account: str, config: Config, functions: Sequence[str]
) -> Contents:
    """Count what lies in a bucket, as far as it is our business.

    Args:
        client: boto3 client of S3.
        found: The bucket; None if none is known.
        account: Its owner.
        config: Settings.
        functions: Names of our functions, the base first.
    """
    if found is None or not found.exists:
        return Contents()
    records, shared = record_folders(functions), shared_folders(config.prefix)
    if not _is_its(found, config.function):
        count = sum(1 for folder in records for _ in versions(client, found.name, account, folder))
        below = () if found.ours else shared
        return Contents(count, sum(1 for folder in below for _ in versions(client, found.name, account, folder)))
    counted = Contents()
    for one in versions(client, found.name, account, ""):
        if one["Key"].startswith(tuple(records)):
            counted = replace(counted, records=counted.records + 1)
        elif one["Key"].startswith(tuple(shared)):
            counted = replace(counted, shared=counted.shared + 1)
        else:
            counted = replace(counted, foreign=counted.foreign + 1, examples=(*counted.examples, one["Key"])[:3])
    return counted


def shared_folders(prefix: str) -> list[str]:
    """Key prefixes of what all functions with a prefix have together."""
    return [*bucket.folders(prefix, ()), packages_folder(prefix)]


def record_folders(functions: Sequence[str]) -> list[str]:
    """Key prefixes of what is some functions' own."""
    return [bucket.records_folder(one) for one in functions]


def own_functions(found: bucket.FoundBucket | None, base: str, known: Sequence[str]) -> list[str]:
    """The base and the functions of other sizes that are there, or that a lifecycle rule remembers."""
    sized = re.compile(rf"{re.escape(base)}-\d+mb")
    remembered = bucket.functions_of_rules(found.lifecycle) if found else []
    return list(dict.fromkeys((*known, *(one for one in remembered if sized.fullmatch(one)))))


def step(
    found: bucket.FoundBucket,
    contents: Contents,
    config: Config,
    account: str,
    functions: Sequence[str],
    *,
    foreign_too: bool,
    shared_too: bool,
) -> Step:
    """What becomes of a bucket whose functions are deleted.

    Args:
        found: The bucket.
        contents: What lies in it.
        config: Settings.
        account: Its owner.
        functions: Names of our functions, the base first.
        foreign_too: Whether a bucket of ours is deleted with objects in it that are not.
        shared_too: Whether objects of jobs, blobs and packages go that other functions may have, too.
    """
    if not found.exists:
        return Step("bucket", found.name, "unchanged")
    mine = own_functions(found, config.function, functions)
    others = [one for one in bucket.functions_of_rules(found.lifecycle) if one not in mine]
    is_its = _is_its(found, config.function)
    all_of_it = (is_its and not others) or (shared_too and (is_its or not found.ours))
    goes = is_its and all_of_it and (foreign_too or not contents.foreign)
    folders = [*record_folders(mine), *(shared_folders(config.prefix) if all_of_it else ())]
    changes = _deletion(found.name, account, contents, None if goes else folders, shared=all_of_it)
    if goes:
        deletion = {"Bucket": found.name, "ExpectedBucketOwner": account}
        changes += [
            Change("delete it", "s3", "delete_bucket", deletion, harmless=("NoSuchBucket",)),
            Change("", "memory", "forget_bucket", {"account": account, "name": found.name}),
        ]
        return Step("bucket", found.name, "delete", tuple(changes))
    changes += bucket.lifecycle_removed(found.lifecycle, found.name, account, folders)
    why = [f"it stays: {_why(found, contents, others if is_its and not all_of_it else [])}"]
    if contents.shared and not all_of_it:
        place = f"s3://{found.name}/{config.prefix}".rstrip("/")
        why.append(
            f"{contents.shared} objects of jobs and packages below {place}/ may be other functions' too, and stay: "
            "--delete-shared-objects deletes them"
        )
    return Step("bucket", found.name, "update" if changes else "keep", tuple(changes), tuple(why))


def _is_its(found: bucket.FoundBucket, function: str) -> bool:
    """Whether a bucket was made for a function."""
    return found.ours and found.tags.get(bucket.TAG) in (None, function)


def _deletion(
    name: str, account: str, contents: Contents, folders: Sequence[str] | None, *, shared: bool
) -> list[Change]:
    foreign = contents.foreign if folders is None else 0
    count = contents.records + (contents.shared if shared else 0)
    if not count + foreign:
        return []
    says = f"delete {count} objects of jobs" if shared else f"delete {count} records of its failed invocations"
    if foreign:
        says += f", and {foreign} others, such as {', '.join(contents.examples)}"
    return [Change(says, "objects", "delete", {"bucket": name, "account": account, "folders": folders})]


def _why(found: bucket.FoundBucket, contents: Contents, others: Sequence[str]) -> str:
    """Why a bucket stays."""
    if others:
        return f"it is used for {', '.join(map(repr, others))} too: clean that up first, with --name"
    if contents.foreign:
        return f"{contents.foreign} objects in it are not wren's, such as {', '.join(contents.examples)}"
    owner = found.tags.get(bucket.TAG)
    return f"it is function {owner!r}'s" if owner else "wren did not make it"
