"""What programs rely on in a `concurrent.futures.Executor`: futures, callbacks, shutdown, exit, fork."""

import asyncio
import concurrent.futures
import gc
import logging
import threading
import weakref
from pathlib import Path

import numpy as np
import psutil
import pytest
from signals import mark, marks, wait_for

from wren_backends import BrokenWrenExecutor, SerializationError, WrenExecutor


def our_threads(executor_id):
    return [thread.name for thread in threading.enumerate() if thread.name.endswith(executor_id)]


class OwnError(ValueError):
    """Unlike a built-in exception it can be referred to weakly."""


def boom():
    raise OwnError("boom")


# ---- waiting


def test_futures_are_the_standard_ones(executor):
    assert isinstance(executor.submit(pow, 2, 2), concurrent.futures.Future)
    assert isinstance(executor, concurrent.futures.Executor)
    assert executor._max_workers == 2


def test_wait_for_the_first(executor, gate):
    held, quick = executor.submit(gate.hold), executor.submit(pow, 2, 2)
    done, waiting = concurrent.futures.wait([held, quick], return_when="FIRST_COMPLETED")
    assert (done, waiting) == ({quick}, {held})
    gate.open()
    done, waiting = concurrent.futures.wait([held, quick])
    assert (done, waiting) == ({held, quick}, set())


def test_wait_for_the_first_exception(executor, gate):
    held, bad = executor.submit(gate.hold), executor.submit(boom)
    done, waiting = concurrent.futures.wait([held, bad], return_when="FIRST_EXCEPTION")
    assert (done, waiting) == ({bad}, {held})
    gate.open()


def test_as_completed(executor, gate):
    held, quick = executor.submit(gate.hold, "held"), executor.submit(pow, 2, 2)
    order = []
    for future in concurrent.futures.as_completed([held, quick]):
        order.append(future.result())
        gate.open()
    assert order == [4, "held"]


def test_result_with_a_timeout(executor, gate):
    future = executor.submit(gate.hold)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(timeout=0.05)
    gate.open()
    assert future.result(timeout=60) is None


def test_asyncio(executor):
    async def main():
        loop = asyncio.get_running_loop()
        return await asyncio.gather(
            asyncio.wrap_future(executor.submit(pow, 2, 3)),
            loop.run_in_executor(executor, pow, 3, 2),
            asyncio.wrap_future(executor.submit(boom)),
            return_exceptions=True,
        )

    eight, nine, error = asyncio.run(main())
    assert (eight, nine) == (8, 9)
    assert isinstance(error, ValueError)


# ---- cancel


def test_a_running_call_cannot_be_cancelled(any_mode_executor, gate):
    future = any_mode_executor.submit(gate.hold, "held")
    gate.wait_entered()
    assert future.running()
    assert not future.cancel()
    gate.open()
    assert future.result() == "held"


def test_a_waiting_call_can_be_cancelled(executor, gate, tmp_path):
    running = [executor.submit(gate.hold) for _ in range(2)]
    gate.wait_entered(2)
    ran = str(tmp_path / "ran")
    waiting, kept = executor.submit(mark, ran), executor.submit(mark, ran)
    assert waiting.cancel()
    assert waiting.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        waiting.result()
    gate.open()
    # `wait` and `as_completed` only hear of a cancelled future once the executor has acknowledged it.
    done, _ = concurrent.futures.wait([*running, waiting, kept], timeout=60)
    assert len(done) == 4
    assert marks(ran) == 1


# ---- callbacks


def test_callbacks_run_once_and_in_order(executor, gate):
    heard = []
    future = executor.submit(gate.hold, 7)
    for name in "abc":
        future.add_done_callback(lambda done, name=name: heard.append((name, done.result())))
    gate.open()
    future.result()
    wait_for(lambda: len(heard) >= 3)
    executor.shutdown()
    assert heard == [("a", 7), ("b", 7), ("c", 7)]


def test_a_callback_that_raises_harms_nobody(executor, gate, caplog):
    heard = []

    def bad(future):
        raise KeyError("in a callback")

    future = executor.submit(gate.hold)
    future.add_done_callback(bad)
    future.add_done_callback(heard.append)
    gate.open()
    future.result()
    wait_for(lambda: heard)
    assert "in a callback" in caplog.text
    assert executor.submit(pow, 2, 2).result() == 4


def test_a_callback_that_ends_the_thread_harms_nobody(executor, gate, caplog):
    def bad(future):
        raise SystemExit

    future = executor.submit(gate.hold)
    future.add_done_callback(bad)
    gate.open()
    future.result()
    assert executor.submit(pow, 2, 2).result(timeout=60) == 4


def test_a_callback_may_submit(executor):
    second = concurrent.futures.Future()
    executor.submit(pow, 2, 2).add_done_callback(lambda done: second.set_result(executor.submit(pow, done.result(), 2)))
    assert second.result(timeout=60).result(timeout=60) == 16


