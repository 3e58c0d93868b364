"""A job is had from another process than the one that made it, whatever became of that one."""

import json
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from joblib import Parallel, delayed, parallel_config
from signals import mark, marks, wait_for

from lambda_worker.protocol import outcome_key
from wren_backends import (
    Config,
    ConfigError,
    DeploymentError,
    EnvironmentLostError,
    InvocationError,
    OutOfMemoryError,
    SerializationError,
    StorageError,
    TamperedObjectError,
    UnknownJobError,
    WrenExecutor,
    follower,
    jobs,
    measure,
    progress,
)
from wren_backends.executor import shared_executor

SOON_S = 30.0


@pytest.fixture
def short_silence(monkeypatch):
    """Clients that have been silent for a second are dead."""
    monkeypatch.setattr(follower, "SILENCE_S", 1.0)


@pytest.fixture
def closed_job(cloud):
    """A job that has ended: two values and an exception."""
    with WrenExecutor(2, mode="s3", forward_output=False) as executor:
        futures = [executor.submit(pow, 2, 5), executor.submit(divmod, 1, 0), executor.submit(bytes, 3)]
    assert [future.done() for future in futures] == [True] * 3
    return executor.job_id


def test_a_job_whose_client_was_killed_is_recovered(start_client, bucket, gate, tmp_path):
    """Half of the calls have ended when the client dies, the other half run on without it: each of them once."""
    client = start_client(
        f"""
        def call(number):
            mark({str(tmp_path / "ran")!r})
            if number >= 5:
                gate.hold()
            return number * number

        futures = [executor.submit(call, number) for number in range(10)]
        time.sleep(600)
        """,
        max_workers=10,
    )
    wait_for(lambda: len(bucket.frames(client.job_id)) == 5)
    gate.wait_entered(5)
    bucket.wait_recorded(client.job_id, 10)
    client.kill()
    with WrenExecutor.attach(client.job_id) as job:
        assert sorted(job.futures) == list(range(10))
        assert all(type(future) is Future for future in job.futures.values())
        early = job.committed(timeout=SOON_S)
        assert {number: future.result() for number, future in early.items()} == {n: n * n for n in range(5)}
        assert job.wait(timeout=0) is False
        with pytest.raises(TimeoutError, match="5 of 10 calls"):
            job.results(timeout=0)
        gate.open()
        assert job.results(timeout=SOON_S) == {number: number * number for number in range(10)}
        assert job.record.pid == client.process.pid
        assert job.record.closed is None
    assert marks(tmp_path / "ran") == 10


def test_calls_that_travelled_together_are_recovered_one_by_one(start_client, bucket, gate):
    client = start_client(
        """
        assert executor.submit(pow, 2, 2).result() == 4
        held = executor.submit(gate.hold)
        gate.wait_entered()
        futures = list(map(executor.submit, [abs] * 200, range(200)))
        assert futures[-1].result() == 199
        time.sleep(600)
        """,
        max_workers=2,
    )
    wait_for(lambda: (bucket.record(client.job_id) or {}).get("calls") == 202)
    with WrenExecutor.attach(client.job_id) as job:
        wait_for(lambda: sum(future.done() for future in job.futures.values()) == 201)
        client.kill()
        gate.open()
        found = job.results(timeout=SOON_S)
    assert found == {0: 4, 1: None} | {number + 2: number for number in range(200)}
    assert len(bucket.frames(client.job_id)) < 202


def test_two_attach_while_the_client_lives_and_all_have_the_same(cloud, gate):
    with WrenExecutor(2, mode="s3") as executor:
        own = [executor.submit(gate.hold, number) for number in range(2)]
        gate.wait_entered(2)
        with WrenExecutor.attach(executor.job_id) as one, WrenExecutor.attach(executor.job_id) as other:
            own.append(executor.submit(pow, 3, 2))
            gate.open()
            assert [future.result(timeout=SOON_S) for future in own] == [0, 1, 9]
            for job in (one, other):
                # A call made later becomes known from the record or from its outcome.
                wait_for(lambda job=job: len(job.futures) == 3)
                assert job.results(timeout=SOON_S) == {0: 0, 1: 1, 2: 9}


