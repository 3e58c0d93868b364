"""What AWS's S3 knows of buckets and the S3 server does not: whose they are, and the block on public access."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from .http11 import Request
from .options import ACCOUNT_ID

_MAX_BODY_BYTES = 65536
_BUCKET = re.compile(r"/([^/]+)/?")
_BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


@dataclass
class BucketSettings:
    """Answers for S3 what its server cannot; a new bucket blocks public access, as on AWS since April 2023."""

    _blocks: dict[str, dict[str, bool] | None] = field(default_factory=dict)

    def is_foreign(self, request: Request) -> bool:
        """Whether a request expects the bucket to be another account's: every bucket here is this account's."""
        return request.headers.get("x-amz-expected-bucket-owner", ACCOUNT_ID) != ACCOUNT_ID

    def concerns(self, request: Request) -> bool:
        """Whether a request is answered here."""
        return request.query.split("&")[0].split("=")[0] == "publicAccessBlock" and bool(
            _BUCKET.fullmatch(request.path)
        )

    def note(self, request: Request) -> None:
        """Forget a bucket that is being deleted."""
        bucket = _BUCKET.fullmatch(request.path)
        if bucket and request.method == "DELETE" and not request.query:
            self._blocks.pop(bucket[1], None)

    async def read_body(self, request: Request) -> bytes:
        """The body of a request that is answered here."""
        return await request.read_body(_MAX_BODY_BYTES)

    def handle(self, request: Request, body: bytes) -> None:
        """Answer Get-, Put- or DeletePublicAccessBlock."""
        found = _BUCKET.fullmatch(request.path)
        assert found is not None
        bucket = found[1]
        if request.method == "PUT":
            self._blocks[bucket] = _parsed(body)
            request.respond(200, {})
        elif request.method == "DELETE":
            self._blocks[bucket] = None
            request.respond(204, {})
        else:
            self._show(request, self._blocks.get(bucket, dict.fromkeys(_BLOCKS, True)))

    def _show(self, request: Request, blocks: dict[str, bool] | None) -> None:
        if blocks is None:
            refuse(
                request,
                404,
                "NoSuchPublicAccessBlockConfiguration",
                "The public access block configuration was not found",
            )
            return
        shown = "".join(f"<{name}>{str(value).lower()}</{name}>" for name, value in blocks.items())
        body = f'<PublicAccessBlockConfiguration xmlns="{_NAMESPACE}">{shown}</PublicAccessBlockConfiguration>'
        request.respond(200, {"content-type": "application/xml"}, body.encode())


def refuse(request: Request, status: int, code: str, text: str) -> None:
    """Answer with an error as S3 does; a HEAD has none but its status."""
    body = f"<Error><Code>{code}</Code><Message>{escape(text)}</Message></Error>".encode()
    request.respond(status, {"content-type": "application/xml"}, b"" if request.method == "HEAD" else body)


def _parsed(body: bytes) -> dict[str, bool]:
    found = {child.tag.rpartition("}")[2]: child.text for child in ElementTree.fromstring(body)}
    return {name: found.get(name) == "true" for name in _BLOCKS}
