"""Two attempts at the same call, and an event that Lambda delivers twice: one outcome stands, and is told once."""

import obstore
from signals import marks, wait_for

from lambda_worker import codec
from lambda_worker.objects import ObjectStore
from lambda_worker.protocol import outcome_key
from wren_backends import InvocationError

from .calls import counted, first_run_dies, first_run_held, named_run
from .proxy import Cut, doubled, invokes, lost

SOON_S = 30.0


def callbacks_of(future):
    fired = []
    future.add_done_callback(fired.append)
    return fired


def commits(path, executor):
    return path.worker_to_s3.count("PUT", f"/{executor.job_id}/outcomes/")


def standing_value(executor):
    """What lies in the bucket as the outcome of the first call."""
    connection = executor.connection
    store = ObjectStore.open_s3(
        connection.bucket,
        connection.prefix,
        region=connection.region,
        endpoint_url=connection.s3_url,
        **connection.s3_credentials,
    )
    sealed = obstore.get(store._store, outcome_key(executor.job_id, 0)).bytes()
    frame = codec.unseal(sealed, codec.job_key(connection.function_key, executor.job_id), executor.job_id)
    return codec.loads(list(frame.outcomes[0].payload))


def check_told_once(executor, future, fired):
    executor.shutdown()
    assert fired == [future]
    assert executor.journal.counts["call.finished"] == 1
    assert "call.failed" not in executor.journal.counts


def test_an_event_that_is_delivered_twice(path, make, mode, gate):
    """Both run at once and their values differ, so that it shows which one is told."""
    path.to_lambda.add(doubled, invokes)
    executor = make(mode, commit_after_s=0.0)
    future = executor.submit(named_run, gate)
    fired = callbacks_of(future)
    gate.wait_entered(2)
    gate.open()
    told = future.result(timeout=SOON_S)
    check_told_once(executor, future, fired)
    wait_for(lambda: commits(path, executor) >= 2)
    assert told == standing_value(executor)


def test_an_event_that_is_delivered_twice_and_kills_one_environment(path, make, mode, tmp_path):
    path.to_lambda.add(doubled, invokes)
    executor = make(mode)
    future = executor.submit(first_run_dies, str(tmp_path / "first"))
    fired = callbacks_of(future)
    assert future.result(timeout=SOON_S) == "value"
    check_told_once(executor, future, fired)


def test_a_retry_while_the_first_attempt_still_runs(path, make, gate):
    cut = Cut()
    path.to_lambda.add(cut, invokes)
    executor = make("direct")
    future = executor.submit(named_run, gate)
    fired = callbacks_of(future)
    gate.wait_entered(1)
    cut.now()
    gate.wait_entered(2)
    gate.open()
    told = future.result(timeout=SOON_S)
    check_told_once(executor, future, fired)
    assert told == standing_value(executor)  # a second attempt is always committed


def test_an_event_that_is_sent_again_while_the_first_one_still_runs(path, make, gate):
    path.to_lambda.add(lost, invokes)
    executor = make("s3")
    future = executor.submit(named_run, gate)
    fired = callbacks_of(future)
    gate.wait_entered(2)
    gate.open()
    told = future.result(timeout=SOON_S)
    check_told_once(executor, future, fired)
    wait_for(lambda: commits(path, executor) >= 2)
    assert told == standing_value(executor)


def test_a_first_attempt_that_ends_long_after_the_second(path, make, gate, tmp_path):
    path.to_lambda.add(lost, invokes)
    executor = make("s3")
    future = executor.submit(first_run_held, str(tmp_path / "first"), gate)
    fired = callbacks_of(future)
    told = future.result(timeout=SOON_S)
    gate.open()
    wait_for(lambda: commits(path, executor) >= 2)
    check_told_once(executor, future, fired)
    assert told == standing_value(executor)


def test_a_long_call_that_may_not_run_twice_is_waited_for(path, make, gate):
    """Its connection breaks in the middle, but it commits before it answers."""
    cut = Cut()
    path.to_lambda.add(cut, invokes)
    executor = make("direct", commit_after_s=0.0, max_attempts=1)
    future = executor.submit(named_run, gate)
    fired = callbacks_of(future)
    gate.wait_entered(1)
    cut.now()
    wait_for(lambda: executor.journal.counts.get("job.polled"))
    gate.open()
    assert future.result(timeout=SOON_S) == standing_value(executor)
    check_told_once(executor, future, fired)
    assert marks(gate.entered) == 1
    assert path.to_lambda.count("POST", "/invocations") == 1


def test_a_short_call_that_may_not_run_twice_is_given_up(path, make, tmp_path):
    path.to_lambda.add(lost, invokes)
    tried = str(tmp_path / "tried")
    error = make("direct", max_attempts=1).submit(counted, tried, 1).exception(timeout=SOON_S)
    assert type(error) is InvocationError
    assert "It may have run" in str(error)
    assert marks(tried) == 1


def test_a_committed_outcome_is_not_computed_again(path, make, tmp_path):
    path.to_lambda.add(lost, invokes)
    tried = str(tmp_path / "tried")
    executor = make("direct", commit_after_s=0.0)
    future = executor.submit(counted, tried, "value")
    fired = callbacks_of(future)
    assert future.result(timeout=SOON_S) == "value"
    check_told_once(executor, future, fired)
    assert marks(tried) == 1
