"""Puts built packages where functions find them: a layer of Lambda's, or an archive in the user's bucket.

Both are named by content: what is there already is not uploaded again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blake3

from lambda_worker.protocol import PACKAGES_VARIABLE, BlobRef
from wren_backends.errors import DeploymentError

if TYPE_CHECKING:
    from wren_backends.deploy.packages import Built

PACKAGES_FOLDER = "packages/"
"""Keys of archives below the prefix: no lifecycle rule deletes there, since functions need them while they live."""

_DIRECT_BYTES = 50 * 1024 * 1024
"""Largest zip that Lambda takes in a request; others it fetches from S3 (AWS Lambda quotas)."""

_EPHEMERAL_MB, _MOST_EPHEMERAL_MB = 512, 10_240
"""What Lambda gives for nothing, and the most there is (AWS Lambda quotas)."""

DESCRIPTION = "wren-backends packages "
"""How the description of a layer version of ours begins."""

_OF_A_DESCRIPTION = 256


@dataclass(frozen=True)
class Published:
    """What a function needs to have its packages.

    Attributes:
        layers: ARNs of layer versions.
        variables: Environment variables; set them also if they are empty, in place of earlier ones.
        ephemeral_mb: Ephemeral storage: that of the unpacked archive, and 512 MB for what calls write.
        digest: Of the packages.
        summary: One line for people.
    """

    layers: tuple[str, ...]
    variables: Mapping[str, str]
    ephemeral_mb: int
    digest: str
    summary: str


def publish(
    built: Built,
    lambda_client: Any,
    s3_client: Any,
    bucket: str,
    prefix: str,
    layer_name: str,
    progress: Callable[[str], None] | None = None,
    account: str | None = None,
) -> Published:
    """Make the layer or the archive, unless it is there.

    It takes `lambda:ListLayerVersions` and `lambda:PublishLayerVersion` for a layer, for one above 50 MB `s3:PutObject`
    and `s3:GetObject` below `PREFIX/blobs/` too, and for an archive both below `PREFIX/packages/`.

    Args:
        built: The packages.
        lambda_client: boto3 client of Lambda.
        s3_client: boto3 client of S3.
        bucket: The function's bucket, in its region.
        prefix: The project's prefix in it.
        layer_name: Name of the layer.
        progress: Called with a line of text before an upload.
        account: The account that the bucket has to belong to; None: any.

    Raises:
        DeploymentError: AWS refuses, or they are larger than Lambda's disk.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    owner = {"ExpectedBucketOwner": account} if account else {}
    place = _Place(s3_client, bucket, f"{prefix.strip('/')}/".lstrip("/"), progress or (lambda _: None), owner)
    try:
        if built.fits_layer:
            return _publish_layer(built, lambda_client, place, layer_name)
        return _publish_archive(built, place)
    except (Boto3Error, BotoCoreError, ClientError) as error:
        raise DeploymentError(f"the packages were not published: {error}{_hint(str(error), place)}") from error


@dataclass(frozen=True)
class _Place:
    s3: Any
    bucket: str
    below: str
    say: Callable[[str], None]
    owner: Mapping[str, str]

    def has(self, key: str, size: int) -> bool:
        from botocore.exceptions import ClientError

        try:
            found = self.s3.head_object(Bucket=self.bucket, Key=self.below + key, **self.owner)
            return bool(found["ContentLength"] == size)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in (403, 404):
                return False  # 403 is what is missing to whoever may not list
            raise

    def put(self, key: str, path: Path) -> int:
        """Upload a file unless it is there; returns how many bytes were sent."""
        size = path.stat().st_size
        if self.has(key, size):
            return 0
        self.say(f"uploading {size / 1e6:.0f} MB to s3://{self.bucket}/{self.below}{key}")
        self.s3.upload_file(str(path), self.bucket, self.below + key, ExtraArgs=dict(self.owner))
        return size


def _publish_layer(built: Built, client: Any, place: _Place, name: str) -> Published:
    begun = time.perf_counter()
    about = f"{DESCRIPTION}{built.digest} for {built.target.runtime} on {built.target.architecture}"
    about = about[:_OF_A_DESCRIPTION]
    arn = _find_layer(client, name, about)
    how = "was there already"
    if arn is None:
        arn = _make_layer(built, client, place, name, about)
        how = f"published in {time.perf_counter() - begun:.1f} s"
    return Published(
        (arn,), {PACKAGES_VARIABLE: ""}, _EPHEMERAL_MB, built.digest, f"{built.summary}; layer {arn} {how}"
    )


def _find_layer(client: Any, name: str, about: str) -> str | None:
    pages = client.get_paginator("list_layer_versions").paginate(LayerName=name)
    try:
        found = (one for page in pages for one in page["LayerVersions"] if one.get("Description") == about)
        return next((str(one["LayerVersionArn"]) for one in found), None)
    except client.exceptions.ResourceNotFoundException:  # as ListLayerVersions may say of a layer without versions
        return None


def _make_layer(built: Built, client: Any, place: _Place, name: str, about: str) -> str:
    path = built.folder / "layer.zip"
    data = path.read_bytes()
    content: dict[str, Any] = {"ZipFile": data}
    if len(data) > _DIRECT_BYTES:
        # Lambda makes a copy of its own, so this may go where objects expire.
        key = BlobRef(blake3.blake3(data).hexdigest(), len(data)).key
        place.put(key, path)
        content = {"S3Bucket": place.bucket, "S3Key": place.below + key}
    made = client.publish_layer_version(
        LayerName=name,
        Description=about,
        Content=content,
        CompatibleRuntimes=[built.target.runtime],
        CompatibleArchitectures=[built.target.architecture],
    )
    return str(made["LayerVersionArn"])


def _publish_archive(built: Built, place: _Place) -> Published:
    ephemeral_mb = _EPHEMERAL_MB + math.ceil(sum(one.unpacked for one in built.pieces) / (1 << 20))
    if ephemeral_mb > _MOST_EPHEMERAL_MB:
        raise DeploymentError(
            f"the packages take {built.unpacked_bytes / 1e6:.0f} MB, and Lambda's disk has {_MOST_EPHEMERAL_MB} MB: "
            "leave out what your calls do not need"
        )
    begun = time.perf_counter()
    sent = sum(place.put(f"{PACKAGES_FOLDER}{one.digest}", built.folder / f"{one.digest}.zip") for one in built.pieces)
    path = built.folder / "list.json"
    key = f"{PACKAGES_FOLDER}{blake3.blake3(path.read_bytes()).hexdigest()}"
    place.put(key, path)  # the last: what it names is there
    how = f"uploaded {sent / 1e6:.0f} MB in {time.perf_counter() - begun:.1f} s" if sent else "was there already"
    address = f"s3://{place.bucket}/{place.below}{key}"
    summary = f"{built.summary}; archive of {len(built.pieces)} zips {address} {how}"
    return Published((), {PACKAGES_VARIABLE: address}, ephemeral_mb, built.digest, summary)


def _hint(refusal: str, place: _Place) -> str:
    if "AccessDenied" in refusal or "not authorized" in refusal:
        return (
            ". It takes lambda:ListLayerVersions, lambda:PublishLayerVersion and lambda:GetLayerVersion, and "
            f"s3:PutObject and s3:GetObject below s3://{place.bucket}/{place.below}"
        )
    return "; check bucket, region and network, and try again: what was uploaded is not uploaded again"
