"""`wren jobs` as a user types it, on real jobs."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from signals import wait_for

from wren_backends import WrenExecutor
from wren_backends.cli import main

WREN = Path(sys.executable).with_name("wren")
SOON_S = 60


@pytest.fixture
def wren(cloud, tmp_path, monkeypatch):
    """Run the command in this process; the test's folder is the current one."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, answer=None, status=0):
        done = CliRunner().invoke(main, ["jobs", *arguments], input=answer)
        assert done.exit_code == status, done.output
        assert "Traceback" not in done.output
        return done

    return run


@pytest.fixture
def job(cloud):
    """Id of a closed job: two values, an exception and one call that could not be sent back."""
    with WrenExecutor(2, mode="s3", forward_output=False) as executor:
        executor.submit(pow, 2, 5)
        executor.submit(divmod, 1, 0)
        executor.submit(lambda: (_ for _ in ()))
        executor.submit(str.upper, "x")
    return executor.job_id


@pytest.fixture
def running(cloud, gate, bucket):
    """A job of which one call has ended and one is held."""
    with WrenExecutor(2, mode="s3") as executor:
        assert executor.submit(pow, 2, 5).result() == 32
        executor.submit(gate.hold, "held")
        gate.wait_entered()
        bucket.wait_recorded(executor.job_id, 2)
        yield executor
        gate.open()


def rows(output, job_id):
    return [re.split(r" *[│┃] *", line)[1:-1] for line in output.splitlines() if job_id in line]


# ---- list and show


def test_list_shows_a_job(wren, job, bucket):
    ((shown, made, by, mode, calls, frames, size, _, client),) = rows(wren("list").stdout, job)
    record = bucket.record(job)
    assert (shown, mode, calls, client) == (job, "s3", "4", "closed it")
    assert made == record["made"][:19].replace("T", " ")
    assert by == f"{record['by']['user']}@{record['by']['host']} {record['by']['program']}"
    assert int(frames) == len(bucket.frames(job))
    assert int(size.replace(",", "")) == sum(len(bucket.get(key)) for key in bucket.keys(f"jobs/{job}/"))


def test_list_as_json(wren, job, bucket):
    (found,) = [one for one in json.loads(wren("list", "--json").stdout) if one["job"] == job]
    assert found["record"] == bucket.record(job)
    assert found["objects"] == len(bucket.keys(f"jobs/{job}/"))


def test_list_and_show_a_job_without_a_record(wren, job, bucket):
    bucket.delete(f"jobs/{job}/job.json")
    (row,) = rows(wren("list").stdout, job)
    assert row[2] == "no record"
    shown = wren("show", job).stdout
    assert re.search(r"outcomes  2 value, 1 error, 1 failed", shown)


def test_list_says_that_there_are_none(wren, monkeypatch):
    monkeypatch.setenv("WREN_PREFIX", "nobody-was-here")
    assert "no jobs in s3://wren-local/nobody-was-here" in wren("list").stdout


def test_texts_of_others_cannot_drive_the_terminal(wren, job, bucket):
    record = bucket.record(job)
    record["by"] |= {"user": "[red]\x1b[31mevil\u202e\n", "program": "a\tb"}
    bucket.put(f"jobs/{job}/job.json", json.dumps(record).encode())
    for output in (wren("list").stdout, wren("show", job).stdout):
        assert "[red]\\x1b[31mevil\\u202e @" in output
        assert "\x1b" not in output
        assert "\u202e" not in output


def test_objects_that_are_no_jobs_are_passed_over(wren, job, bucket):
    strange = "jobs/Not A Job/outcomes/1"
    bucket.put(strange, b"x")
    bucket.put(f"jobs/{job}/outcomes/readme", b"x")
    try:
        assert "Not A Job" not in wren("list").stdout
        assert "2 value, 1 error, 1 failed" in wren("show", job).stdout
        assert "HELLO" not in wren("results", job).stdout
    finally:
        bucket.delete(strange)


def test_show_a_job(wren, job, bucket):
    output = wren("show", job).stdout
    record = bucket.record(job)
    for part in (
        "outcomes  2 value, 1 error, 1 failed",
        "missing  none",
        f"process {record['by']['pid']}",
        f"/aws/lambda/{record['function']}",
    ):
        assert part in output
    assert re.search(r"log stream  \d{4}/\d\d/\d\d/\[\$LATEST\]\w+", output)


