"""Mode `s3` differs from `direct` in the way only: the same values, errors and ends come back through the bucket."""

import os
import time

import numpy as np
import pytest
from signals import mark, marks

from lambda_worker.protocol import FRAME_BUDGET_BYTES, outcome_folder
from wren_backends import EnvironmentLostError, InvocationTimeoutError, WrenExecutor

SOON_S = 20.0


@pytest.fixture
def s3_executor(cloud):
    with WrenExecutor(2, mode="s3") as executor:
        yield executor


def boom():
    raise KeyError("boom")


def die(path):
    mark(path)
    os._exit(3)


def committed_bytes(executor):
    """How many bytes of outcomes of this job lie in the bucket."""
    import obstore

    store = executor._dispatcher._engine._store._store
    return sum(one["size"] for page in obstore.list(store, outcome_folder(executor.job_id)) for one in page)


def test_values_come_through_the_bucket(s3_executor):
    assert [s3_executor.submit(pow, n, 2).result() for n in range(3)] == [0, 1, 4]
    assert committed_bytes(s3_executor) > 0
    assert s3_executor.journal.counts["job.polled"] >= 1


def test_small_values_of_direct_calls_never_touch_the_bucket(executor):
    assert executor.submit(pow, 3, 2).result() == 9
    assert committed_bytes(executor) == 0
    counts = executor.journal.counts
    assert not any(name.startswith("s3.worker") for name in counts)
    assert "job.polled" not in counts


def test_a_slow_direct_call_is_committed_too(cloud):
    with WrenExecutor(2, commit_after_s=0) as executor:
        assert executor.submit(pow, 3, 2).result() == 9
        assert committed_bytes(executor) > 0


def test_order_many_calls_and_one_list_per_poll(s3_executor):
    assert list(s3_executor.map(pow, range(300), [2] * 300)) == [n * n for n in range(300)]
    counts = s3_executor.journal.counts
    assert counts["call.finished"] == 300
    assert counts["job.polled"] < 300


def test_errors_come_back_as_themselves(s3_executor):
    error = s3_executor.submit(boom).exception(timeout=SOON_S)
    assert type(error) is KeyError
    assert "in boom" in str(error.__cause__)


@pytest.mark.parametrize("mode", ["direct", "s3"])
def test_values_beyond_every_inline_limit(cloud, mode):
    size = FRAME_BUDGET_BYTES + 1_000_000
    with WrenExecutor(2, mode=mode) as executor:
        again = executor.submit(lambda array: array + 1, np.zeros(size, np.uint8)).result(timeout=SOON_S)
        assert again.nbytes == size
        assert (again == 1).all()


@pytest.mark.parametrize("mode", ["direct", "s3"])
def test_a_result_of_many_parts_just_below_the_limits(cloud, mode):
    """Parts that fit one by one have to fit together as well, Base64 and all."""
    with WrenExecutor(2, mode=mode) as executor:
        parts = executor.submit(lambda: [os.urandom(5000) for _ in range(900)]).result(timeout=SOON_S)
        arrays = executor.submit(lambda: [np.zeros(1000) for _ in range(700)]).result(timeout=SOON_S)
    assert len(parts) == 900
    assert len(arrays) == 700


def test_a_call_that_was_held_for_long_is_still_found(s3_executor, gate):
    future = s3_executor.submit(gate.hold, "found")
    gate.wait_entered()
    assert s3_executor.submit(pow, 2, 2).result(timeout=SOON_S) == 4  # polling goes on for others meanwhile
    gate.open()
    assert future.result(timeout=SOON_S) == "found"


def test_an_environment_that_dies_is_known_by_its_failure_record(cloud, tmp_path):
    tried = str(tmp_path / "tried")
    begun = time.monotonic()
    with WrenExecutor(2, mode="s3", max_attempts=2) as executor:
        future = executor.submit(die, tried)
        assert executor.submit(pow, 2, 2).result(timeout=SOON_S) == 4
        error = future.exception(timeout=SOON_S)
    assert time.monotonic() - begun < 2 * SOON_S
    assert type(error) is EnvironmentLostError
    assert "call 0 (test_modes.die)" in str(error)
    assert "attempt 2 of 2" in str(error)
    assert marks(tried) == 2


def test_the_time_limit_is_known_by_its_failure_record(cloud):
    with WrenExecutor(2, mode="s3", timeout_s=2) as executor:
        error = executor.submit(time.sleep, 600).exception(timeout=SOON_S)
    assert type(error) is InvocationTimeoutError


def test_retries_of_a_call_that_raises(cloud, tmp_path):
    tried = str(tmp_path / "tried")

    def second_time():
        mark(tried)
        if marks(tried) < 2:
            raise ValueError("not yet")
        return "now"

    with WrenExecutor(2, mode="s3", retries=1) as executor:
        assert executor.submit(second_time).result(timeout=SOON_S) == "now"


REFUSED = """
    import wren_backends

    def fails():
        raise ValueError("bad start")

    if __name__ == "__main__":
        with wren_backends.WrenExecutor(1, fails, mode={mode!r}) as executor:
            print(type(executor.submit(pow, 2, 2).exception()).__name__)
"""


@pytest.mark.parametrize("mode", ["direct", "s3"])
def test_a_refusal_of_the_worker_arrives_in_each_mode(run_script, mode):
    """In a process of its own, which can be ended should the refusal never arrive."""
    done = run_script(REFUSED.format(mode=mode), limit_s=SOON_S)
    assert (done.returncode, done.stdout) == (0, "BrokenWrenExecutor\n"), done.stderr


def test_s3_in_a_child_that_was_forked_after_its_use_is_an_error_and_no_endless_wait(run_script):
    done = run_script("""
        import multiprocessing

        from wren_backends import StorageError, WrenExecutor

        def child():
            try:
                with WrenExecutor(1, mode="s3") as executor:
                    executor.submit(abs, -2).result()
            except StorageError as error:
                print(error, flush=True)

        if __name__ == "__main__":
            with WrenExecutor(1, mode="s3") as executor:
                print(executor.submit(abs, -1).result(), flush=True)
            process = multiprocessing.get_context("fork").Process(target=child)
            process.start()
            process.join()
        """)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1\n")
    assert "this process was forked from one that had used S3" in done.stdout
    assert '"spawn"' in done.stdout
