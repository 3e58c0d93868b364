"""The errors of the Lambda API, as AWS words them."""

from __future__ import annotations

import json
from typing import Any


class ApiError(Exception):
    """An answer other than success."""

    def __init__(self, status: int, error_type: str, text: str, **more: Any) -> None:
        super().__init__(text)
        self.status = status
        self.error_type = error_type
        self.text = text
        self.more = more

    def body(self) -> bytes:
        """Return the JSON that goes with it."""
        return json.dumps({**self.more, "Type": "User", "message": self.text}).encode()


def not_found(text: str) -> ApiError:
    """The thing that was asked for does not exist."""
    return ApiError(404, "ResourceNotFoundException", text)


def conflict(text: str) -> ApiError:
    """It exists already, or is in another state than asked for."""
    return ApiError(409, "ResourceConflictException", text)


def invalid(text: str) -> ApiError:
    """A parameter has a value that Lambda refuses."""
    return ApiError(400, "InvalidParameterValueException", text)


def constraint(value: object, name: str, rule: str) -> ApiError:
    """A parameter breaks a rule of the API's model."""
    text = f"1 validation error detected: Value '{value}' at '{name}' failed to satisfy constraint: {rule}"
    return ApiError(400, "ValidationException", text)


def unsupported(name: str, value: object) -> ApiError:
    """AWS would take it, but the local cloud could not honour it, so it says so."""
    return invalid(f"{name}={json.dumps(value)} is not supported by the local cloud: leave it out, or deploy to AWS.")


def too_large(limit: int, operation: str) -> ApiError:
    """A request is larger than its operation allows."""
    text = f"Request must be smaller than {limit} bytes for the {operation} operation"
    return ApiError(413, "RequestTooLargeException", text)


def throttled(reason: str) -> ApiError:
    """No free concurrency."""
    return ApiError(429, "TooManyRequestsException", "Rate Exceeded.", Reason=reason)
