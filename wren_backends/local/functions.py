"""Functions, their versions and what they share: names, concurrency, tags."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from .api_errors import constraint, invalid, not_found, throttled
from .configuration import FunctionSettings
from .layers import LayerVersion
from .options import ACCOUNT_ID, REGION
from .packages import Package
from .pool import Pool

LATEST = "$LATEST"
_NAME = re.compile(
    r"(?:arn:aws[\w-]*:lambda:[a-z0-9-]+:)?(?:(?P<account>\d{12}):)?(?:function:)?"
    r"(?P<name>[a-zA-Z0-9\-_]{1,64})(?::(?P<qualifier>\$LATEST|[a-zA-Z0-9\-_]+))?"
)
_MINIMUM_UNRESERVED = 100


def function_arn(name: str) -> str:
    """Return the ARN of a function without a qualifier."""
    return f"arn:aws:lambda:{REGION}:{ACCOUNT_ID}:function:{name}"


def parse_name(text: str) -> tuple[str, str | None]:
    """Split a function name, partial ARN or ARN into name and qualifier.

    Raises:
        ApiError: It is none of these.
    """
    match = _NAME.fullmatch(text)
    if match is None:
        raise constraint(text, "functionName", f"Member must satisfy regular expression pattern: {_NAME.pattern}")
    return match["name"], match["qualifier"]


@dataclass(eq=False)
class Revision:
    """One version of a function: settings, code, and the environments that run it."""

    settings: FunctionSettings
    package: Package
    layers: tuple[LayerVersion, ...]
    pool: Pool
    version: str = LATEST
    description: str | None = None
    revision_id: str = field(default_factory=lambda: str(uuid4()))
    modified: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(eq=False)
class Function:
    """A function with all its versions."""

    name: str
    latest: Revision
    versions: dict[str, Revision] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    event_configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    reserved: int | None = None
    in_flight: int = 0
    next_version: int = 1

    @property
    def arn(self) -> str:
        """The ARN without a qualifier."""
        return function_arn(self.name)

    def revisions(self) -> Iterator[Revision]:
        """Yield $LATEST and the published versions."""
        yield self.latest
        yield from self.versions.values()

    def revision(self, qualifier: str | None) -> Revision:
        """Return one version.

        Raises:
            ApiError: There is none of this name.
        """
        if qualifier in (None, LATEST):
            return self.latest
        try:
            return self.versions[str(qualifier)]
        except KeyError:
            raise not_found(f"Function not found: {self.arn}:{qualifier}") from None

    def configuration(self, revision: Revision, *, qualified: bool) -> dict[str, Any]:
        """Return a version's FunctionConfiguration as the API shows it."""
        shown = {
            "FunctionName": self.name,
            "FunctionArn": f"{self.arn}:{revision.version}" if qualified else self.arn,
            **revision.settings.shown(),
            "CodeSize": revision.package.size,
            "CodeSha256": revision.package.sha256,
            "LastModified": revision.modified.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000",
            "Version": revision.version,
            "RevisionId": revision.revision_id,
            "State": "Active",
            "LastUpdateStatus": "Successful",
            "SnapStart": {
                "ApplyOn": revision.settings.snap_start,
                "OptimizationStatus": "On" if snapshotted(revision.settings, revision.version) else "Off",
            },
            "RuntimeVersionConfig": {"RuntimeVersionArn": f"arn:aws:lambda:{REGION}::runtime:local"},
            "LoggingConfig": {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{self.name}"},
        }
        if revision.description is not None:
            shown["Description"] = revision.description
        if revision.layers:
            shown["Layers"] = [{"Arn": layer.arn, "CodeSize": layer.package.size} for layer in revision.layers]
        return shown


def snapshotted(settings: FunctionSettings, version: str) -> bool:
    """Tell whether SnapStart's hooks run for this version."""
    return settings.snap_start == "PublishedVersions" and version != LATEST


class Functions:
    """All functions of the account, and the concurrency they share."""

    def __init__(self, account_concurrency: int) -> None:
        self.account_concurrency = account_concurrency
        self._by_name: dict[str, Function] = {}
        self._unreserved_in_flight = 0

    def __iter__(self) -> Iterator[Function]:
        return iter(self._by_name.values())

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def add(self, function: Function) -> None:
        """Add a new function."""
        self._by_name[function.name] = function

    def find(self, text: str, qualifier: str | None = None) -> tuple[Function, str | None]:
        """Return a function by name or ARN, with the qualifier given in either place.

        Raises:
            ApiError: It does not exist.
        """
        name, inner = (text, None) if text in self._by_name else parse_name(text)
        if inner and qualifier and inner != qualifier:
            raise invalid("The derived qualifier from the function name does not match the specified qualifier.")
        function = self._by_name.get(name)
        qualifier = qualifier or inner
        if function is None:
            suffix = f":{qualifier}" if qualifier else ""
            raise not_found(f"Function not found: {function_arn(name)}{suffix}")
        return function, qualifier

    def delete(self, function: Function) -> None:
        """Delete a function with all its versions."""
        del self._by_name[function.name]
        for revision in function.revisions():
            revision.pool.retire()

    def admit(self, function: Function) -> bool:
        """Take one unit of concurrency; the answer, whether from the function's own, goes back to `release`.

        Raises:
            ApiError: None is free.
        """
        if function.reserved is not None:
            if function.in_flight >= function.reserved:
                raise throttled("ReservedFunctionConcurrentInvocationLimitExceeded")
        elif self._unreserved_in_flight >= self.unreserved():
            raise throttled("ConcurrentInvocationLimitExceeded")
        else:
            self._unreserved_in_flight += 1
        function.in_flight += 1
        return function.reserved is not None

    def release(self, function: Function, *, reserved: bool) -> None:
        """Give back what `admit` took."""
        function.in_flight -= 1
        if not reserved:
            self._unreserved_in_flight -= 1

    def unreserved(self) -> int:
        """Return the concurrency that no function has reserved."""
        return self.account_concurrency - sum(function.reserved or 0 for function in self)

    def reserve(self, function: Function, concurrency: int) -> None:
        """Reserve concurrency for one function.

        Raises:
            ApiError: Too little would be left for the others.
        """
        minimum = min(_MINIMUM_UNRESERVED, self.account_concurrency)
        if self.unreserved() + (function.reserved or 0) - concurrency < minimum:
            raise invalid(
                "Specified ReservedConcurrentExecutions for function decreases account's "
                f"UnreservedConcurrentExecution below its minimum value of [{minimum}]."
            )
        function.reserved = concurrency
