"""S3 is away: for a while, which is waited out, or for longer than the budget, which is a typed error in time."""

import time
from concurrent.futures import wait
from dataclasses import replace

import pytest

from wren_backends import StorageError

from .answers import SLOW_DOWN
from .calls import large, length, square
from .proxy import Proxy, answered, on

SOON_S = 60.0
BUDGET_S = 1.0
LARGE_BYTES = 5_000_000
SPELL = 7
"""More refusals in a row than a few quick repetitions get over."""


@pytest.mark.parametrize("what", ["upload", "poll", "download"])
def test_the_client_waits_out_a_spell_without_s3(path, make, what):
    match = {"upload": on("PUT", "/blobs/"), "poll": on("GET", "list-type=2"), "download": on("GET", "/outcomes/")}
    rule = path.to_s3.add(answered(SLOW_DOWN), match[what], times=SPELL)
    data = b"outage" + bytes(1_000_000)
    assert make("s3").submit(length, data).result(timeout=SOON_S) == len(data)
    assert rule.hits == SPELL


def test_the_worker_waits_out_a_spell_without_s3(path, make):
    rule = path.worker_to_s3.add(answered(SLOW_DOWN), on("PUT", "/outcomes/"), times=SPELL)
    assert make("s3").submit(square, 5).result(timeout=SOON_S) == 25
    assert rule.hits == SPELL


@pytest.mark.parametrize("what", ["upload", "download", "poll"])
def test_the_client_gives_up_when_its_budget_is_spent(path, make, what):
    match = {"upload": on("PUT", "/blobs/"), "poll": on("GET", "list-type=2"), "download": on("GET", "/data/")}
    rule = path.to_s3.add(answered(SLOW_DOWN), match[what], times=None)
    executor = make("s3" if what == "poll" else "direct", retry_budget_s=BUDGET_S)
    data = b"for good" + bytes(1_000_000)
    future = executor.submit(length, data) if what == "upload" else executor.submit(large, LARGE_BYTES)
    begun = time.monotonic()
    error = future.exception(timeout=SOON_S)
    assert type(error) is StorageError
    assert "call 0 (faults.calls." in str(error)
    assert "SlowDown" in str(error)
    # What a spent budget costs at most: the tries that were under way, and the wait before the last of them.
    assert time.monotonic() - begun < 20 * BUDGET_S
    assert rule.hits < 100


def test_the_executor_goes_on_after_an_outage(path, make):
    """What could not be uploaded is uploaded with the next call that carries it."""
    path.to_s3.add(answered(SLOW_DOWN), on("PUT", "/blobs/"), times=None)
    executor = make(retry_budget_s=BUDGET_S)
    data = b"goes on" + bytes(1_000_000)
    assert type(executor.submit(length, data).exception(timeout=SOON_S)) is StorageError
    path.to_s3.clear()
    assert executor.submit(length, data).result(timeout=SOON_S) == len(data)


def test_s3_refuses_connections(path, make, mode):
    with Proxy(path.to_s3.url, listening=False) as away:
        executor = make(mode, connection=replace(path.connection, s3_url=away.url), retry_budget_s=BUDGET_S)
        error = executor.submit(length, bytes(1_000_000)).exception(timeout=SOON_S)
    assert type(error) is StorageError
    assert "call 0 (faults.calls.length)" in str(error)


def test_s3_has_a_host_name_that_does_not_exist(path, make, mode):
    nowhere = replace(path.connection, s3_url="http://s3.nowhere.invalid")
    error = make(mode, connection=nowhere, retry_budget_s=BUDGET_S).submit(length, bytes(10**6)).exception(SOON_S)
    assert type(error) is StorageError
    assert "s3.nowhere.invalid" in str(error)


def test_the_worker_gives_up_in_time(path, make):
    """All of it at once, because the worker tries for as long as it is worth its bill."""
    path.worker_to_s3.add(answered(SLOW_DOWN), on("GET", "/blobs/"), times=None)
    futures = []
    for mode in ("direct", "s3"):
        brief = {"max_attempts": 1, "retry_budget_s": 1.0}
        fetching, committing = make(mode, **brief), make(mode, commit_after_s=0.0, **brief)
        path.worker_to_s3.add(answered(SLOW_DOWN), on("PUT", f"/{committing.job_id}/outcomes/"), times=None)
        futures.append(fetching.submit(length, f"worker {mode}".encode() + bytes(1_000_000)))
        futures.append(committing.submit(pow, 5, 2))
    assert not wait(futures, timeout=SOON_S).not_done
    fetched, replied, fetched_too, committed = [future.exception() for future in futures]
    assert replied is None  # in `direct` the reply has what could not be committed
    assert [type(error) for error in (fetched, fetched_too, committed)] == [StorageError] * 3
    assert all("use S3" in str(error) for error in (fetched, fetched_too))
    assert "no worker could use S3 for" in str(committed)


def test_a_call_whose_worker_found_no_s3_is_sent_again(path, make):
    """S3 is away for longer than the worker tries, and for less than the client's budget."""
    executor = make("direct")
    path.worker_to_s3.add(answered(SLOW_DOWN), on("GET", "/blobs/"), times=30)
    data = executor.job_id.encode().ljust(1_000_000)
    assert executor.submit(length, data).result(timeout=100) == len(data)