def test_exceptions_come_back_as_the_users_own(closed_job):
    with WrenExecutor.attach(closed_job) as job:
        found = job.results(timeout=SOON_S)
        assert (found[0], found[2]) == (32, b"\0\0\0")
        error = found[1]
    assert type(error) is ZeroDivisionError
    assert "RemoteTraceback" in repr(type(error.__cause__))
    assert "call 1" in error.__notes__[0]
    assert closed_job in error.__notes__[0]


def test_a_class_of_the_users_main_program_comes_back(start_client, bucket):
    client = start_client(
        """
        class Odd(Exception):
            pass

        def call(number):
            raise Odd(number)

        executor.submit(call, 7)
        executor.shutdown()
        """
    )
    client.process.wait(SOON_S)
    with WrenExecutor.attach(client.job_id) as job:
        error = job.results(timeout=SOON_S)[0]
    assert (type(error).__name__, error.args) == ("Odd", (7,))


def test_what_cannot_be_unpickled_here_is_said_of_that_call_only(start_client, tmp_path):
    (tmp_path / "only_there.py").write_text("class Thing:\n    pass\n")
    client = start_client(
        """
        import only_there
        executor.submit(only_there.Thing)
        executor.submit(pow, 2, 2)
        executor.shutdown()
        """
    )
    client.process.wait(SOON_S)
    assert "only_there" not in sys.modules
    with WrenExecutor.attach(client.job_id) as job:
        found = job.results(timeout=SOON_S)
    assert type(found[0]) is SerializationError
    assert "importable in this process" in str(found[0])
    assert found[1] == 4


def test_large_results_come_from_their_blobs_and_may_be_written_to(cloud):
    with WrenExecutor(2, mode="s3") as executor:
        executor.submit(lambda: np.ones(1_500_000)).result()
    with WrenExecutor.attach(executor.job_id) as job:
        array = job.results(timeout=SOON_S)[0]
    array += 1
    assert array.sum() == 3_000_000


def test_batches_of_joblib_are_lists_of_results(cloud):
    config = Config.load(mode="s3", retry_budget_s=61)  # nobody else's, whose job would be the same
    with parallel_config(backend="wren", mode="s3", retry_budget_s=61):
        assert Parallel(n_jobs=2, batch_size=2)(delayed(abs)(-number) for number in range(4)) == [0, 1, 2, 3]
    with shared_executor(config, 2) as executor:
        job_id = executor.job_id
    with WrenExecutor.attach(job_id) as job:
        results = job.results(timeout=SOON_S)
    assert results == {0: [0, 1], 1: [2, 3]}
    assert b"lambda_worker" not in pickle.dumps(results)


def test_a_job_of_mode_direct_gives_what_was_committed(cloud):
    with WrenExecutor(2, commit_after_s=0) as executor:
        assert list(executor.map(abs, range(3))) == [0, 1, 2]
    with WrenExecutor.attach(executor.job_id) as job:
        assert job.record is None
        committed = job.committed(timeout=SOON_S)
    assert [committed[number].result() for number in range(3)] == [0, 1, 2]


def test_printed_text_is_shown_unless_told_otherwise(cloud, capfd):
    with WrenExecutor(2, mode="s3", forward_output=False) as quiet:
        quiet.submit(print, "unheard").result()
    with WrenExecutor(2, mode="s3") as executor:
        executor.submit(print, "heard").result()
    capfd.readouterr()
    for job_id in (quiet.job_id, executor.job_id):
        with WrenExecutor.attach(job_id) as job:
            job.wait(timeout=SOON_S)
    assert capfd.readouterr().out == "heard\n"
    with WrenExecutor.attach(executor.job_id, forward_output=False) as job:
        job.wait(timeout=SOON_S)
    assert capfd.readouterr().out == ""


# ---- calls without an outcome


def test_an_environment_that_dies_after_its_client_is_a_typed_error(start_client, gate, short_silence):
    client = start_client(
        """
        def call():
            gate.hold()
            os._exit(3)

        executor.submit(call)
        time.sleep(600)
        """,
        max_attempts=1,
    )
    gate.wait_entered()
    client.kill()
    with WrenExecutor.attach(client.job_id) as job:
        gate.open()
        error = job.futures[0].exception(timeout=SOON_S)
    assert type(error) is EnvironmentLostError
    for part in ("call 0", "AWS request", "execution environment died"):
        assert part in str(error)


