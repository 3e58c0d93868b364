"""Deaths of environments and the limits of the function: where the code was, what is saved, what is tried again."""

import ctypes
import os
import re
import signal
import threading
import time

import pytest
from signals import Gate, mark, marks, wait_for

from wren_backends import (
    EnvironmentLostError,
    InvocationTimeoutError,
    OutOfMemoryError,
    WrenExecutor,
    not_repeatable,
)

MODES = pytest.mark.parametrize("mode", ["direct", "s3"])


def error_of(future):
    return future.exception(timeout=60)


def fill_memory(megabytes):
    held = []
    for _ in range(megabytes // 20):
        held.append(b"x" * (20 << 20))
        time.sleep(0.02)  # the local cloud looks at memory every 50 ms
    return len(held)


# ---- the time limit


def turn_for_ever():
    while True:
        time.sleep(0.01)


def outer_function():
    return turn_for_ever()


@MODES
def test_a_call_that_is_stopped_says_where_it_was(cloud, mode):
    with WrenExecutor(2, mode=mode, timeout_s=2) as executor:
        error = error_of(executor.submit(outer_function))
        assert type(error) is InvocationTimeoutError
        assert "call 0" in str(error)
        assert "time limit of 2 s" in str(error)
        assert re.search(r'File ".*test_limits.py", line \d+, in turn_for_ever', str(error))
        assert "in outer_function" in str(error)
        assert "lambda_worker" not in str(error)
        assert executor.submit(abs, -1).result() == 1


@MODES
def test_code_that_never_lets_go_of_the_interpreter_ends_at_lambdas_own_limit(cloud, mode):
    def backtrack():
        re.match("(a+)+$", "a" * 40 + "b")

    with WrenExecutor(2, mode=mode, timeout_s=2) as executor:
        error = error_of(executor.submit(backtrack))
        assert type(error) is InvocationTimeoutError
        assert "still running at the function's time limit of 2 s" in str(error)


def quick_or_endless(number, hold):
    if number == hold:
        turn_for_ever()
    return number


@MODES
def test_what_travels_with_a_call_that_is_stopped_is_not_lost(cloud, mode):
    with WrenExecutor(1, mode=mode, timeout_s=2) as executor:
        assert list(executor.map(quick_or_endless, range(100), [-1] * 100)) == list(range(100))
        futures = [executor.submit(quick_or_endless, number, 7) for number in range(20)]
        assert type(error_of(futures[7])) is InvocationTimeoutError
        assert [futures[number].result() for number in range(20) if number != 7] == [*range(7), *range(8, 20)]


def endless_at_first(path):
    mark(path)
    if marks(path) < 2:
        turn_for_ever()
    return marks(path)


@MODES
def test_time_outs_are_tried_again_only_if_asked(cloud, tmp_path, mode):
    with WrenExecutor(2, mode=mode, timeout_s=2) as executor:
        assert type(error_of(executor.submit(endless_at_first, str(tmp_path / "once")))) is InvocationTimeoutError
    assert marks(tmp_path / "once") == 1
    with WrenExecutor(2, mode=mode, timeout_s=2, retry_exhausted=True) as executor:
        assert executor.submit(endless_at_first, str(tmp_path / "twice")).result() == 2


# ---- memory


@MODES
def test_out_of_memory_names_limit_and_peak(cloud, mode):
    with WrenExecutor(2, mode=mode, memory_mb=256) as executor:
        error = error_of(executor.submit(fill_memory, 2000))
        assert type(error) is OutOfMemoryError
        assert "256 MB" in str(error)
        peak = int(re.search(r"killed, at (\d+) MB", str(error))[1])
        assert 256 <= peak < 2000
        assert "WREN_RETRY_MEMORY_MB" in str(error)
        assert f"`wren logs --job {executor.job_id}` has" in str(error)


@MODES
def test_a_call_that_ran_out_of_memory_gets_more_if_asked(cloud, mode):
    with WrenExecutor(2, mode=mode, memory_mb=256, retry_memory_mb=1024) as executor:
        assert executor.submit(fill_memory, 400).result() == 20
        assert executor.journal.counts["call.enlarged"] == 1
        assert executor.submit(fill_memory, 20).result() == 1
        assert executor.journal.counts["call.enlarged"] == 1
        error = error_of(executor.submit(fill_memory, 4000))
        assert type(error) is OutOfMemoryError
        assert "1024 MB" in str(error)


# ---- death


def kill_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def crash():
    ctypes.string_at(0)


def leave():
    os._exit(3)


def die_at_first(path, death):
    mark(path)
    if marks(path) < 2:
        death()
    return marks(path)


DEATHS = pytest.mark.parametrize("death", [kill_itself, crash, leave])


@MODES
@DEATHS
def test_a_call_whose_environment_dies_is_run_again(cloud, tmp_path, mode, death):
    with WrenExecutor(2, mode=mode) as executor:
        assert executor.submit(die_at_first, str(tmp_path / "ran"), death).result() == 2


@MODES
def test_an_environment_that_was_killed_between_two_calls_is_replaced(cloud, mode):
    with WrenExecutor(1, mode=mode) as executor:
        for _ in range(3):
            os.kill(executor.submit(os.getpid).result(), signal.SIGKILL)
        assert executor.submit(abs, -1).result() == 1


@MODES
@DEATHS
def test_a_call_that_always_dies_ends_in_an_error(cloud, tmp_path, mode, death):
    with WrenExecutor(2, mode=mode, max_attempts=2) as executor:
        error = error_of(executor.submit(death))
        assert type(error) is EnvironmentLostError
        assert "attempt 2 of 2" in str(error)
        assert executor.submit(abs, -1).result() == 1


@MODES
def test_a_value_that_was_committed_is_not_lost_with_its_environment(cloud, tmp_path, mode):
    """The environment dies after the commit and before the response."""

    class DiesLater:
        def __init__(self, path):
            self.path = path

        def __call__(self):
            mark(self.path)
            if marks(self.path) == 1:
                from awslambdaric.lambda_runtime_client import LambdaRuntimeClient

                assert callable(LambdaRuntimeClient.post_invocation_result)
                LambdaRuntimeClient.post_invocation_result = lambda *_, **__: os._exit(5)
            return os.getpid()

    with WrenExecutor(2, mode=mode, commit_after_s=0) as executor:
        assert isinstance(executor.submit(DiesLater(str(tmp_path / "ran"))).result(), int)
        assert marks(tmp_path / "ran") == 1
        assert executor.submit(abs, -1).result() == 1


# ---- calls that must not run twice


@MODES
def test_calls_that_are_not_repeatable_run_once(cloud, tmp_path, mode):
    @not_repeatable
    def dies(path):
        mark(path)
        os._exit(1)

    with WrenExecutor(2, mode=mode) as executor:
        error = error_of(executor.submit(dies, str(tmp_path / "ran")))
        assert type(error) is EnvironmentLostError
        assert marks(tmp_path / "ran") == 1


def test_not_repeatable_with_joblib(cloud, tmp_path):
    import joblib

    @not_repeatable
    def dies(path):
        mark(path)
        os._exit(1)

    with joblib.parallel_config(backend="wren", n_jobs=2), pytest.raises(EnvironmentLostError):
        joblib.Parallel()(joblib.delayed(dies)(str(tmp_path / "ran")) for _ in range(1))
    assert marks(tmp_path / "ran") == 1


def test_calls_that_are_not_repeatable_travel_alone(cloud):
    function = not_repeatable(lambda number: number)
    with WrenExecutor(1) as executor:
        assert list(executor.map(function, range(30))) == list(range(30))
        assert executor.journal.counts["invocation.started"] == 30


# ---- backup attempts


def hold_one(number, straggler, folder):
    gate = Gate(folder)
    if number == straggler and not os.path.exists(gate.entered):
        gate.hold()
    return number


@MODES
def test_a_straggler_gets_a_backup_attempt(cloud, gate, tmp_path, mode):
    heard = []
    with WrenExecutor(2, mode=mode, backup_after_s=0.2, calls_per_invocation=1, on_event=heard.append) as executor:
        done = []
        futures = [executor.submit(hold_one, number, 19, str(tmp_path)) for number in range(20)]
        for future in futures:
            future.add_done_callback(done.append)
        assert [future.result(timeout=60) for future in futures] == list(range(20))  # the gate is still closed
        names = [one.name for one in heard]
        assert names.count("backup.started") == 1
        assert names.count("backup.won") == (mode == "direct")  # in `s3` both wait for the one object
        gate.open()
    assert len(done) == 20
    assert len(set(done)) == 20


def test_more_stragglers_than_backups_at_once_all_get_theirs(cloud, gate, tmp_path):
    def last_ones_wait_at_first(number):
        mark(path := str(tmp_path / str(number)))
        return gate.hold(number) if number >= 40 and marks(path) == 1 else number

    with WrenExecutor(8, backup_after_s=0.5, calls_per_invocation=1) as executor:
        futures = [executor.submit(last_ones_wait_at_first, number) for number in range(46)]
        assert [future.result(timeout=60) for future in futures] == list(range(46))  # the gate is still closed
        gate.open()


@pytest.mark.parametrize("how", ["setting", "mark"])
def test_no_backup_where_none_is_wanted(cloud, gate, tmp_path, how):
    function = not_repeatable(hold_one) if how == "mark" else hold_one
    try:
        with WrenExecutor(2, backup_after_s=0.05, calls_per_invocation=1, backups=how == "mark") as executor:
            futures = [executor.submit(function, number, 0, str(tmp_path)) for number in range(40)]
            gate.wait_entered()
            wait_for(lambda: all(future.done() for future in futures[1:]))
            assert not futures[0].done()
            gate.open()
            assert futures[0].result() == 0
            assert executor.journal.counts.get("backup.started", 0) == 0
    finally:
        vars(hold_one).pop("__wren_repeatable__", None)


def test_a_backup_that_fails_leaves_the_first_attempt_alone(cloud, gate, tmp_path):
    path = str(tmp_path / "ran")

    def first_waits_second_dies(number):
        if number < 19:
            return number
        mark(path)
        if marks(path) > 1:
            os._exit(1)
        return gate.hold(number)

    heard = []
    with WrenExecutor(2, backup_after_s=0.2, calls_per_invocation=1, on_event=heard.append) as executor:
        futures = [executor.submit(first_waits_second_dies, number) for number in range(20)]
        wait_for(lambda: any(one.name == "attempt.dropped" for one in heard))
        gate.open()
        assert [future.result() for future in futures] == list(range(20))
    assert marks(path) == 2


@pytest.mark.parametrize("refused", ["wren-dispatcher", "wren-resolver"])
def test_a_thread_that_cannot_be_started_leaves_none_behind(cloud, monkeypatch, refused):
    start = threading.Thread.start

    def start_or_not(thread):
        if thread.name.startswith(refused):
            raise RuntimeError("can't start new thread")
        start(thread)

    before = set(threading.enumerate())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_or_not)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            WrenExecutor(1)
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("wren-")]
    with WrenExecutor(1) as executor:
        assert executor.submit(abs, -1).result() == 1
