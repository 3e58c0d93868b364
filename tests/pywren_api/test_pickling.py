"""PyWren's futures are read by other processes, whatever became of the one that made them."""

import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap

import pytest
from signals import wait_for

import wren_backends.pywren as pywren
from wren_backends import ConfigError, SerializationError, UnknownJobError, WrenExecutor
from wren_backends.pywren import following

SOON_S = 30.0


def test_another_process_waits_for_calls_and_reads_what_has_ended(pywren_executor, gate, tmp_path, run_script):
    ended, failed = pywren_executor.map(lambda n: 1 / n, [2, 0])
    pywren.wait([ended, failed])
    held = pywren_executor.map(gate.hold, [5, 6])
    gate.wait_entered(2)
    (tmp_path / "futures").write_bytes(pickle.dumps([ended, failed, *held]))
    done = run_script(
        f"""
        import pickle, sys
        import wren_backends.pywren as pywren

        ended, failed, *held = pickle.load(open("futures", "rb"))
        assert ended.result() == 0.5
        assert ended.run_status["exec_time"] >= 0 and ended.invoke_status["host_submit_time"] > 0
        assert type(failed.exception()) is ZeroDivisionError and "lambda" in str(failed.exception().__cause__)
        assert [future.done() for future in held] == [False, False]
        assert not held[0].cancel() and not held[0].cancelled()
        open({gate.opened!r}, "w").write("1")
        again = pickle.loads(pickle.dumps(held[0]))
        assert pywren.get_all_results(held) == [5, 6]
        assert again.result() == 5
        assert held[0].run_status["start_time"] <= held[0].run_status["end_time"]
        print("read")
        """
    )
    assert (done.stdout, done.returncode) == ("read\n", 0), done.stderr
    assert pywren.get_all_results(held) == [5, 6]


def test_results_that_are_read_one_by_one_share_an_attachment(pywren_executor, gate, tmp_path, run_script):
    futures = pywren_executor.map(gate.hold, range(60))
    (tmp_path / "futures").write_bytes(pickle.dumps(futures))
    gate.open()
    pywren.wait(futures)
    done = run_script(
        f"""
        import pickle, sys, threading
        sys.path.insert(0, {os.path.dirname(os.path.dirname(__file__))!r})
        from signals import wait_for
        from wren_backends.pywren import following

        class Counted(following.AttachedJob):
            made = 0

            def __init__(self, *arguments, **options):
                Counted.made += 1
                super().__init__(*arguments, **options)

        def is_attached():
            return any(thread.name.startswith("wren-attached") for thread in threading.enumerate())

        following.AttachedJob, following.IDLE_S = Counted, 0.1
        first, *rest = pickle.load(open("futures", "rb"))
        assert first.result() == 0
        wait_for(lambda: not is_attached())
        following.IDLE_S = 60.0
        assert [future.result() for future in rest] == list(range(1, 60))
        assert is_attached()
        print(Counted.made)
        """
    )
    assert (done.stdout, done.returncode) == ("2\n", 0), done.stderr


def test_whoever_attaches_to_the_job_gets_values_and_errors_alone(pywren_executor):
    futures = pywren_executor.map(lambda n: 1 / n, [2, 0])
    pywren.wait(futures)
    with WrenExecutor.attach(pywren_executor.invoker.executor.job_id) as job:
        value, error = job.results(timeout=SOON_S).values()
    assert value == 0.5
    assert type(error) is ZeroDivisionError
    assert set(vars(error)) == {"__notes__"}


def test_the_client_may_be_gone(cloud, tmp_path, gate):
    source = f"""
        import os, pickle, sys
        sys.path.insert(0, {os.path.dirname(os.path.dirname(__file__))!r})
        import wren_backends.pywren as pywren
        from signals import Gate

        if __name__ == "__main__":
            gate = Gate({str(tmp_path)!r})
            executor = pywren.default_executor(max_workers=2, forward_output=False)
            futures = executor.map(gate.hold, [1, 2])
            gate.wait_entered(2)
            open("futures", "wb").write(pickle.dumps(futures))
            os._exit(0)
    """
    (tmp_path / "client.py").write_text(textwrap.dedent(source))
    subprocess.run([sys.executable, "client.py"], cwd=tmp_path, check=True, timeout=60)
    futures = pickle.loads((tmp_path / "futures").read_bytes())
    assert pywren.wait(futures, pywren.ALWAYS) == ([], futures)
    gate.open()
    assert [future.result(timeout=SOON_S) for future in futures] == [1, 2]
    wait_for(lambda: not following._followed)  # nobody waits for the job any more, so nobody looks