def test_a_failure_that_its_client_might_have_mended_counts_once_the_client_is_silent(start_client, bucket, gate):
    client = start_client(
        """
        def call():
            gate.hold()
            os._exit(3)

        executor.submit(call)
        time.sleep(600)
        """
    )
    gate.wait_entered()
    client.kill()
    gate.open()
    with WrenExecutor.attach(client.job_id, patience_s=0) as job:
        error = job.futures[0].exception(timeout=SOON_S)
    assert type(error) is EnvironmentLostError


def test_a_failure_that_its_client_mends_is_waited_out(cloud, bucket, tmp_path, gate):
    """Whoever is attached sees Lambda's record of the failure, and that the client lives and has not given up."""
    tried = str(tmp_path / "tried")

    def dies_once():
        mark(tried)
        if marks(tried) == 1:
            os._exit(3)
        return gate.hold("alive")

    with WrenExecutor(2, mode="s3") as executor:
        executor.submit(dies_once)
        gate.wait_entered()
        assert bucket.failed_at(executor.connection.function, executor.job_id)
        with WrenExecutor.attach(executor.job_id) as job:
            assert job.committed(timeout=SOON_S) == {}
            gate.open()
            assert job.results(timeout=SOON_S) == {0: "alive"}


def test_calls_that_were_never_sent_end_when_nothing_was_heard_for_long(start_client, bucket, gate):
    client = start_client(
        """
        executor.submit(gate.hold, "held")
        executor.submit(pow, 2, 2)
        time.sleep(600)
        """,
        max_workers=1,
    )
    gate.wait_entered()
    bucket.wait_recorded(client.job_id, 2)
    client.kill()
    gate.open()
    wait_for(lambda: bucket.frames(client.job_id) == [0])
    with WrenExecutor.attach(client.job_id) as job:
        assert job.futures[0].result(timeout=SOON_S) == "held"
        assert not job.futures[1].done()
    with WrenExecutor.attach(client.job_id, patience_s=0) as job:
        assert job.futures[0].result(timeout=SOON_S) == "held"
        error = job.futures[1].exception(timeout=SOON_S)
    assert type(error) is EnvironmentLostError
    for part in ("call 1", client.job_id, "Submit it again"):
        assert part in str(error)


def test_calls_of_a_closed_job_that_were_cancelled_end_at_once(cloud, gate):
    with WrenExecutor(1, mode="s3") as executor:
        held = executor.submit(gate.hold, "held")
        gate.wait_entered()
        waiting = executor.submit(pow, 2, 2)
        assert waiting.cancel()
        gate.open()
        held.result(timeout=SOON_S)
    with WrenExecutor.attach(executor.job_id) as job:
        found = job.results(timeout=SOON_S)
    assert found[0] == "held"
    assert type(found[1]) is InvocationError
    assert "cancelled" in str(found[1])


def test_closing_leaves_the_job_as_it_is_and_ends_what_waits(cloud, gate):
    with WrenExecutor(1, mode="s3") as executor:
        held = executor.submit(gate.hold, "held")
        gate.wait_entered()
        job = WrenExecutor.attach(executor.job_id)
        (future,) = job.futures.values()
        assert future.cancel() is False
        heard = threading.Event()
        future.add_done_callback(lambda _: heard.set())
        job.close()
        job.close()
        assert heard.is_set()
        with pytest.raises(CancelledError, match=executor.job_id):
            future.result(timeout=0)
        assert not held.done()
        gate.open()
        assert held.result(timeout=SOON_S) == "held"


# ---- what others may have done to the bucket


def test_an_unknown_job(cloud):
    with pytest.raises(UnknownJobError, match=r"no job j-unknown.*wren jobs list"):
        WrenExecutor.attach("j-unknown")


def test_without_a_local_cloud_that_runs_there_is_nothing_to_attach_to(tmp_path):
    source = "from wren_backends import WrenExecutor; WrenExecutor.attach('j-unknown')"
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", source], check=False, capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert "DeploymentError: no bucket is configured and no local cloud runs" in ended.stderr
    assert "wren local up" in ended.stderr


@pytest.mark.parametrize("job_id", ["../../etc", "", "a/b", "A", "x" * 64, "j-1\n", None])
def test_an_id_that_is_none(cloud, job_id):
    with pytest.raises(ConfigError, match=r"not a job id.*wren jobs list"):
        WrenExecutor.attach(job_id)


