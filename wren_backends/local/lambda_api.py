"""The Lambda API's front: reads a request, finds its operation, words the answer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import parse_qs, unquote
from uuid import uuid4

from . import function_operations, layer_operations, setting_operations
from .api_errors import ApiError
from .functions import Function, Functions, Revision
from .http11 import BodyTooLargeError, Request
from .invoke import Invoker
from .layers import Layers
from .revisions import RevisionMaker
from .routing import ROUTES, Answer, Json

_MAX_BODY_BYTES = 70_167_211
_INVOKE = re.compile(r"/2015-03-31/functions/([^/]+)/invocations")
_OPERATIONS = (function_operations, layer_operations, setting_operations)  # importing them fills ROUTES


class LambdaApi:
    """The control plane, with Invoke beside it."""

    def __init__(
        self, functions: Functions, layers: Layers, maker: RevisionMaker, invoker: Invoker, endpoint_url: str
    ) -> None:
        self.functions = functions
        self.layers = layers
        self.maker = maker
        self.invoker = invoker
        self.endpoint_url = endpoint_url

    async def read_body(self, request: Request) -> bytes:
        """Read a request's body within the limit of its operation.

        Raises:
            ApiError: It is too large.
        """
        if _INVOKE.fullmatch(request.path):
            return await self.invoker.read_event(request)
        try:
            return await request.read_body(_MAX_BODY_BYTES)
        except BodyTooLargeError:
            request.keep_alive = False
            text = f"Request must be smaller than {_MAX_BODY_BYTES} bytes for the operation"
            raise ApiError(413, "RequestEntityTooLargeException", text) from None

    async def handle(self, request: Request, body: bytes) -> None:
        """Answer one request whose signature has been checked."""
        try:
            invoke = _INVOKE.fullmatch(request.path)
            if invoke and request.method == "POST":
                await self.invoker.invoke(unquote(invoke[1]), request, body)
                return
            status, answer = await self._operate(request, body)
        except ApiError as error:
            respond_error(request, error)
            return
        headers = {"content-type": "application/json", "x-amzn-RequestId": str(uuid4())}
        request.respond(status, headers, b"" if answer is None else json.dumps(answer).encode())

    async def _operate(self, request: Request, body: bytes) -> Answer:
        path = request.path.rstrip("/")
        for method, pattern, operation in ROUTES:
            match = pattern.fullmatch(path) if method == request.method else None
            if match:
                parameters: Json = {name: values[-1] for name, values in parse_qs(request.query).items()}
                parameters["tagKeys"] = parse_qs(request.query).get("tagKeys", [])
                parameters.update((name, unquote(value)) for name, value in match.groupdict().items())
                return await operation(self, parameters, _parsed(body))
        raise ApiError(404, "UnknownOperationException", f"The local cloud does not know {request.method} {path}")

    def find(self, parameters: Json) -> tuple[Function, Revision, str | None]:
        """Return the function and version that a request names."""
        function, qualifier = self.functions.find(parameters["name"], parameters.get("Qualifier"))
        return function, function.revision(qualifier), qualifier

    def location(self, file: Path) -> str:
        """Return the URL under which a package can be fetched; its name is the secret."""
        return f"{self.endpoint_url}/_wren/packages/{file.name}"

    def replace_latest(self, function: Function, revision: Revision) -> Json:
        """Make a new $LATEST."""
        function.latest.pool.retire()
        function.latest = revision
        return function.configuration(revision, qualified=False)


def respond_error(request: Request, error: ApiError) -> None:
    """Answer with an error as the Lambda API does."""
    headers = {
        "content-type": "application/json",
        "x-amzn-RequestId": str(uuid4()),
        "x-amzn-ErrorType": error.error_type,
    }
    request.respond(error.status, headers, error.body())


def _parsed(body: bytes) -> Json:
    if not body:
        return {}
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise ApiError(400, "SerializationException", "Could not parse request body into json")
    return parsed