# ---- shutdown


def test_the_context_manager_waits(cloud, gate):
    with WrenExecutor(2) as executor:
        futures = [executor.submit(gate.hold, n) for n in range(4)]
        gate.open()
    assert all(future.done() for future in futures)
    assert our_threads(executor.job_id) == []


def test_shutdown_without_waiting_finishes_what_was_submitted(cloud, gate):
    executor = WrenExecutor(2)
    futures = [executor.submit(gate.hold, number) for number in range(5)]
    executor.shutdown(wait=False)
    assert not any(future.done() for future in futures)
    gate.open()
    assert [future.result(timeout=60) for future in futures] == list(range(5))
    wait_for(lambda: our_threads(executor.job_id) == [])


def test_shutdown_that_cancels(cloud, gate):
    executor = WrenExecutor(2)
    running = [executor.submit(gate.hold, number) for number in range(2)]
    gate.wait_entered(2)
    waiting = [executor.submit(gate.hold) for _ in range(5)]
    executor.shutdown(wait=False, cancel_futures=True)
    done, _ = concurrent.futures.wait(waiting, timeout=60)
    assert len(done) == 5
    assert all(future.cancelled() for future in waiting)
    gate.open()
    assert [future.result(timeout=60) for future in running] == [0, 1]
    executor.shutdown()


@pytest.mark.parametrize("mode", ["direct", "s3"])
def test_calls_that_found_a_slot_have_begun_however_soon_shutdown_cancels(cloud, gate, mode):
    executor = WrenExecutor(2, mode=mode)
    futures = [executor.submit(gate.hold, number) for number in range(6)]
    executor.shutdown(wait=False, cancel_futures=True)
    gate.open()
    executor.shutdown()
    assert [future.cancelled() for future in futures] == [False] * 2 + [True] * 4


def test_after_shutdown_nothing_is_taken(cloud):
    executor = WrenExecutor(2)
    executor.shutdown()
    executor.shutdown()
    executor.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(pow, 2, 2)


def test_an_executor_that_was_never_used_ends(cloud):
    executor = WrenExecutor(2)
    executor.shutdown()
    assert our_threads(executor.job_id) == []


def test_a_dropped_executor_finishes_its_calls_and_ends_its_threads(cloud, gate):
    executor = WrenExecutor(2)
    name = executor.job_id
    futures = [executor.submit(gate.hold, number) for number in range(4)]
    dropped = weakref.ref(executor)
    del executor
    gc.collect()
    assert dropped() is None
    gate.open()
    assert [future.result(timeout=60) for future in futures] == list(range(4))
    wait_for(lambda: our_threads(name) == [])


# ---- references


class Referable:
    """Can be pickled and referred to weakly."""

    def __call__(self, *arguments):
        return arguments


def test_nothing_of_a_call_is_kept_after_it(executor):
    function, argument, array = Referable(), Referable(), np.zeros(100_000)
    watched = [weakref.ref(function), weakref.ref(argument), weakref.ref(array)]
    future = executor.submit(function, argument, array)
    result = future.result()
    watched += [weakref.ref(result[0]), weakref.ref(result[1]), weakref.ref(future)]
    del function, argument, array, result, future

    def gone():
        gc.collect()
        return all(one() is None for one in watched)

    wait_for(gone)


def test_nothing_of_a_failed_call_is_kept_after_it(executor):
    future = executor.submit(boom)
    error = future.exception()
    watched = [weakref.ref(error), weakref.ref(future)]
    del error, future

    def gone():
        gc.collect()
        return all(one() is None for one in watched)

    wait_for(gone)


# ---- arguments of the executor


@pytest.mark.parametrize("max_workers", [0, -1])
def test_max_workers_is_positive(cloud, max_workers):
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        WrenExecutor(max_workers)


def test_max_workers_limits_what_runs_at_once(cloud, gate, tmp_path):
    with WrenExecutor(1) as executor:
        futures = [executor.submit(gate.hold, n) for n in range(3)]
        gate.wait_entered()
        assert [future.running() for future in futures] == [True, False, False]
        assert marks(gate.entered) == 1
        gate.open()


def test_initializer_is_callable(cloud):
    with pytest.raises(TypeError, match="initializer must be a callable"):
        WrenExecutor(initializer=3)


def test_an_unknown_setting_is_refused(cloud):
    with pytest.raises(ValueError, match="max_worker"):
        WrenExecutor(max_worker=3)


# ---- initializer