class Loaded:
    """Says so when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def test_a_frame_that_was_tampered_with_is_refused_and_the_others_are_had(closed_job, bucket, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    key = f"jobs/{closed_job}/outcomes/000000000002"
    data = bucket.get(key)
    evil = pickle.dumps(Loaded())
    bucket.put(key, data[: -len(evil)] + evil)
    with WrenExecutor.attach(closed_job) as job:
        found = job.results(timeout=SOON_S)
    assert type(found[2]) is TamperedObjectError
    assert "call 2" in str(found[2])
    assert "not unpickled" in str(found[2])
    assert found[0] == 32
    assert not (tmp_path / "unpickled").exists()


def test_a_frame_in_the_place_of_another_is_refused(closed_job, bucket):
    bucket.put(outcome_key(closed_job, 2), bucket.get(outcome_key(closed_job, 0)))
    with WrenExecutor.attach(closed_job) as job:
        found = job.results(timeout=SOON_S)
    assert type(found[2]) is TamperedObjectError
    assert "frame of call 0" in str(found[2])
    assert found[0] == 32


def test_a_frame_of_another_job_is_refused(closed_job, bucket, cloud):
    with WrenExecutor(1, mode="s3") as other:
        other.submit(pow, 2, 2).result()
    bucket.put(outcome_key(closed_job, 0), bucket.get(outcome_key(other.job_id, 0)))
    with WrenExecutor.attach(closed_job) as job:
        assert type(job.results(timeout=SOON_S)[0]) is TamperedObjectError


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"format": 1}', b"\x80\x05.", b"[" * 10_000, b"x" * 100_000])
def test_a_record_that_is_none_costs_nothing_but_what_it_says(closed_job, bucket, data):
    bucket.put(f"jobs/{closed_job}/job.json", data)
    with WrenExecutor.attach(closed_job) as job:
        assert job.record is None
        committed = job.committed(timeout=SOON_S)
        assert committed[0].result() == 32
        assert sorted(committed) == [0, 1, 2]


def test_a_record_that_names_another_function_is_not_followed(closed_job, bucket):
    key = f"jobs/{closed_job}/job.json"
    bucket.put(key, bucket.get(key).replace(b'"function": "wren-', b'"function": "evil-'))
    with pytest.raises(ConfigError, match=r"'evil-.*WREN_FUNCTION=evil-"):
        WrenExecutor.attach(closed_job)


def test_a_record_that_speaks_of_too_many_calls_is_not_believed(closed_job, bucket, monkeypatch):
    key = f"jobs/{closed_job}/job.json"
    bucket.put(key, json.dumps(json.loads(bucket.get(key)) | {"calls": 10**11}).encode())
    monkeypatch.setattr(follower, "MOST_CALLS", 1000)
    with WrenExecutor.attach(closed_job) as job:
        assert len(job.futures) == 1000
        assert job.results(timeout=SOON_S)[0] == 32


def test_a_bucket_that_cannot_be_read(closed_job, executor):
    credentials = {**executor.connection.s3_credentials["credentials"], "secret_access_key": "wrong"}
    refused = replace(executor.connection, s3_credentials={"credentials": credentials})
    with pytest.raises(StorageError, match=rf"(?s)job {closed_job}: .*Check bucket and credentials"):
        WrenExecutor.attach(closed_job, connection=refused)


def test_a_bucket_that_can_be_read_no_longer(cloud, executor, gate, monkeypatch):
    """Credentials are asked for before each request, and are wrong from some time on."""
    good = executor.connection.s3_credentials["credentials"]
    now = dict(good)

    def provide():
        return {**now, "token": None, "expires_at": datetime.now(UTC) + timedelta(seconds=1)}

    connection = replace(executor.connection, s3_credentials={"credential_provider": provide})
    monkeypatch.setattr(follower, "_OUTAGE_S", 0.0)
    with WrenExecutor(1, mode="s3") as held:
        held.submit(gate.hold)
        gate.wait_entered()
        with WrenExecutor.attach(held.job_id, connection=connection) as job:
            job.committed(timeout=SOON_S)
            now["secret_access_key"] = "wrong"
            error = job.futures[0].exception(timeout=SOON_S)
        gate.open()
    assert type(error) is StorageError
    assert "call 0" in str(error)
    assert "Attach again" in str(error)


def test_settings_and_config_together_are_refused(cloud):
    with pytest.raises(ConfigError, match="not both"):
        WrenExecutor.attach("j-1", config=Config(), prefix="x")


def test_an_attached_job_counts_in_progress_and_report(closed_job, capfd):
    with measure() as report, progress(), WrenExecutor.attach(closed_job, forward_output=False) as job:
        job.wait(timeout=SOON_S)
    assert report.calls == 3
    assert report.invocations == 0
    assert "3/3" in capfd.readouterr().err


def test_a_process_that_forgets_to_close_it_ends_all_the_same(closed_job, run_script):
    done = run_script(
        f"""
        from wren_backends import WrenExecutor

        job = WrenExecutor.attach({closed_job!r})
        print(job.results()[0])
        """
    )
    assert (done.returncode, done.stdout) == (0, "32\n"), done.stderr


# ---- calls that are sent again


def test_a_call_that_is_sent_anew_keeps_its_number(cloud, tmp_path):
    tried = str(tmp_path / "tried")

    def fails_twice():
        mark(tried)
        if marks(tried) <= 2:
            raise OSError("not yet")
        return "at last"

    with WrenExecutor(1, mode="s3", retries=5) as executor:
        own = [executor.submit(fails_twice), executor.submit(pow, 2, 2)]
        assert [future.result(timeout=SOON_S) for future in own] == ["at last", 4]
    with WrenExecutor.attach(executor.job_id) as job:
        assert job.results(timeout=SOON_S) == {0: "at last", 1: 4}
    found = jobs.describe_job(executor.connection, executor.job_id)
    assert (found.kinds, found.missing) == ({"value": 2}, ())


def test_an_exception_after_which_the_client_tries_again_is_waited_out(cloud, bucket, tmp_path, gate):
    """The exception is committed; whoever is attached sees that the client lives and has not given up."""
    tried = str(tmp_path / "tried")

    def fails_once():
        mark(tried)
        if marks(tried) == 1:
            raise OSError("not yet")
        return gate.hold("at last")

    with WrenExecutor(1, mode="s3", retries=1) as executor, gate:
        executor.submit(fails_once)
        gate.wait_entered()
        with WrenExecutor.attach(executor.job_id) as job:
            assert job.committed(timeout=SOON_S) == {}
            gate.open()
            assert job.results(timeout=SOON_S) == {0: "at last"}


def test_the_exception_of_a_call_without_further_attempts_counts_soon(cloud, gate):
    with WrenExecutor(2, mode="s3", retries=1) as executor, gate:
        failed = executor.submit(divmod, 1, 0)
        assert type(failed.exception(timeout=SOON_S)) is ZeroDivisionError
        executor.submit(gate.hold, "held")
        gate.wait_entered()
        with WrenExecutor.attach(executor.job_id) as job:
            assert type(job.futures[0].exception(timeout=SOON_S)) is ZeroDivisionError
            assert not job.future(1).done()
            gate.open()


def test_the_exception_counts_if_the_client_was_killed_before_it_tried_again(start_client, gate, short_silence):
    client = start_client(
        """
        def call():
            gate.hold()
            raise OSError("not yet")

        executor.submit(call)
        time.sleep(600)
        """,
        retries=3,
    )
    gate.wait_entered()
    client.kill()
    gate.open()
    with WrenExecutor.attach(client.job_id) as job:
        error = job.futures[0].exception(timeout=SOON_S)
    assert (type(error), str(error)) == (OSError, "not yet")


def fill_memory(megabytes):
    return len(bytearray(b"x") * (megabytes * 1024 * 1024))


def test_a_call_that_ran_out_of_memory_is_had_from_the_larger_function(cloud, gate):
    """Its outcome is sealed with that function's secret, and its failures are kept apart too."""

    def call():
        return gate.hold(fill_memory(400))

    with WrenExecutor(2, mode="s3", memory_mb=256, retry_memory_mb=1024) as executor, gate:
        executor.submit(call)
        hopeless = executor.submit(fill_memory, 4000)
        gate.wait_entered()
        with WrenExecutor.attach(executor.job_id, memory_mb=256) as job:
            assert "1024 MB" in str(hopeless.exception(timeout=SOON_S))
            gate.open()
            assert job.futures[0].result(timeout=SOON_S) == 400 * 1024 * 1024
    with WrenExecutor.attach(executor.job_id, memory_mb=256) as job:
        error = job.results(timeout=SOON_S)[1]
    assert type(error) is OutOfMemoryError
    assert "1024 MB" in str(error)
    found = jobs.describe_job(executor.connection, executor.job_id)
    assert (found.kinds, found.refused) == ({"value": 1}, {})
    assert sorted("1024 MB" in meaning for _, meaning in found.failures) == [False, False, True]


