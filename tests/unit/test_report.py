"""What a report counts, on a real piece of work, and how it is priced."""

import os

import pytest

import wren_backends
from wren_backends import Report, WrenExecutor, connection


def test_a_report_counts_what_happened_in_its_context(cloud, monkeypatch):
    monkeypatch.setattr(connection, "_known", {})  # the newest connection's memory counts: no other test's
    with WrenExecutor(2) as executor:
        executor.submit(abs, -1).result()
        with wren_backends.measure() as report:
            assert list(executor.map(abs, range(-3, 0))) == [3, 2, 1]
            executor.submit(len, os.urandom(1_000_000)).result()
    assert report.calls == 4
    assert 1 <= report.invocations <= 4
    assert report.s3_requests == {"PUT": 1, "GET": 1}
    assert report.wall_s > 0
    assert report.billed_s > 0
    assert report.memory_mb == 1769
    assert "S3 requests" in str(report)


def test_prices():
    report = Report(
        invocations=1_000_000, billed_s=1000, memory_mb=1024, s3_requests={"PUT": 1000, "GET": 1000, "DELETE": 9}
    )
    assert report.aws_usd == pytest.approx(0.20 + 1000 * 0.0000166667 + 0.005 + 0.0004)
