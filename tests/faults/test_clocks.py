"""Clocks that differ by as much as signatures allow."""

from datetime import datetime, timedelta

import pytest

from wren_backends import EnvironmentLostError, watcher

from .calls import dies

SOON_S = 30.0


@pytest.mark.parametrize("minutes", [-4, 4])
def test_a_death_is_heard_of_though_our_clock_is_wrong(make, monkeypatch, minutes):
    class Wrong(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(minutes=minutes)

    monkeypatch.setattr(watcher, "datetime", Wrong)
    error = make("s3", max_attempts=1).submit(dies).exception(timeout=SOON_S)
    assert type(error) is EnvironmentLostError
