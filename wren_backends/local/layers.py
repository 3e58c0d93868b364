"""Layers and their versions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from .api_errors import constraint, invalid, not_found
from .options import ACCOUNT_ID, REGION
from .packages import Package

_NAME = re.compile(rf"(?:arn:aws[\w-]*:lambda:{REGION}:{ACCOUNT_ID}:layer:)?([a-zA-Z0-9\-_]{{1,140}})")


@dataclass(frozen=True)
class LayerVersion:
    """One published version of a layer."""

    name: str
    version: int
    package: Package
    description: str = ""
    runtimes: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    license_info: str = ""
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def layer_arn(self) -> str:
        """The layer's ARN."""
        return f"arn:aws:lambda:{REGION}:{ACCOUNT_ID}:layer:{self.name}"

    @property
    def arn(self) -> str:
        """This version's ARN."""
        return f"{self.layer_arn}:{self.version}"

    def summary(self) -> dict[str, Any]:
        """Return what a listing shows of it."""
        shown: dict[str, Any] = {
            "LayerVersionArn": self.arn,
            "Version": self.version,
            "Description": self.description,
            "CreatedDate": self.created.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000",
        }
        if self.runtimes:
            shown["CompatibleRuntimes"] = list(self.runtimes)
        if self.architectures:
            shown["CompatibleArchitectures"] = list(self.architectures)
        if self.license_info:
            shown["LicenseInfo"] = self.license_info
        return shown

    def shown(self, location: str) -> dict[str, Any]:
        """Return all of it."""
        content = {"Location": location, "CodeSha256": self.package.sha256, "CodeSize": self.package.size}
        return {"LayerArn": self.layer_arn, "Content": content, **self.summary()}


class Layers:
    """All layers of the account."""

    def __init__(self) -> None:
        self._versions: dict[str, dict[int, LayerVersion]] = {}
        self._last: dict[str, int] = {}

    def publish(self, text: str, package: Package, body: dict[str, Any]) -> LayerVersion:
        """Add a version to a layer, which may be new."""
        name = layer_name(text)
        number = self._last[name] = self._last.get(name, 0) + 1
        version = LayerVersion(
            name,
            number,
            package,
            str(body.get("Description") or ""),
            tuple(body.get("CompatibleRuntimes") or ()),
            tuple(body.get("CompatibleArchitectures") or ()),
            str(body.get("LicenseInfo") or ""),
        )
        self._versions.setdefault(name, {})[number] = version
        return version

    def get(self, text: str, number: int) -> LayerVersion:
        """Return one version.

        Raises:
            ApiError: It does not exist.
        """
        name = layer_name(text)
        try:
            return self._versions[name][number]
        except KeyError:
            arn = f"arn:aws:lambda:{REGION}:{ACCOUNT_ID}:layer:{name}:{number}"
            raise not_found(f"The resource you requested does not exist: {arn}") from None

    def by_arn(self, arn: str) -> LayerVersion:
        """Return the version a function names.

        Raises:
            ApiError: It does not exist.
        """
        layer, _, number = arn.rpartition(":")
        if not number.isdigit() or not _NAME.fullmatch(layer):
            raise invalid(f"Layer version {arn} does not exist.")
        version = self._versions.get(layer_name(layer), {}).get(int(number))
        if version is None:
            raise invalid(f"Layer version {arn} does not exist.")
        return version

    def delete(self, text: str, number: int) -> None:
        """Delete a version; functions that use it keep it."""
        self._versions.get(layer_name(text), {}).pop(number, None)

    def versions(self, text: str) -> list[LayerVersion]:
        """Return a layer's versions, newest first."""
        return sorted(self._versions.get(layer_name(text), {}).values(), key=lambda one: -one.version)

    def newest(self) -> Iterator[LayerVersion]:
        """Yield the newest version of each layer."""
        for name in self._versions:
            yield from self.versions(name)[:1]


def layer_name(text: str) -> str:
    """Return a layer's name, given it or its ARN."""
    match = _NAME.fullmatch(text)
    if match is None:
        raise constraint(text, "layerName", f"Member must satisfy regular expression pattern: {_NAME.pattern}")
    return match[1]
