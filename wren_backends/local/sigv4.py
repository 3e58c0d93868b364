"""Signature Version 4 as AWS checks it: whoever does not hold the secret key is turned away.

Follows "Create a signed AWS API request" of the IAM User Guide. Only headers are looked at: Lambda, IAM, STS and
CloudWatch Logs are not called through presigned URLs here, and S3 checks its own.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from calendar import timegm
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import parse_qsl, quote

_ALGORITHM = "AWS4-HMAC-SHA256"
_MAX_SKEW_S = 300


class SignatureError(Exception):
    """A request that AWS would refuse; carries AWS's error type and text."""

    def __init__(self, error_type: str, text: str) -> None:
        super().__init__(text)
        self.error_type = error_type
        self.text = text


@dataclass(frozen=True, slots=True)
class Authorization:
    """A parsed Authorization header."""

    access_key_id: str
    date: str
    region: str
    service: str
    signed_headers: str
    signature: str


def parse_authorization(header: str) -> Authorization:
    """Parse an Authorization header.

    Raises:
        SignatureError: It is missing or incomplete.
    """
    if not header:
        raise SignatureError("MissingAuthenticationTokenException", "Missing Authentication Token")
    algorithm, _, rest = header.partition(" ")
    if algorithm != _ALGORITHM:
        raise SignatureError("IncompleteSignatureException", f"Unsupported AWS 'algorithm': '{algorithm}'.")
    fields = dict([part.strip().partition("=")[::2] for part in rest.split(",")])
    missing = [name for name in ("Credential", "SignedHeaders", "Signature") if not fields.get(name)]
    if missing:
        text = " ".join(f"Authorization header requires '{name}' parameter." for name in missing)
        raise SignatureError("IncompleteSignatureException", f"{text} Authorization={header[:100]}")
    scope = fields["Credential"].split("/")
    if len(scope) != 5 or scope[4] != "aws4_request":
        text = "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got"
        raise SignatureError("IncompleteSignatureException", f"{text} '{fields['Credential']}'")
    key_id, date, region, service, _ = scope
    return Authorization(key_id, date, region, service, fields["SignedHeaders"], fields["Signature"])


@dataclass
class Verifier:
    """Checks signatures made with one pair of keys for one region."""

    access_key_id: str
    secret_access_key: str
    region: str
    _signing_keys: dict[tuple[str, str], bytes] = field(default_factory=dict)

    def verify(
        self, authorization: Authorization, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> None:
        """Check one request.

        Raises:
            SignatureError: AWS would refuse it.
        """
        if authorization.access_key_id != self.access_key_id:
            text = "The security token included in the request is invalid."
            raise SignatureError("UnrecognizedClientException", text)
        if authorization.region != self.region:
            raise SignatureError("InvalidSignatureException", "Credential should be scoped to a valid region. ")
        stamp = headers.get("x-amz-date", "")
        _check_time(stamp, authorization.date)
        digest = hashlib.sha256(body).hexdigest()
        if headers.get("x-amz-content-sha256", digest) != digest:
            text = "The value of the X-Amz-Content-SHA256 header does not match the calculated hash of the payload."
            raise SignatureError("InvalidSignatureException", text)
        canonical = _canonical_request(method, target, headers, authorization.signed_headers, digest)
        scope = f"{authorization.date}/{authorization.region}/{authorization.service}/aws4_request"
        hashed = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
        text_to_sign = f"{_ALGORITHM}\n{stamp}\n{scope}\n{hashed}"
        key = self._signing_key(authorization.date, authorization.service)
        expected = hmac.digest(key, text_to_sign.encode(), "sha256").hex()
        if not hmac.compare_digest(expected, authorization.signature):
            raise SignatureError(
                "InvalidSignatureException",
                "The request signature we calculated does not match the signature you provided. Check your AWS "
                "Secret Access Key and signing method. Consult the service documentation for details.",
            )

    def _signing_key(self, date: str, service: str) -> bytes:
        key = self._signing_keys.get((date, service))
        if key is None:
            key = f"AWS4{self.secret_access_key}".encode()
            for part in (date, self.region, service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._signing_keys[(date, service)] = key
        return key


@lru_cache(maxsize=16)
def _seconds(stamp: str) -> int:
    """Return a stamp's time; clients repeat it within a second, and parsing it is slow."""
    return timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ"))


def _check_time(stamp: str, scope_date: str) -> None:
    try:
        sent = _seconds(stamp)
    except ValueError:
        text = "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."
        raise SignatureError("IncompleteSignatureException", text) from None
    now = time.time()
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    if sent < now - _MAX_SKEW_S:
        limit = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now - _MAX_SKEW_S))
        text = f"Signature expired: {stamp} is now earlier than {limit} ({moment} - 5 min.)"
        raise SignatureError("InvalidSignatureException", text)
    if sent > now + _MAX_SKEW_S:
        limit = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now + _MAX_SKEW_S))
        text = f"Signature not yet current: {stamp} is still later than {limit} ({moment} + 5 min.)"
        raise SignatureError("InvalidSignatureException", text)
    if not stamp.startswith(scope_date):
        text = (
            f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
            f"'{scope_date}' != '{stamp[:8]}', from '{stamp}'."
        )
        raise SignatureError("InvalidSignatureException", text)


def _canonical_request(method: str, target: str, headers: Mapping[str, str], signed_headers: str, digest: str) -> str:
    path, _, query = target.partition("?")
    names = signed_headers.split(";")
    if "host" not in names:
        raise SignatureError("InvalidSignatureException", "'Host' must be a 'SignedHeader' in the AWS Authorization.")
    lines = [f"{name}:{' '.join(headers.get(name, '').split())}" for name in names]
    # Every service but S3 signs the path encoded once more than it travels.
    canonical_path = quote(path, safe="/~")
    return "\n".join([method, canonical_path, _canonical_query(query), *lines, "", signed_headers, digest])


def _canonical_query(query: str) -> str:
    if not query:
        return ""
    pairs = parse_qsl(query, keep_blank_values=True)
    return "&".join(f"{k}={v}" for k, v in sorted((quote(k, safe="~"), quote(v, safe="~")) for k, v in pairs))
