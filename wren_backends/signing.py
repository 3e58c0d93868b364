"""Signs Invoke requests: AWS Signature Version 4 for one URL, with everything that does not change computed once.

botocore's signer is general and takes 0.2 ms for each request, a third of what a whole dispatch may take; this takes a
tenth of it. The tests hold it against botocore's, byte for byte.
Source: AWS IAM User Guide, "Create a signed AWS API request".
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit


class Signer:
    """Signs POST requests to one URL.

    Args:
        url: Where they go; it has no query.
        service: AWS's name of the service, such as `lambda`.
        region: AWS region.
    """

    def __init__(self, url: str, service: str, region: str) -> None:
        parts = urlsplit(url)
        self._host = parts.netloc
        # every service but S3 wants the path encoded twice: once in the URL, once more in the canonical request
        self._path = quote(parts.path, safe="/-_.~")
        self._scope = f"{region}/{service}/aws4_request"
        self._region, self._service = region, service
        self._derived: tuple[str, str, hmac.HMAC] | None = None

    def sign(
        self, body: bytes, headers: dict[str, str], credentials: Any, now: datetime | None = None
    ) -> dict[str, str]:
        """Headers to send with `body`: those given, which become part of the signature, and AWS's own.

        Args:
            body: The request's body.
            headers: Names in lower case.
            credentials: botocore's, frozen.
            now: The time; default: that of the clock.
        """
        at = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
        signed = {**headers, "host": self._host, "x-amz-date": at}
        if credentials.token:
            signed["x-amz-security-token"] = credentials.token
        names = sorted(signed)
        joined = ";".join(names)
        lines = "".join(f"{name}:{signed[name]}\n" for name in names)
        request = f"POST\n{self._path}\n\n{lines}\n{joined}\n{hashlib.sha256(body).hexdigest()}"
        scope = f"{at[:8]}/{self._scope}"
        text = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        mac = self._keyed(at[:8], credentials.secret_key).copy()
        mac.update(text.encode())
        place = f"{credentials.access_key}/{scope}"
        signed["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={place}, SignedHeaders={joined}, Signature={mac.hexdigest()}"
        )
        return signed

    def _keyed(self, day: str, secret: str) -> hmac.HMAC:
        """A MAC under the signing key of a day, to be copied: unlike `hmac.digest`, that keeps Python's lock."""
        if self._derived is None or self._derived[:2] != (day, secret):
            key = f"AWS4{secret}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._derived = day, secret, hmac.new(key, digestmod="sha256")
        return self._derived[2]