def test_show_what_is_missing_and_what_failed(wren, cloud, gate, bucket):
    with WrenExecutor(1, mode="s3", max_attempts=1) as executor:
        executor.submit(os._exit, 3).exception()
        executor.submit(gate.hold)
        gate.wait_entered()
        waiting = [executor.submit(pow, 2, n) for n in range(3)]
        bucket.wait_recorded(executor.job_id, 5)
        output = wren("show", executor.job_id).stdout
        gate.open()
        assert [one.result() for one in waiting] == [1, 2, 4]
    assert "missing  0-4" in output
    assert re.search(r"failure  .* attempt 1: call 0 of job .*, AWS request .*execution environment died", output)
    found = json.loads(wren("show", "--json", executor.job_id).stdout)
    assert found["missing"] == [0]
    assert found["failures"][0]["calls"] == [0]
    assert found["outcomes"] == {"value": 4}


def test_show_a_frame_that_was_tampered_with(wren, job, bucket):
    bucket.put(f"jobs/{job}/outcomes/000000000003", b"x" * 100)
    output = wren("show", job).stdout
    assert "1 value, 1 error, 1 failed" in output
    assert "refused  frame 3: " in output
    assert "missing  3" in output


# ---- results and attach


def test_results(wren, job):
    lines = wren("results", job).stdout.splitlines()
    assert lines[0].split() == ["0", "value", "32"]
    assert lines[1].split(maxsplit=2)[:2] == ["1", "error"]
    assert "ZeroDivisionError: " in lines[1]
    assert lines[2].split()[:3] == ["2", "failed", "SerializationError:"]
    assert lines[3].split() == ["3", "value", "'X'"]
    assert len(lines) == 4


def test_results_are_bounded_and_cannot_drive_the_terminal(wren, cloud):
    class Odd:
        def __repr__(self):
            return "\x1b[31m" + "x" * 10_000

    class Broken(Exception):
        def __str__(self):
            raise RuntimeError

    def breaks():
        raise Broken

    with WrenExecutor(2, mode="s3") as executor:
        for call in (Odd, lambda: "y" * 100_000, lambda: list(range(10**6)), lambda: "a\nb\x07", breaks):
            executor.submit(call).exception()
    output = wren("results", executor.job_id).stdout
    assert len(output.splitlines()) == 5
    assert max(map(len, output.splitlines())) < 250
    assert "\x1b" not in output
    assert "\x07" not in output
    assert "Broken" in output


def test_results_to_a_file(wren, job, tmp_path):
    wren("results", job, "--out", "found.pickle")
    with (tmp_path / "found.pickle").open("rb") as file:
        found = pickle.load(file)
    assert (found[0], found[3]) == (32, "X")
    assert type(found[1]) is ZeroDivisionError
    assert sorted(found) == [0, 1, 2, 3]


def test_results_to_a_file_that_cannot_be_written_are_not_lost(wren, job):
    output = wren("results", job, "--out", "no/such/folder", status=1).output
    assert f"wren jobs results {job} --out" in output


