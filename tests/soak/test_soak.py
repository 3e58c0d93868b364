"""The soak of `make soak`, made short."""

import pytest

from .soak import FAULTS, run

CALLS = 400


@pytest.mark.parametrize("mode", ["direct", "s3"])
def test_every_call_ends_once_in_its_own_value(cloud, mode):
    report = run(mode, CALLS)
    assert (report.wrong, report.missing, report.twice) == (0, 0, 0)
    assert set(report.injected) == {name for name, _, _ in FAULTS} | {"environment killed"}
    assert report.injected["environment killed"] == CALLS // 100
    assert sum(report.injected.values()) > CALLS // 100
