"""Ctrl-C and giving calls up: nothing more is sent, nobody waits, and workers begin nothing that is not wanted."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from signals import Gate, mark, marks, wait_for

from lambda_worker import codec
from lambda_worker.objects import MissingObjectError
from lambda_worker.protocol import outcome_key
from wren_backends import CallStoppedError, WrenExecutor
from wren_backends.connection import open_store

MODES = pytest.mark.parametrize("mode", ["direct", "s3"])

SCRIPT = """
import os, sys, threading, time
sys.path.insert(0, {tests!r})
import concurrent.futures, faulthandler, signal
from signals import Gate, mark, marks
from wren_backends import WrenExecutor

faulthandler.register(signal.SIGUSR1)
gate = Gate({folder!r})

def leave_word(*facts):
    with open(os.path.join({folder!r}, "word"), "a") as file:
        print(*facts, file=file, flush=True)

"""

BODIES = {
    "result": """
        executor = WrenExecutor(2, mode={mode!r})
        futures = [executor.submit(gate.hold, number) for number in range(10)]
        try:
            futures[0].result()
        except KeyboardInterrupt:
            ended, running = concurrent.futures.wait(futures, timeout=30)
            leave_word("interrupted", len(running))
        executor.shutdown()
    """,
    "with block": """
        try:
            with WrenExecutor(2, mode={mode!r}) as executor:
                futures = [executor.submit(gate.hold, number) for number in range(10)]
                time.sleep(100)
        except KeyboardInterrupt:
            leave_word("interrupted", sum(not future.done() for future in futures))
    """,
    "map": """
        try:
            with WrenExecutor(2, mode={mode!r}) as executor:
                list(executor.map(gate.hold, range(10)))
        except KeyboardInterrupt:
            leave_word("interrupted", 0)
    """,
    "shutdown": """
        executor = WrenExecutor(2, mode={mode!r})
        futures = [executor.submit(gate.hold, number) for number in range(10)]
        try:
            executor.shutdown()
        except KeyboardInterrupt:
            ended, running = concurrent.futures.wait(futures, timeout=30)
            leave_word("interrupted", len(running))
        executor.shutdown()
    """,
    "joblib": """
        import joblib
        try:
            with joblib.parallel_config(backend="wren", n_jobs=2, mode={mode!r}):
                joblib.Parallel()(joblib.delayed(gate.hold)(number) for number in range(10))
        except KeyboardInterrupt:
            leave_word("interrupted", 0)
    """,
    "dask": """
        import dask
        from wren_backends import wren_get
        try:
            with dask.config.set(wren={{"max_workers": 2, "mode": {mode!r}}}):
                dask.compute([dask.delayed(gate.hold)(number) for number in range(10)], scheduler=wren_get)
        except KeyboardInterrupt:
            leave_word("interrupted", 0)
    """,
    "no handler": """
        executor = WrenExecutor(2, mode={mode!r})
        futures = [executor.submit(gate.hold, number) for number in range(10)]
        leave_word("interrupted", 0)
        futures[0].result()
    """,
    "no handler, not in result": """
        executor = WrenExecutor(2, mode={mode!r})
        futures = [executor.submit(gate.hold, number) for number in range(10)]
        leave_word("interrupted", 0)
        time.sleep(100)
    """,
}

AT_THE_END = """
        left = [thread.name for thread in threading.enumerate() if thread.name.startswith("wren-")]
        leave_word("threads", [] if {shares} else left)