class OddError(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def raises_odd(_):
    raise OddError(1, 2)


def test_exceptions_of_all_kinds_can_be_pickled(pywren_executor, gate):
    raised = pywren_executor.call_async(raises_odd, None)
    held = pywren_executor.map(gate.hold, [1, 2, 3])
    gate.wait_entered()
    cancelled = [future for future in held if future.cancel()]
    raised.exception()
    again = pickle.loads(pickle.dumps(raised))
    assert isinstance(again.exception(), OddError)
    assert str(again.exception()) == "1 and 2"
    assert "raises_odd" in str(again.exception().__cause__)
    assert again.run_status == raised.run_status
    assert len(cancelled) == 3
    assert all(future.cancelled() for future in pickle.loads(pickle.dumps(cancelled)))


def test_in_a_forked_process_they_do_not_hang(pywren_executor, gate):
    ended = pywren_executor.call_async(abs, -3)
    ended.result()
    futures = [ended, pywren_executor.call_async(gate.hold, 1)]
    gate.wait_entered()
    with multiprocessing.get_context("fork").Pool(1, initializer=inherited.extend, initargs=(futures,)) as pool:
        assert pool.apply_async(pywren.get_all_results, (futures[:1],)).get(timeout=SOON_S) == [3]
        for read in (pywren.get_all_results, results_of_inherited):
            with pytest.raises(RuntimeError, match="spawn"):
                pool.apply_async(read, (futures[1:],)).get(timeout=SOON_S)
    gate.open()
    assert pywren.get_all_results(futures) == [3, 1]


inherited = []


def results_of_inherited(_):
    assert inherited[0].result() == 3
    return inherited[1].result()


def test_in_the_process_that_made_it_a_future_is_the_same_call(pywren_executor, gate):
    future = pywren_executor.call_async(gate.hold, 1)
    again = pickle.loads(pickle.dumps(future))
    gate.wait_entered()
    assert again.cancel()
    assert future.cancelled()


def test_a_call_of_mode_direct_can_be_pickled_when_it_has_ended(cloud, gate):
    with pywren.default_executor(max_workers=1, mode="direct") as executor:
        future = executor.call_async(gate.hold, 1)
        with pytest.raises(SerializationError, match="mode `s3`"):
            pickle.dumps(future)
        gate.open()
        future.result()
        assert pickle.loads(pickle.dumps(future)).result() == 1


def test_a_job_that_is_not_there_is_told_of(pywren_executor, monkeypatch, gate):
    monkeypatch.setattr(following, "_RECORD_LIMIT_S", 0.0)
    future = pywren_executor.call_async(gate.hold, 1)
    state = future.__getstate__()
    gate.open()
    lost = pywren.ResponseFuture.__new__(pywren.ResponseFuture)
    place = type(state["place"])(state["place"].config, "j-unknown", state["place"].log_group)
    lost.__setstate__({**state, "place": place, "callset_id": "of-another-cloud"})
    with pytest.raises(UnknownJobError, match="j-unknown"):
        lost.result()


def test_without_a_local_cloud_that_runs_its_futures_say_so_at_once(pywren_executor, gate, tmp_path, run_script):
    (tmp_path / "future").write_bytes(pickle.dumps(pywren_executor.call_async(gate.hold, 1)))
    gate.open()
    done = run_script(
        """
        import pickle
        import wren_backends.pywren as pywren

        pickle.load(open("future", "rb")).result()
        """,
        XDG_STATE_HOME=str(tmp_path),
        XDG_CONFIG_HOME=str(tmp_path),
    )
    assert "DeploymentError: no bucket is configured and no local cloud runs" in done.stderr


def test_inside_a_call_a_future_that_has_not_ended_says_what_to_do(pywren_executor, gate):
    future = pywren_executor.call_async(gate.hold, 1)
    reader = pywren_executor.call_async(lambda one: one.result(), future)
    gate.wait_entered()
    with pytest.raises(ConfigError, match="reduce"):
        reader.result(timeout=SOON_S)
