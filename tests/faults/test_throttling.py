"""429 from Lambda: everything waits and nothing is lost; an end only if nothing at all gets through."""

import contextlib
import queue

import pytest

from wren_backends import ThrottledError

from .answers import THROTTLED
from .calls import square
from .proxy import answered, invokes

SOON_S = 20.0


def test_a_spell_of_429_is_waited_out(path, make, mode):
    rule = path.to_lambda.add(answered(THROTTLED), invokes, times=6)
    executor = make(mode, max_workers=4)
    assert list(executor.map(square, range(20), timeout=SOON_S)) == [n * n for n in range(20)]
    counts = executor.journal.counts
    assert rule.hits == 6
    assert counts["call.finished"] == 20
    assert counts["window.shrunk"] >= 1
    # Refusals that arrive together are one round: each has one wait, not one for each.
    assert 1 <= counts["invocation.refused"] <= 6


def test_nothing_gets_through_for_the_whole_budget(path, make, mode):
    rule = path.to_lambda.add(answered(THROTTLED), invokes, times=None)
    executor = make(mode, max_workers=4, retry_budget_s=0.5)
    futures = [executor.submit(square, n) for n in range(6)]
    errors = [future.exception(timeout=SOON_S) for future in futures]
    assert {type(error) for error in errors} == {ThrottledError}
    assert "call 0 (faults.calls.square)" in str(errors[0])
    assert "Lower max_workers" in str(errors[0])
    assert rule.hits < 60  # each wait is twice as long as the one before, all calls wait together


def test_what_comes_after_a_throttled_error_has_a_budget_of_its_own(path, make):
    path.to_lambda.add(answered(THROTTLED), invokes, times=None)
    executor = make(retry_budget_s=0.2)
    afterwards = queue.Queue()

    def once_more(_):  # at once: the engine may still be ending the call before
        path.to_lambda.clear()
        path.to_lambda.add(answered(THROTTLED), invokes, times=1)
        afterwards.put(executor.submit(square, 3))

    refused = executor.submit(square, 2)
    refused.add_done_callback(once_more)
    assert type(refused.exception(timeout=SOON_S)) is ThrottledError
    assert afterwards.get(timeout=SOON_S).result(timeout=SOON_S) == 9


@pytest.fixture
def concurrency(path):
    """A real limit on how many environments of the function run at once."""
    with contextlib.ExitStack() as stack:

        def limit(most):
            path.client.put_function_concurrency(FunctionName=path.function, ReservedConcurrentExecutions=most)
            stack.callback(path.client.delete_function_concurrency, FunctionName=path.function)

        yield limit


def test_a_concurrency_limit_far_below_max_workers(path, make, concurrency):
    concurrency(2)
    sizes = []
    executor = make(
        max_workers=32,
        calls_per_invocation=1,
        on_event=lambda one: sizes.append(one.fields["size"]) if one.name == "window.shrunk" else None,
    )
    assert list(executor.map(square, range(200), timeout=60)) == [n * n for n in range(200)]
    assert sizes[0] <= 22  # 0.7 of 32
    assert min(sizes) <= 2
    # It can only shrink to the same size again because it has grown meanwhile, success by success.
    assert len(sizes) > sizes.index(min(sizes)) + 1
    refused = path.to_lambda.count("POST", "/invocations") - 200
    assert len(sizes) <= refused < 400


def test_the_queue_of_events_waits_for_concurrency_by_itself(path, make, concurrency):
    concurrency(2)
    executor = make("s3", max_workers=32, calls_per_invocation=1)
    assert list(executor.map(square, range(100), timeout=60)) == [n * n for n in range(100)]
    assert path.to_lambda.count("POST", "/invocations") == 100
    assert executor.journal.counts["call.finished"] == 100
