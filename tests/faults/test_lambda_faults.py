"""Lambda fails, is away, or loses what it had to say: calls end in their values, or in a typed error in time."""

import time
from dataclasses import replace

import pytest
from signals import marks

from wren_backends import DeploymentError, InvocationError

from .answers import PENDING, SERVICE_ERROR, UNAVAILABLE
from .calls import counted, dies_at_first, square
from .proxy import Proxy, answered, invokes, lost, reset, slow, truncated

SOON_S = 20.0


def callbacks_of(future):
    fired = []
    future.add_done_callback(fired.append)
    return fired


@pytest.mark.parametrize("answer", [SERVICE_ERROR, UNAVAILABLE, PENDING], ids=["500", "503", "409"])
def test_a_refusal_that_passes(path, make, mode, answer):
    rule = path.to_lambda.add(answered(answer), invokes, times=3)
    executor = make(mode)
    assert list(executor.map(square, range(10), timeout=SOON_S)) == [n * n for n in range(10)]
    assert rule.hits == 3
    assert executor.journal.counts["invocation.refused"] == 3
    assert executor.journal.counts["call.finished"] == 10


def test_a_service_that_never_recovers(path, make, mode):
    rule = path.to_lambda.add(answered(UNAVAILABLE), invokes, times=None)
    executor = make(mode, retry_budget_s=1.0)
    begun = time.monotonic()
    error = executor.submit(square, 1).exception(timeout=SOON_S)
    assert type(error) is InvocationError
    assert "call 0 (faults.calls.square)" in str(error)
    assert "ServiceUnavailableException" in str(error)
    assert time.monotonic() - begun < SOON_S
    assert rule.hits < 30


def test_the_budget_counts_refusals_in_a_row_only(path, make, tmp_path):
    """A budget of nothing allows one refusal at a time: what lies between two that are not in a row starts it anew."""
    path.to_lambda.add(answered(UNAVAILABLE), invokes)  # refused, then taken in: the environment dies
    path.to_lambda.add(answered(UNAVAILABLE), invokes, skip=1)  # refused once more, then it runs
    executor = make(retry_budget_s=0)
    assert executor.submit(dies_at_first, str(tmp_path / "tried"), "second").result(timeout=SOON_S) == "second"
    assert executor.journal.counts["invocation.refused"] == 2


def test_a_service_that_comes_up_late(path, make, mode):
    with Proxy(path.to_lambda.url, listening=False) as away:
        executor = make(mode, connection=replace(path.connection, lambda_url=away.url))
        refused = []
        with executor.journal.listening(lambda one: refused.append(one) if one.name == "invocation.refused" else None):
            future = executor.submit(square, 3)
            while len(refused) < 2:
                assert not future.done()
                time.sleep(0.01)
        away.listen()
        assert future.result(timeout=SOON_S) == 9
        assert {one.fields["kind"] for one in refused} == {"unsent"}


def test_connections_refused_for_the_whole_budget(path, make, mode):
    with Proxy(path.to_lambda.url, listening=False) as away:
        executor = make(mode, connection=replace(path.connection, lambda_url=away.url), retry_budget_s=0.5)
        error = executor.submit(square, 3).exception(timeout=SOON_S)
    assert type(error) is InvocationError
    assert "Check network and region" in str(error)


def test_a_host_name_that_does_not_exist(path, make, mode):
    nowhere = replace(path.connection, lambda_url="http://lambda.nowhere.invalid")
    error = make(mode, connection=nowhere, retry_budget_s=0.5).submit(square, 3).exception(timeout=SOON_S)
    assert type(error) is InvocationError
    assert "lambda.nowhere.invalid" in str(error)


@pytest.mark.parametrize("fault", [reset, lost, truncated])
def test_a_connection_that_breaks(path, make, mode, tmp_path, fault):
    rule = path.to_lambda.add(fault, invokes)
    executor = make(mode)
    tried = str(tmp_path / "tried")
    future = executor.submit(counted, tried, "value")
    fired = callbacks_of(future)
    assert future.result(timeout=SOON_S) == "value"
    executor.shutdown()
    assert fired == [future]
    assert rule.hits == 1
    if fault is reset:
        assert marks(tried) == 1  # the service never had the first one
    elif mode == "direct":
        assert marks(tried) == 2  # it was short, so that running it again is the quickest


@pytest.mark.parametrize("fault", [reset, lost, truncated])
def test_connections_that_always_break(path, make, fault, tmp_path):
    rule = path.to_lambda.add(fault, invokes, times=None)
    executor = make(max_attempts=3)
    error = executor.submit(counted, str(tmp_path / "tried"), 1).exception(timeout=SOON_S)
    assert type(error) is InvocationError
    assert "call 0 (faults.calls.counted): the connection to Lambda broke" in str(error)
    assert "attempt 3" in str(error)
    assert rule.hits == 3


def test_a_slow_answer(path, make, mode):
    path.to_lambda.add(slow(pieces=20, pause_s=0.02), invokes)
    assert make(mode).submit(square, 4).result(timeout=SOON_S) == 16


def test_a_long_call_whose_response_is_lost_runs_once(path, make, tmp_path):
    """It was committed before it answered, so that it is looked for before it is sent again."""
    rule = path.to_lambda.add(lost, invokes)
    tried = str(tmp_path / "tried")
    executor = make(commit_after_s=0.0)
    assert executor.submit(counted, tried, "value").result(timeout=SOON_S) == "value"
    assert rule.hits == 1
    assert marks(tried) == 1
    assert path.to_lambda.count("POST", "/invocations") == 1


def test_a_function_that_is_gone(path, make, mode):
    gone = replace(path.connection, function="wren-gone")
    error = make(mode, connection=gone).submit(square, 3).exception(timeout=SOON_S)
    assert type(error) is DeploymentError
    assert "wren deploy_lambda" in str(error)