def test_calls_that_travel_together_and_run_out_of_time_are_all_had(cloud, tmp_path, gate):
    """The first of them is stopped at the time limit, those behind it never get their turn: all of them are sent again.

    Whoever attaches meets the frame that says so, and Lambda's record of the failure, before the values.
    """
    tried = str(tmp_path / "tried")

    def endless_at_first(number, first):
        if number == first:
            mark(tried)
            while marks(tried) == 1:
                pass
        return number

    with WrenExecutor(1, mode="s3", timeout_s=4, backups=False) as executor, gate:
        assert list(executor.map(endless_at_first, range(100), [-1] * 100)) == list(range(100))
        held = executor.submit(gate.hold, "held")
        gate.wait_entered()
        together = [executor.submit(endless_at_first, number, 0) for number in range(20)]
        with WrenExecutor.attach(executor.job_id) as job:
            gate.open()
            assert [future.result(timeout=SOON_S) for future in together] == list(range(20))
            assert [job.future(101 + number).result(timeout=SOON_S) for number in range(20)] == list(range(20))
        assert held.result() == "held"
    assert executor.journal.counts["call.retried"] == 1
    for _ in range(5):  # what is read first is chance
        with WrenExecutor.attach(executor.job_id) as job:
            found = job.results(timeout=SOON_S)
            assert [found[101 + number] for number in range(20)] == list(range(20))