def test_results_of_classes_in_the_current_folder(wren, tmp_path, run_script, cloud):
    (tmp_path / "mine.py").write_text("class Thing:\n    def __repr__(self):\n        return 'my thing'\n")
    done = run_script(
        """
        import mine
        from wren_backends import WrenExecutor

        with WrenExecutor(1, mode="s3") as executor:
            executor.submit(mine.Thing).result()
        print(executor.job_id)
        """
    )
    shown = subprocess.run(
        [WREN, "jobs", "results", done.stdout.strip()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SOON_S,
        check=True,
    )
    assert shown.stdout.split() == ["0", "value", "my", "thing"]


def test_results_wait_for_nothing(wren, running, gate):
    done = wren("results", running.job_id)
    assert done.stdout.split() == ["0", "value", "32"]
    assert "1 calls have no outcome yet" in done.stderr
    assert f"wren jobs attach {running.job_id}" in done.stderr


def test_attach_waits_for_all(running, gate, tmp_path):
    with subprocess.Popen(
        [WREN, "jobs", "attach", running.job_id, "--out", "found.pickle"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        gate.open()
        stdout, stderr = process.communicate(timeout=SOON_S)
    assert process.returncode == 0, stderr
    assert [line.split() for line in stdout.splitlines()] == [["0", "value", "32"], ["1", "value", "'held'"]]
    assert "2/2" in stderr
    assert pickle.loads((tmp_path / "found.pickle").read_bytes()) == {0: 32, 1: "held"}


def test_interrupting_attach_leaves_the_job_as_it_is(running, gate, tmp_path, bucket):
    with subprocess.Popen(
        [WREN, "jobs", "attach", running.job_id],
        cwd=tmp_path,
        env={**os.environ, "WREN_LOGLEVEL": "DEBUG"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stderr:  # it says when it looks into the bucket
            if "job.polled" in line:
                break
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=SOON_S)
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert f"wren jobs attach {running.job_id}" in stderr
    assert "Traceback" not in stderr
    gate.open()
    wait_for(lambda: bucket.frames(running.job_id) == [0, 1])


def test_attach_with_patience(wren, running):
    output = wren("attach", running.job_id, "--patience", "0s").stdout
    assert re.search(r"1  failed  EnvironmentLostError: call 1 .*Submit it again", output)


# ---- clean


def test_clean_asks_first(wren, job, bucket):
    before = bucket.keys(f"jobs/{job}/")
    output = wren("clean", job, answer="n\n", status=1).output
    assert job in output
    assert f"1 jobs, {len(before)} objects" in output
    assert bucket.keys(f"jobs/{job}/") == before
    wren("clean", job, answer="y\n")
    assert bucket.keys(f"jobs/{job}/") == []


def test_clean_deletes_that_job_and_no_blob(wren, job, cloud, bucket):
    with WrenExecutor(1, mode="s3", inline_limit_bytes=0) as other:
        other.submit(pow, 2, 2).result()
    others, blobs = bucket.keys(f"jobs/{other.job_id}/"), bucket.keys("blobs/")
    output = wren("clean", job, "--yes").output
    assert "Blobs stay" in output
    assert bucket.keys(f"jobs/{job}/") == []
    assert bucket.keys(f"jobs/{other.job_id}/") == others
    assert bucket.keys("blobs/") == blobs != []


def test_clean_by_age_and_all(wren, cloud, bucket, monkeypatch):
    monkeypatch.setenv("WREN_PREFIX", "to-be-cleaned")
    with WrenExecutor(1, mode="s3") as executor:
        executor.submit(pow, 2, 2).result()

    def left():
        return json.loads(wren("list", "--json").stdout)

    assert "nothing to delete" in wren("clean", "--older-than", "7d", "--yes").output
    assert [one["job"] for one in left()] == [executor.job_id]
    assert executor.job_id in wren("clean", "--older-than", "0s", "--yes").output
    assert left() == []
    with WrenExecutor(1, mode="s3") as executor:
        executor.submit(pow, 2, 2).result()
    wren("clean", "--all", "--yes")
    assert left() == []


def test_clean_warns_of_a_job_that_may_still_run(wren, running):
    assert "may still run" in wren("clean", running.job_id, answer="n\n", status=1).output


@pytest.mark.parametrize("arguments", [[], ["j-1", "--all"], ["--all", "--older-than", "1d"]])
def test_clean_has_to_be_told_what(wren, arguments):
    assert "--older-than 7d" in wren("clean", *arguments, status=2).output


@pytest.mark.parametrize("text", ["7", "d", "-1d", "1y", "1.5h"])
def test_a_time_that_is_none(wren, text):
    assert "such as 7d" in wren("clean", "--older-than", text, status=2).output


# ---- what there is not


@pytest.mark.parametrize("command", ["show", "results", "attach", "clean"])
def test_an_unknown_job(wren, command):
    output = wren(command, "j-unknown", status=1).output
    assert "there is no job j-unknown" in output
    assert "wren jobs list" in output


@pytest.mark.parametrize("command", ["show", "results", "attach", "clean"])
@pytest.mark.parametrize("job_id", ["../blobs", "j-1/outcomes", "\x1b[31m"])
def test_an_id_that_is_none(wren, command, job_id):
    output = wren(command, job_id, status=1).output
    assert "not a job id" in output
    assert "\x1b" not in output


def test_without_a_cloud_it_says_so_and_starts_none(tmp_path):
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [WREN, "jobs", "list"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    for part in ("no local cloud runs", "WREN_BUCKET", "wren local up"):
        assert part in done.stderr