"""


@MODES
@pytest.mark.parametrize("where", BODIES)
def test_ctrl_c_stops_at_once(cloud, gate, tmp_path, where, mode):
    """The calls that run are held to the end of the test: whoever waited for them would wait for ever."""
    shares = where in ("joblib", "dask")  # their executor is kept for the next piece of work, until the process ends
    tests = os.path.dirname(os.path.dirname(__file__))
    body = textwrap.dedent(BODIES[where] + AT_THE_END).format(mode=mode, shares=shares)
    source = SCRIPT.format(tests=tests, folder=str(tmp_path)) + "if __name__ == '__main__':\n"
    (tmp_path / "script.py").write_text(source + textwrap.indent(body, "    "))
    with open(tmp_path / "errors", "w") as errors:
        process = subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path, stderr=errors)
        try:
            gate.wait_entered(1)
            process.send_signal(signal.SIGINT)
            assert exit_status(process, tmp_path / "errors") == (-signal.SIGINT if "no handler" in where else 0)
        finally:
            process.kill()
            process.wait()
    word = (tmp_path / "word").read_text().splitlines()
    assert word[0] == "interrupted 0"
    assert word[1:] == ([] if "no handler" in where else ["threads []"])
    assert marks(gate.entered) <= 2
    errors = (tmp_path / "errors").read_text()
    assert "Exception ignored" not in errors
    assert "never retrieved" not in errors


def exit_status(process, errors):
    """Of a process that should end soon; of one that hangs the test says where."""
    try:
        return process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGUSR1)
        wait_for(lambda: "Current thread" in errors.read_text())
        pytest.fail(errors.read_text())


def quick_or_held(number, folder):
    """Quick until the test wants calls to be held; then each takes longer than a worker's interval between looks."""
    if os.path.exists(os.path.join(folder, "hold")):
        Gate(folder).hold()
        time.sleep(1.2)
    return number


def submit_together(executor, folder, calls):
    """Submit calls that travel in one invocation: they wait while another has the only slot, and are known as quick."""
    kind = f"{quick_or_held.__module__}.{quick_or_held.__qualname__}"
    executor._dispatcher._engine._schedule._known(kind).learn([0.0001] * calls, 1.0)
    executor.submit(time.sleep, 0.5)
    return [executor.submit(quick_or_held, number, str(folder)) for number in range(calls)]


@MODES
def test_a_worker_begins_none_of_the_calls_that_were_given_up(cloud, gate, tmp_path, mode):
    heard = []
    with WrenExecutor(1, mode=mode, commit_after_s=0.5, backups=False, on_event=heard.append) as executor, gate:
        mark(tmp_path / "hold")
        futures = submit_together(executor, tmp_path, 20)
        gate.wait_entered(1)
        first, together = 1, sum(future.running() for future in futures)
        assert together == 20
        executor.abandon()
        assert all(future.done() for future in futures) or wait_for(lambda: all(future.done() for future in futures))
        wait_for(lambda: any(one.name == "calls.stopped" for one in heard))
        gate.open()
        outcomes = committed(executor, first)
        assert [one.seq for one in outcomes] == list(range(first, first + together))
        assert outcomes[0].kind == "value"
        assert {one.reason for one in outcomes[1:]} == {"stopped"}
        assert marks(gate.entered) == 1
        assert executor.submit(abs, -1).result() == 1
        if mode == "s3":
            with WrenExecutor.attach(executor.job_id) as job:
                wait_for(lambda: first + 1 in job.futures)
                assert isinstance(job.futures[first + 1].exception(timeout=30), CallStoppedError)


def committed(executor, seq):
    """Outcomes of the frame that is committed under a number, as soon as it is."""
    where = executor.connection
    store = open_store(where, where.prefix)

    def look():
        try:
            return store.get(outcome_key(executor.job_id, seq))
        except MissingObjectError:
            return None

    return codec.unseal(
        wait_for(look), codec.job_key(where.function_key, executor.job_id), executor.job_id, seq
    ).outcomes


def test_a_forged_stop_list_stops_nobody(cloud, gate, tmp_path):
    with WrenExecutor(1) as executor, gate:
        mark(tmp_path / "hold")
        where = executor.connection
        forged = codec.seal_stop_list(range(100), [bytes(32)], executor.job_id)
        open_store(where, where.prefix).create(f"jobs/{executor.job_id}/stop", forged)
        gate.open()
        futures = submit_together(executor, tmp_path, 3)
        assert [future.result(timeout=60) for future in futures] == list(range(3))


def test_abandoning_everything_leaves_the_executor_usable(cloud, gate):
    with WrenExecutor(2) as executor, gate:
        futures = [executor.submit(gate.hold, number) for number in range(6)]
        gate.wait_entered(2)
        executor.abandon()
        wait_for(lambda: all(future.done() for future in futures))
        assert sum(future.cancelled() for future in futures) >= 4
        gate.open()
        assert executor.submit(abs, -3).result() == 3
