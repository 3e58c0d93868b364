"""The record that a client of mode `s3` leaves of its job."""

import asyncio
import getpass
import json
import os
import shutil
import socket
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from queue import SimpleQueue

import pytest
from obstore.store import LocalStore
from signals import wait_for

import wren_backends.record as record_module
from lambda_worker.objects import ObjectStore
from lambda_worker.protocol import ProtocolError
from wren_backends import Config, StorageError, WrenExecutor, recorder
from wren_backends.events import Journal
from wren_backends.ranges import Ranges
from wren_backends.record import JobRecord

SOON_S = 20.0


@pytest.fixture
def s3_executor(cloud):
    with WrenExecutor(2, mode="s3", max_attempts=2) as executor:
        yield executor


def test_it_says_what_the_job_is(s3_executor, bucket):
    assert bucket.record(s3_executor.job_id) is None
    s3_executor.submit(pow, 2, 3).result(timeout=SOON_S)
    found = bucket.record(s3_executor.job_id)
    made = datetime.fromisoformat(found.pop("made"))
    assert made.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - made) < timedelta(minutes=2)
    assert found.pop("wren_backends")
    assert found == {
        "format": 1,
        "job": s3_executor.job_id,
        "by": {
            "user": getpass.getuser(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "program": os.path.basename(sys.argv[0]),
        },
        "mode": "s3",
        "function": s3_executor.connection.function,
        "python": list(sys.version_info[:2]),
        "max_attempts": 2,
        "retry_memory_mb": None,
        "larger_function": "",
        "calls": 1,
        "ended": [],
        "closed": None,
    }


def test_it_is_there_before_the_first_call_runs(s3_executor, bucket, gate):
    held = s3_executor.submit(gate.hold)
    gate.wait_entered()
    assert bucket.record(s3_executor.job_id)["calls"] == 1
    gate.open()
    held.result(timeout=SOON_S)


def test_it_follows_the_number_of_calls_while_they_run(s3_executor, bucket, gate):
    held = [s3_executor.submit(gate.hold, number) for number in range(10)]
    bucket.wait_recorded(s3_executor.job_id, 10)
    gate.open()
    assert [one.result(timeout=SOON_S) for one in held] == list(range(10))


def test_it_says_when_the_job_was_closed_and_costs_a_handful_of_requests(cloud, bucket):
    with WrenExecutor(2, mode="s3") as executor:
        assert sum(executor.map(abs, range(300))) == sum(range(300))
    found = bucket.record(executor.job_id)
    assert found["calls"] == 300
    assert datetime.fromisoformat(found["closed"])
    # All that this client put are two records, and as many again as it had to wait for others on this machine.
    assert executor._dispatcher._engine._store.requests["PUT"] <= 2 + 5


def test_a_record_that_cannot_be_written_later_on_is_tried_again_and_fails_no_call(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "_TICK_S", 0.01)
    folder, heard = tmp_path / "bucket", SimpleQueue()
    folder.mkdir()
    calls = 1

    async def life():
        nonlocal calls
        store = ObjectStore(LocalStore(str(folder)), "a folder")
        made = recorder.Recorder(
            store,
            Config(mode="s3"),
            "j-1",
            ["wren"],
            count=lambda: calls,
            ended=Ranges(),
            is_idle=lambda: False,
            journal=Journal((heard.put,)),
        )
        await made.begin("call 0")
        shutil.rmtree(folder / "jobs")
        (folder / "jobs").write_text("in the way")
        calls = 7
        said = await asyncio.to_thread(heard.get, timeout=SOON_S)
        assert (said.name, said.fields["job"]) == ("record.write_failed", "j-1")
        (folder / "jobs").unlink()
        while not (folder / "jobs/j-1/job.json").exists():
            await asyncio.sleep(0.01)
        await made.begin("call 6")
        await made.close()

    asyncio.run(asyncio.wait_for(life(), SOON_S))
    written = json.loads((folder / "jobs/j-1/job.json").read_text())
    assert written["calls"] == 7
    assert written["closed"]


def test_a_job_of_mode_direct_and_one_without_calls_leave_none(cloud, executor, bucket):
    assert executor.submit(pow, 2, 3).result(timeout=SOON_S) == 8
    with WrenExecutor(2, mode="s3") as idle:
        pass
    for job_id in (executor.job_id, idle.job_id):
        assert bucket.keys(f"jobs/{job_id}/") == []


def test_it_says_which_calls_have_ended_without_a_value(s3_executor, bucket, gate):
    calls = [s3_executor.submit(*one) for one in ((pow, 2, 3), (divmod, 1, 0), (os._exit, 1), (gate.hold,))]
    assert all(type(call.exception(timeout=SOON_S)) is not None for call in calls[:3])
    wait_for(lambda: bucket.record(s3_executor.job_id)["ended"] == [[1, 2]])
    gate.open()
    calls[3].result(timeout=SOON_S)


def test_it_is_written_again_as_a_sign_of_life_while_calls_run(cloud, bucket, gate, monkeypatch):
    monkeypatch.setattr(recorder, "HEARTBEAT_S", 0.5)
    with WrenExecutor(1, mode="s3") as executor, gate:
        executor.submit(gate.hold)
        gate.wait_entered()
        key = f"jobs/{executor.job_id}/job.json"
        first = bucket.written_at(key)
        wait_for(lambda: bucket.written_at(key) > first)
        gate.open()


def test_if_the_first_one_cannot_be_written_the_call_says_so(executor):
    credentials = {**executor.connection.s3_credentials["credentials"], "secret_access_key": "wrong"}
    refused = replace(executor.connection, s3_credentials={"credentials": credentials})
    with WrenExecutor(1, mode="s3", connection=refused) as executor:
        errors = [executor.submit(pow, 2, 3).exception(timeout=SOON_S) for _ in range(2)]
    for number, error in enumerate(errors):
        assert type(error) is StorageError
        for part in (f"call {number} (builtins.pow)", "record", executor.job_id, "Check bucket and credentials"):
            assert part in str(error)


GOOD = JobRecord.of_this_process("j-1", ["wren"], Config(mode="s3")).to_json()


def test_a_record_comes_back_as_it_was():
    record = JobRecord.of_this_process("j-1", ["wren"], Config(mode="s3"))
    assert JobRecord.from_json(json.loads(json.dumps(record.to_json())), "j-1") == record


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"job": "j-2"},
        {"mode": "other"},
        {"function": "../../x"},
        {"function": "a" * 100},
        {"calls": -1},
        {"calls": True},
        {"calls": 10**15},
        {"calls": "7"},
        {"ended": 7},
        {"ended": [[1]]},
        {"ended": [[2, 1]]},
        {"ended": [[1, 2], [3, 4]]},
        {"ended": [[5, 6], [1, 2]]},
        {"ended": [[-1, 0]]},
        {"ended": [[0, 10**9]]},
        {"ended": [[0.0, 1]]},
        {"ended": [[2 * one, 2 * one] for one in range(2001)]},
        {"made": "yesterday"},
        {"made": "2026-01-01T00:00:00"},
        {"made": "0001-01-01T00:00:00+14:00"},
        {"made": "0001-01-02T00:00:00+00:00"},
        {"closed": 7},
        {"python": [3]},
        {"python": [3, -1]},
        {"by": []},
        {"by": {**GOOD["by"], "user": "x" * 1000}},
        {"by": {**GOOD["by"], "pid": -4}},
        {"wren_backends": None},
    ],
    ids="-".join,
)
def test_a_record_of_another_shape_is_not_believed(change):
    with pytest.raises(ProtocolError):
        JobRecord.from_json({**GOOD, **change}, "j-1")


@pytest.mark.parametrize("raw", [None, [], "x", 7, {}])
def test_what_is_no_record_at_all_is_not_believed(raw):
    with pytest.raises(ProtocolError):
        JobRecord.from_json(raw, "j-1")


def test_a_process_whose_user_has_no_name_still_has_a_record(monkeypatch):
    def nameless():
        raise KeyError("uid not found")

    monkeypatch.setattr(record_module.getpass, "getuser", nameless)
    assert JobRecord.of_this_process("j-1", ["wren"], Config(mode="s3")).user == str(os.getuid())
