"""The packages as a step of a plan: found where they were published, or published when the plan is carried out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lambda_worker import agreement
from lambda_worker.protocol import PACKAGES_VARIABLE
from wren_backends.deploy.packages import Built, Published, publish
from wren_backends.deploy.plan import Change, Step
from wren_backends.deploy.publishing import PACKAGES_FOLDER
from wren_backends.deploy.requirements import (
    Requirements,
    from_environment,
    from_file,
    from_lock,
    from_names,
)
from wren_backends.errors import ConfigError

NEW = "the new one"
"""Stands in a plan for what publishing will give."""


@dataclass(frozen=True)
class NeededByPackages:
    """What functions need to have the packages.

    Attributes:
        layers: Layers.
        variables: Environment variables.
        ephemeral_mb: Disk.
    """

    layers: tuple[str, ...]
    variables: Mapping[str, str]
    ephemeral_mb: int = 0


def layer_name(function: str) -> str:
    """Name of the layer that holds a function's packages."""
    return f"{function}-packages"


def is_packages_layer(arn: str, function: str) -> bool:
    """Whether a layer version is of the layer that holds a function's packages."""
    return arn.split(":")[6:7] == [layer_name(function)]


def packages_folder(prefix: str) -> str:
    """Key prefix of packages that are too large for a layer."""
    return f"{prefix}/{PACKAGES_FOLDER}" if prefix else PACKAGES_FOLDER


def requirements_of(
    names: tuple[str, ...], file: str | None, lock: str | None, *, nearest: bool = False
) -> Requirements:
    """What packages are wanted; those of this environment where nothing is said.

    Args:
        names: Packages by name.
        file: A requirements file.
        lock: A `uv.lock`.
        nearest: Where a version of this environment has no wheel for Lambda, take the newest that has one.

    Raises:
        ConfigError: More than one place says so, or it cannot be read.
    """
    if sum(map(bool, (names, file, lock))) > 1:
        raise ConfigError("--packages, --requirements and --lock: give one of them")
    if names:
        return from_names(names)
    if file:
        return from_file(Path(file))
    return from_lock(Path(lock)) if lock else from_environment(exact=not nearest)


class Packages:
    """Built packages and where they go; stands beside the clients that a plan is carried out with.

    Args:
        built: The packages.
        lambda_client: boto3 client of Lambda.
        s3_client: boto3 client of S3.
        bucket: The bucket.
        prefix: The project's prefix in it.
        function: Name of the (base) function.
        progress: Called with a line of text before an upload.
        account: The account that the bucket has to belong to.
    """

    def __init__(
        self,
        built: Built,
        lambda_client: Any,
        s3_client: Any,
        bucket: str,
        prefix: str,
        function: str,
        progress: Callable[[str], None],
        account: str,
    ) -> None:
        self._built = built
        self._lambda_client = lambda_client
        self._place = (s3_client, bucket, prefix, layer_name(function), progress, account)
        self.published: Published | None = None

    def step(self, found: Mapping[str, str], layers: tuple[str, ...]) -> Step:
        """What has to be done about them; asks where they were published before.

        Args:
            found: Environment variables of the base function.
            layers: Its layers.
        """
        name = f"{len(self._built.versions)} packages"
        notes = (self._built.summary, *self._built.notes, *self.refusals)
        if self._is_published(found, layers):
            self.publish()
            return Step("packages", name, "unchanged", (), notes)
        kind = "layer" if self._built.fits_layer else "archive in the bucket"
        return Step("packages", name, "create", (Change(f"publish them as {kind}", "packages", "publish", {}),), notes)

    @property
    def refusals(self) -> tuple[str, ...]:
        """What the function will refuse calls for (`lambda_worker/agreement.py`), and what helps; none if nothing."""
        differing = agreement.hard_differences(agreement.installed()["packages"], self._built.versions)
        if not differing:
            return ()
        newer = ", or use Python 3.12 or newer here and there" if self._built.target.is_amazon_linux_2 else ""
        return (
            f"calls from here that use {' or '.join(differing)} will be refused: {agreement.worded(differing)}",
            f"to prevent that, take its versions here: {agreement.install_command(differing)}{newer}",
        )

    def publish(self) -> Published:
        """Publish them, unless they are there."""
        self.published = publish(self._built, self._lambda_client, *self._place)
        return self.published

    def needed(self, others: tuple[str, ...]) -> NeededByPackages:
        """What functions need to have them, beside other layers; before they are published in provisional words."""
        done = self.published
        if done is not None:
            return NeededByPackages((*others, *done.layers), done.variables, done.ephemeral_mb)
        if self._built.fits_layer:
            return NeededByPackages((*others, NEW), {PACKAGES_VARIABLE: ""})
        return NeededByPackages(others, {PACKAGES_VARIABLE: NEW})

    def _is_published(self, variables: Mapping[str, str], layers: tuple[str, ...]) -> bool:
        """Whether the function has them already, so that publishing finds all of it and changes nothing."""
        from botocore.exceptions import ClientError

        if not self._built.fits_layer:
            s3_client, bucket, prefix, *_ = self._place
            address, key = variables.get(PACKAGES_VARIABLE, ""), self._list_key(prefix)
            if address != f"s3://{bucket}/{key}":
                return False
            try:
                s3_client.head_object(Bucket=bucket, Key=key, ExpectedBucketOwner=self._place[-1])
            except ClientError:
                return False
            return True
        pages = self._lambda_client.get_paginator("list_layer_versions").paginate(LayerName=self._place[3])
        try:
            return any(
                one["LayerVersionArn"] in layers and self._built.digest in one.get("Description", "")
                for page in pages
                for one in page["LayerVersions"]
            )
        except self._lambda_client.exceptions.ResourceNotFoundException:
            return False

    def _list_key(self, prefix: str) -> str:
        """Key of the archive's list, which is put there last."""
        import blake3

        digest = blake3.blake3((self._built.folder / "list.json").read_bytes()).hexdigest()
        return f"{packages_folder(prefix)}{digest}"
