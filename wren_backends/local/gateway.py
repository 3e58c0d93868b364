"""The front door: one URL for S3, Lambda, IAM, STS and CloudWatch Logs, told apart by what the signature names."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from .api_errors import ApiError
from .bucket_settings import BucketSettings, refuse
from .http11 import BodyTooLargeError, Request
from .lambda_api import LambdaApi, respond_error
from .moto import Moto
from .proxy import Upstream
from .sigv4 import Authorization, SignatureError, Verifier, parse_authorization

_MAX_BODY_BYTES = 16 * 1024 * 1024
_PACKAGES = "/_wren/packages/"
# The query protocol names these errors differently.
_QUERY_CODES = {
    "UnrecognizedClientException": "InvalidClientTokenId",
    "InvalidSignatureException": "SignatureDoesNotMatch",
    "MissingAuthenticationTokenException": "MissingAuthenticationToken",
    "IncompleteSignatureException": "IncompleteSignature",
}


@dataclass
class Gateway:
    """Hands every request to the part that answers it."""

    verifier: Verifier
    s3: Upstream
    lambda_api: LambdaApi
    moto: Moto
    packages: Path
    stats: Callable[[], Awaitable[dict[str, Any]]]
    buckets: BucketSettings = field(default_factory=BucketSettings)
    s3_latency_ms: float = 0.0

    async def handle(self, request: Request) -> None:
        """Answer one request."""
        if request.target.startswith("/_wren/"):
            await self._own(request)
            return
        header = request.headers.get("authorization", "")
        if not header and _presigned_for_s3(request.query):
            await self.s3.forward(request)
            return
        try:
            authorization = parse_authorization(header)
        except SignatureError as error:
            _refuse(request, error)
            return
        service = authorization.service
        if service == "s3":
            if self.s3_latency_ms:
                await asyncio.sleep(self.s3_latency_ms / 1000)
            await self._s3(request, authorization)
        elif service == "lambda":
            await self._lambda(request, authorization)
        elif service in ("iam", "sts", "logs"):
            await self._moto(request, authorization)
        else:
            text = f"The local cloud has no service '{service}': it has s3, lambda, iam, sts and logs."
            _refuse(request, SignatureError("UnknownOperationException", text), 404)

    async def _s3(self, request: Request, authorization: Authorization) -> None:
        if self.buckets.is_foreign(request):
            request.keep_alive = False  # its body is not read
            refuse(request, 403, "AccessDenied", "Access Denied")
        elif not self.buckets.concerns(request):
            self.buckets.note(request)
            await self.s3.forward(request)  # SeaweedFS checks the signature
        else:
            body = await self.buckets.read_body(request)
            try:
                self._verify(request, authorization, body)
            except SignatureError as error:
                refuse(request, 403, "SignatureDoesNotMatch", error.text)
            else:
                self.buckets.handle(request, body)

    async def _lambda(self, request: Request, authorization: Authorization) -> None:
        try:
            body = await self.lambda_api.read_body(request)
            self._verify(request, authorization, body)
        except SignatureError as error:
            _refuse(request, error)
        except ApiError as error:
            respond_error(request, error)
        else:
            await self.lambda_api.handle(request, body)

    async def _moto(self, request: Request, authorization: Authorization) -> None:
        try:
            body = await request.read_body(_MAX_BODY_BYTES)
            self._verify(request, authorization, body)
        except BodyTooLargeError:
            _refuse(request, SignatureError("RequestEntityTooLargeException", "Request is too large"), 413)
        except SignatureError as error:
            _refuse(request, error)
        else:
            await self.moto.handle(request, authorization.service, body)

    def _verify(self, request: Request, authorization: Authorization, body: bytes) -> None:
        self.verifier.verify(authorization, request.method, request.target, request.headers, body)

    async def _own(self, request: Request) -> None:
        if request.path == "/_wren/stats":
            headers = {"content-type": "application/json"}
            request.respond(200, headers, json.dumps(await self.stats()).encode())
            return
        name = request.path.removeprefix(_PACKAGES)
        file = self.packages / name
        if request.path.startswith(_PACKAGES) and name.isascii() and "/" not in name and file.is_file():
            request.respond(200, {"content-type": "application/zip"}, file.read_bytes())
        else:
            request.respond(404, {}, b"")


def _presigned_for_s3(query: str) -> bool:
    if "X-Amz-Credential=" in query:
        return "/s3/aws4_request" in parse_qs(query)["X-Amz-Credential"][0]
    return "AWSAccessKeyId=" in query  # the older signature, which boto3 still makes


def _refuse(request: Request, error: SignatureError, status: int = 403) -> None:
    """Answer as the service would whose protocol the request speaks."""
    kind = request.headers.get("content-type", "")
    if kind.startswith("application/x-www-form-urlencoded"):
        code = _QUERY_CODES.get(error.error_type, error.error_type)
        body = (
            f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code>"
            f"<Message>{escape(error.text)}</Message></Error></ErrorResponse>"
        )
        request.respond(status, {"content-type": "text/xml"}, body.encode())
        return
    headers = {"content-type": "application/json", "x-amzn-ErrorType": error.error_type}
    answer = {"message": error.text}
    if kind.startswith("application/x-amz-json"):
        answer["__type"] = error.error_type
    request.respond(status, headers, json.dumps(answer).encode())
