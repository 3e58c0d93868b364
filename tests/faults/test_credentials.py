"""Credentials that expire in the middle of a job: those that are renewed go unnoticed, others are a typed error."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from botocore.credentials import Credentials, ReadOnlyCredentials, RefreshableCredentials

from wren_backends import ConfigError, StorageError
from wren_backends.connection import _s3_provider

from .answers import ACCESS_DENIED, EXPIRED, EXPIRED_TOKEN
from .calls import length, square
from .proxy import answered, invokes, on

SOON_S = 20.0


class Issuer:
    """Issues the local cloud's keys for an hour at a time, with a token that says which issue they are of."""

    def __init__(self, cloud):
        self._cloud = cloud
        self.now = datetime.now(UTC)
        self.issued = 0

    def issue(self):
        self.issued += 1
        return {
            "access_key": self._cloud.access_key_id,
            "secret_key": self._cloud.secret_access_key,
            "token": f"token {self.issued}",
            "expiry_time": (self.now + timedelta(hours=1)).isoformat(),
        }

    def credentials(self):
        first = self.issue()
        expiry = datetime.fromisoformat(first.pop("expiry_time"))
        return RefreshableCredentials(
            first["access_key"],
            first["secret_key"],
            first["token"],
            expiry,
            refresh_using=self.issue,
            method="test",
            time_fetcher=lambda: self.now,
        )


def test_renewed_credentials_sign_the_next_invocation(path, make, mode, cloud):
    issuer = Issuer(cloud)
    credentials = issuer.credentials()
    executor = make(mode, connection=replace(path.connection, credentials=lambda: credentials))
    assert executor.submit(square, 2).result(timeout=SOON_S) == 4
    issuer.now += timedelta(minutes=59)
    outdated = path.to_lambda.add(
        answered(EXPIRED),
        lambda request: invokes(request) and request.headers["x-amz-security-token"] == "token 1",
        times=None,
    )
    assert list(executor.map(square, range(10), timeout=SOON_S)) == [n * n for n in range(10)]
    assert issuer.issued == 2
    assert outdated.hits == 0


def test_expired_credentials_are_told_at_once(path, make, mode):
    rule = path.to_lambda.add(answered(EXPIRED), invokes, times=None)
    error = make(mode).submit(square, 2).exception(timeout=SOON_S)
    assert type(error) is ConfigError
    assert "ExpiredTokenException" in str(error)
    assert rule.hits == 1


def test_a_signature_that_lambda_refuses(path, make, cloud):
    wrong = Credentials(cloud.access_key_id, "another secret")
    error = make(connection=replace(path.connection, credentials=lambda: wrong)).submit(square, 2).exception(SOON_S)
    assert type(error) is ConfigError
    assert "InvalidSignatureException" in str(error)


class Due:
    """Credentials that are always about to expire, so that whoever holds them has to ask again before each use."""

    def __init__(self, cloud):
        self._cloud = cloud
        self._expiry_time = datetime.now(UTC)
        self.asked = 0

    def get_frozen_credentials(self):
        self.asked += 1
        return ReadOnlyCredentials(self._cloud.access_key_id, self._cloud.secret_access_key, None)


def test_s3_requests_are_signed_with_renewed_credentials(path, make, cloud, request):
    credentials = Due(cloud)
    renewing = replace(path.connection, s3_credentials={"credential_provider": _s3_provider(credentials)})
    executor = make("s3", connection=renewing)
    assert executor.submit(length, bytes(1_000_000)).result(timeout=SOON_S) == 1_000_000
    before = credentials.asked
    outdated = path.to_s3.add(answered(EXPIRED_TOKEN), lambda _: credentials.asked == before, times=None)
    data = request.node.name.encode().ljust(1_000_001)
    assert executor.submit(length, data).result(timeout=SOON_S) == 1_000_001
    assert credentials.asked > before
    assert outdated.hits == 0


@pytest.mark.parametrize("where", ["client", "worker"])
def test_credentials_that_s3_refuses_are_told_at_once(path, make, where, request):
    proxy, verb = (path.to_s3, "PUT") if where == "client" else (path.worker_to_s3, "GET")
    rule = proxy.add(answered(EXPIRED_TOKEN), on(verb, "/blobs/"), times=None)
    data = request.node.name.encode().ljust(1_000_000)
    error = make().submit(length, data).exception(timeout=SOON_S)
    assert type(error) is StorageError
    assert "ExpiredToken" in str(error)
    assert rule.hits <= 2  # the argument and the user's modules, neither of them again


@pytest.mark.parametrize("answer", [ACCESS_DENIED, EXPIRED_TOKEN], ids=["AccessDenied", "ExpiredToken"])
def test_a_bucket_that_may_not_be_listed_is_told_at_once(path, make, answer):
    rule = path.to_s3.add(answered(answer), on("GET", "list-type=2"), times=None)
    error = make("s3").submit(square, 3).exception(timeout=SOON_S)
    assert type(error) is StorageError
    assert "LIST s3://" in str(error)
    assert rule.hits == 1