def test_a_call_that_its_client_gave_up_ends_while_the_job_goes_on(cloud, gate):
    with WrenExecutor(1, mode="s3") as executor, gate:
        held = executor.submit(gate.hold, "held")
        gate.wait_entered()
        executor.submit(pow, 2, 2)
        with WrenExecutor.attach(executor.job_id) as job:
            executor.shutdown(wait=False, cancel_futures=True)
            error = job.future(1).exception(timeout=SOON_S)
            assert type(error) is InvocationError
            assert "cancelled, given up or never sent by its client" in str(error)
            assert not job.futures[0].done()
            gate.open()
            assert job.futures[0].result(timeout=SOON_S) == "held"
        assert held.result() == "held"


def test_a_call_that_was_cancelled_while_it_waited_ends_while_the_job_goes_on(cloud, gate):
    with WrenExecutor(1, mode="s3") as executor, gate:
        executor.submit(gate.hold, "held")
        gate.wait_entered()
        assert executor.submit(pow, 2, 2).cancel()
        last = executor.submit(pow, 2, 3)
        with WrenExecutor.attach(executor.job_id) as job:
            gate.open()
            assert last.result(timeout=SOON_S) == 8
            error = job.future(1).exception(timeout=SOON_S)
        assert "cancelled, given up or never sent by its client" in str(error)


def test_a_larger_function_that_is_gone_costs_what_ran_there_only(cloud, monkeypatch):
    with WrenExecutor(1, mode="s3", memory_mb=256, retry_memory_mb=1024) as executor:
        assert executor.submit(fill_memory, 1).result() == 1024 * 1024
        assert executor.submit(fill_memory, 400).result() == 400 * 1024 * 1024

    def gone(memory_mb):
        raise DeploymentError("there is none")

    connection = replace(executor.connection, beside=gone)
    with WrenExecutor.attach(executor.job_id, connection=connection) as job:
        found = job.results(timeout=SOON_S)
    assert found[0] == 1024 * 1024
    assert type(found[1]) is TamperedObjectError
    assert "may have sealed it, which cannot be reached" in str(found[1])


def test_a_time_out_that_its_client_mends_is_waited_out(cloud, tmp_path):
    tried = str(tmp_path / "tried")

    def endless_at_first():
        mark(tried)
        while marks(tried) == 1:
            pass
        return "in time"

    with WrenExecutor(1, mode="s3", timeout_s=2, retry_exhausted=True) as executor:
        executor.submit(endless_at_first)
        with attached_to(executor) as job:
            assert job.results(timeout=SOON_S) == {0: "in time"}


def attached_to(executor):
    """Attach as soon as there is a record."""
    return wait_for(lambda: _attach(executor.job_id))


def _attach(job_id):
    try:
        return WrenExecutor.attach(job_id)
    except UnknownJobError:
        return None