def test_the_initializer_runs_once_in_each_environment(cloud, gate, tmp_path):
    ran = str(tmp_path / "ran")

    def initializer(path, name, value):
        import os

        os.environ[name] = value
        mark(path)

    def read():
        import os

        gate.hold()
        return os.environ.get("WREN_TEST_INITIALIZED")

    with WrenExecutor(2, initializer, (ran, "WREN_TEST_INITIALIZED", "yes")) as executor:
        futures = [executor.submit(read) for _ in range(2)]
        gate.wait_entered(2)  # in two environments at once
        gate.open()
        futures += [executor.submit(read) for _ in range(6)]
        assert [future.result() for future in futures] == ["yes"] * 8
    assert marks(ran) == 2


def test_a_failing_initializer_breaks_the_executor(cloud, caplog):
    def fails(text):
        raise ValueError(text)

    with caplog.at_level(logging.CRITICAL, "concurrent.futures"), WrenExecutor(1, fails, ("bad start",)) as executor:
        futures = [executor.submit(pow, 2, 2) for _ in range(4)]
        for future in futures:
            error = future.exception(timeout=60)
            assert isinstance(error, BrokenWrenExecutor)
            assert isinstance(error, concurrent.futures.BrokenExecutor)
            assert "bad start" in str(error)
        assert executor._broken
        with pytest.raises(BrokenWrenExecutor):
            executor.submit(pow, 2, 2)
    (record,) = [one for one in caplog.records if one.name == "concurrent.futures"]
    assert record.levelname == "CRITICAL"
    assert record.getMessage().startswith("Exception in initializer:")


def test_an_initializer_that_cannot_be_pickled_is_refused_and_leaves_nothing(cloud):
    before = set(threading.enumerate())
    lock = threading.Lock()
    with pytest.raises(SerializationError, match="the initializer"):
        WrenExecutor(2, lambda: lock)
    assert set(threading.enumerate()) <= before


# ---- exit and fork


def test_exit_of_the_interpreter_waits_for_what_was_submitted(run_script, tmp_path):
    done = run_script(
        """
        import os
        import time
        from pathlib import Path
        import wren_backends

        here = Path(__file__).parent

        def slow(here):
            deadline = time.monotonic() + 30
            while not (here / "go").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            with open(here / "done", "a") as file:
                file.write("x")

        if __name__ == "__main__":
            executor = wren_backends.WrenExecutor(2)
            futures = [executor.submit(slow, here) for _ in range(3)]
            (here / "go").touch()
            print("end of script")
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end of script\n", "")
    assert (tmp_path / "done").read_text() == "xxx"


def test_a_script_starts_a_cloud_of_its_own_and_leaves_nothing(run_script, tmp_path):
    done = run_script(
        """
        import logging
        import wren_backends

        if __name__ == "__main__":
            logging.basicConfig(level=logging.INFO, format="%(message)s")
            executor = wren_backends.WrenExecutor()
            print(executor.submit(pow, 2, 5).result())
            from wren_backends.local.cloud import start_private
            print(start_private().pid, start_private().directory)
        """,
        XDG_STATE_HOME=str(tmp_path / "another"),
    )
    assert done.returncode == 0, done.stderr
    value, process = done.stdout.splitlines()
    pid, directory = process.split(" ", 1)
    assert value == "32"
    assert sum("cloud.started" in line for line in done.stderr.splitlines()) == 1
    wait_for(lambda: not psutil.pid_exists(int(pid)))
    assert not Path(directory).exists()


def test_use_after_fork_is_refused_and_does_not_hang(run_script):
    done = run_script(
        """
        import os
        import warnings
        import wren_backends

        warnings.simplefilter("ignore", DeprecationWarning)

        if __name__ == "__main__":
            executor = wren_backends.WrenExecutor(2)
            assert executor.submit(pow, 2, 5).result() == 32
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    executor.submit(pow, 2, 5)
                except RuntimeError as error:
                    code = 0 if "fork" in str(error) else 2
                executor.shutdown()
                with wren_backends.WrenExecutor(2) as own:
                    if own.submit(pow, 2, 5).result() != 32:
                        code = 3
                os._exit(code)
            _, status = os.waitpid(child, 0)
            print("child", os.waitstatus_to_exitcode(status))
            print("parent", executor.submit(pow, 2, 6).result())
        """
    )
    assert (done.returncode, done.stdout) == (0, "child 0\nparent 64\n"), done.stderr


def test_a_forked_child_can_exit_by_itself(run_script):
    """`sys.exit` in a child runs the exit hooks, which must not wait for threads that it does not have."""
    done = run_script(
        """
        import multiprocessing
        import warnings
        import wren_backends

        warnings.simplefilter("ignore", DeprecationWarning)

        if __name__ == "__main__":
            executor = wren_backends.WrenExecutor(2)
            executor.submit(pow, 2, 5).result()
            child = multiprocessing.get_context("fork").Process(target=pow, args=(2, 2))
            child.start()
            child.join(30)
            print("child", child.exitcode)
        """
    )
    assert (done.returncode, done.stdout) == (0, "child 0\n"), done.stderr
