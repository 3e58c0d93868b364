"""How a function's asynchronous invocations are tried again, and where those go that fail for good."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from .api_errors import constraint, invalid, unsupported

_BUCKET_ARN = re.compile(r"arn:aws[\w-]*:s3:::[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]")


def event_config(arn: str, version: str, current: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """Apply a PutFunctionEventInvokeConfig (to nothing) or UpdateFunctionEventInvokeConfig request.

    Raises:
        ApiError: A value is wrong or cannot be honoured.
    """
    config: dict[str, Any] = {
        **{key: value for key, value in current.items() if key not in ("LastModified", "FunctionArn")},
        "LastModified": time.time(),
        "FunctionArn": f"{arn}:{version}",
    }
    retries, age = body.get("MaximumRetryAttempts"), body.get("MaximumEventAgeInSeconds")
    destinations = body.get("DestinationConfig")
    if retries is None and age is None and destinations is None:
        raise invalid("You must specify at least one of error handling or destination setting.")
    if retries is not None:
        config["MaximumRetryAttempts"] = _between(retries, "maximumRetryAttempts", 0, 2)
    if age is not None:
        config["MaximumEventAgeInSeconds"] = _between(age, "maximumEventAgeInSeconds", 60, 21600)
    if destinations is not None:
        config["DestinationConfig"] = _destinations(destinations)
    return config


def _destinations(body: Mapping[str, Any]) -> dict[str, Any]:
    if (body.get("OnSuccess") or {}).get("Destination"):
        raise unsupported("DestinationConfig.OnSuccess", body["OnSuccess"])
    destination = (body.get("OnFailure") or {}).get("Destination")
    if not destination:
        return {"OnSuccess": {}, "OnFailure": {}}
    if not _BUCKET_ARN.fullmatch(destination):
        raise unsupported("DestinationConfig.OnFailure", body["OnFailure"])
    return {"OnSuccess": {}, "OnFailure": {"Destination": destination}}


def _between(value: int, name: str, lowest: int, highest: int) -> int:
    if value < lowest:
        raise constraint(value, name, f"Member must have value greater than or equal to {lowest}")
    if value > highest:
        raise constraint(value, name, f"Member must have value less than or equal to {highest}")
    return value
