"""What AWS answers when it refuses a request, as it words it.

Sources: AWS Lambda API reference, "Invoke"; Amazon S3 API reference, "Error responses".
"""

import json

from .proxy import Answer


def _of_lambda(status: int, kind: str, body: dict[str, str], *more: tuple[str, str]) -> Answer:
    headers = (
        ("Content-Type", "application/json"),
        ("x-amzn-RequestId", "7c4a8d09-ca37-4f59-b2a3-5e0f6d1c2b3a"),
        ("x-amzn-ErrorType", kind),
        *more,
    )
    return Answer(status, headers, json.dumps(body).encode())


def _of_s3(status: int, code: str, text: str) -> Answer:
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{text}</Message>'
        "<RequestId>4442587FB7D0A2F9</RequestId><HostId>host</HostId></Error>"
    )
    headers = (("Content-Type", "application/xml"), ("x-amz-request-id", "4442587FB7D0A2F9"))
    return Answer(status, headers, body.encode())


THROTTLED = _of_lambda(
    429,
    "TooManyRequestsException",
    {"Reason": "ReservedFunctionConcurrentInvocationLimitExceeded", "Type": "User", "message": "Rate Exceeded."},
)
SERVICE_ERROR = _of_lambda(
    500, "ServiceException", {"Type": "Service", "message": "An error occurred and the request cannot be processed."}
)
UNAVAILABLE = _of_lambda(503, "ServiceUnavailableException", {"message": "Service Unavailable"})
PENDING = _of_lambda(
    409,
    "ResourceConflictException",
    {
        "Type": "User",
        "message": "The operation cannot be performed at this time. The function is currently in the following "
        "state: Pending",
    },
)
EXPIRED = _of_lambda(403, "ExpiredTokenException", {"message": "The security token included in the request is expired"})

SLOW_DOWN = _of_s3(503, "SlowDown", "Please reduce your request rate.")
INTERNAL_ERROR = _of_s3(500, "InternalError", "We encountered an internal error. Please try again.")
EXPIRED_TOKEN = _of_s3(400, "ExpiredToken", "The provided token has expired.")
ACCESS_DENIED = _of_s3(403, "AccessDenied", "Access Denied")
CONFLICT = _of_s3(
    409,
    "ConditionalRequestConflict",
    "The conditional request cannot succeed due to a conflicting operation against this resource.",
)
