"""Temporary credentials are renewed beside the event loop, once for all who wait."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest
from botocore.credentials import Credentials, RefreshableCredentials

from wren_backends.renewal import Renewal

HOUR = timedelta(hours=1)


class Issuer:
    """Issues credentials that live for an hour from `now` on, as soon as it may."""

    def __init__(self, lives=HOUR):
        self.now = datetime.now(UTC)
        self.lives = lives
        self.asked = 0
        self.may_answer = threading.Event()

    def issue(self):
        self.asked += 1
        assert self.may_answer.wait(20)
        if self.lives is None:
            raise OSError("the issuer is away")
        return {
            "access_key": f"key {self.asked}",
            "secret_key": "secret",
            "token": "token",
            "expiry_time": (self.now + self.lives).isoformat(),
        }

    def credentials(self, expires_in):
        return RefreshableCredentials(
            "key 0",
            "secret",
            "token",
            self.now + expires_in,
            refresh_using=self.issue,
            method="test",
            time_fetcher=lambda: self.now,
        )


def current(renewal, times=1):
    async def main():
        return await asyncio.wait_for(asyncio.gather(*(renewal.current() for _ in range(times))), 20)

    return [one.access_key for one in asyncio.run(main())]


def test_credentials_for_good():
    assert current(Renewal(lambda: Credentials("key", "secret"))) == ["key"]


def test_those_that_are_good_for_long_are_not_renewed():
    issuer = Issuer()
    credentials = issuer.credentials(expires_in=HOUR)
    assert current(Renewal(lambda: credentials)) == ["key 0"]
    assert issuer.asked == 0


def test_the_event_loop_goes_on_while_all_wait_for_one_renewal():
    issuer = Issuer()
    credentials = issuer.credentials(expires_in=timedelta(minutes=1))

    async def main():
        renewal = Renewal(lambda: credentials)
        waiting = asyncio.gather(*(renewal.current() for _ in range(50)))
        asyncio.get_running_loop().call_later(0.01, issuer.may_answer.set)  # would never run on a loop that is held up
        return await asyncio.wait_for(waiting, 20)

    assert {one.access_key for one in asyncio.run(main())} == {"key 1"}
    assert issuer.asked == 1


def test_an_issuer_that_is_away_matters_only_at_the_end():
    issuer = Issuer(lives=None)
    issuer.may_answer.set()
    early = issuer.credentials(expires_in=timedelta(minutes=14))
    assert current(Renewal(lambda: early), times=100) == ["key 0"] * 100
    assert issuer.asked == 1
    late = issuer.credentials(expires_in=timedelta(minutes=1))
    with pytest.raises(OSError, match="the issuer is away"):
        current(Renewal(lambda: late))
