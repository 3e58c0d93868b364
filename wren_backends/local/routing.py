"""Binds the operations of the Lambda API to their REST paths."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .lambda_api import LambdaApi

Json = dict[str, Any]
Answer = tuple[int, Json | None]
Operation = Callable[["LambdaApi", Json, Json], Awaitable[Answer]]
ROUTES: list[tuple[str, re.Pattern[str], Operation]] = []
"""Method, path and operation; filled while the modules of operations are imported."""


def route(method: str, pattern: str) -> Callable[[Operation], Operation]:
    """Bind an operation to a path; ``{name}`` in it matches one segment."""
    compiled = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern))

    def register(operation: Operation) -> Operation:
        ROUTES.append((method, compiled, operation))
        return operation

    return register


def page(name: str, items: list[Json], parameters: Json) -> Json:
    """Return one page of a listing; the marker is the index of the next item."""
    start = int(parameters.get("Marker") or 0)
    size = min(int(parameters.get("MaxItems") or 50), 50)
    answer: Json = {name: items[start : start + size]}
    if start + size < len(items):
        answer["NextMarker"] = str(start + size)
    return answer
