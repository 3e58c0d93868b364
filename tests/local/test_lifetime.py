"""Lifetimes: a private cloud ends with its client however that ends, a shared one does not."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from wren_backends.local import cloud as local_cloud
from wren_backends.local.errors import LocalCloudError
from wren_backends.local.options import CloudOptions
from wren_backends.local.processes import alive

from .helpers import ROLE, RUNTIME, client_of, eventually, zipped

CLIENT = """
import json, os, sys, time
from dataclasses import asdict
from wren_backends.local.cloud import start_private
print(json.dumps(asdict(start_private())), flush=True)
sys.stdin.read()
"""


def descendants(pid):
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found[1:]


@pytest.fixture
def client_process():
    process = subprocess.Popen([sys.executable, "-c", CLIENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        yield process, local_cloud.LocalCloud(**json.loads(process.stdout.readline()))
        process.kill()


def start_a_function(cloud):
    source = "import time\ndef handler(event, context):\n    time.sleep(600)\n"
    client = client_of(cloud, "lambda")
    client.create_function(
        FunctionName="f",
        Runtime=RUNTIME,
        Role=ROLE,
        Handler="app.handler",
        Timeout=900,
        Code={"ZipFile": zipped({"app.py": source})},
    )
    client.invoke(FunctionName="f", InvocationType="Event", Payload=b"{}")
    client_of(cloud, "sts").get_caller_identity()  # starts moto
    return eventually(lambda: (found := descendants(cloud.pid)) and len(found) >= 4 and found)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_nothing_survives_a_killed_client(client_process):
    process, cloud = client_process
    everybody = [cloud.pid, *start_a_function(cloud)]
    sockets = Path(cloud.directory, "sockets.txt").read_text().splitlines()
    assert any(os.path.exists(socket) for socket in sockets)
    process.send_signal(signal.SIGKILL)
    process.wait()
    eventually(lambda: not any(alive(pid) for pid in everybody))
    eventually(lambda: not os.path.exists(cloud.directory))
    assert not [socket for socket in sockets if os.path.exists(socket)]


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_nothing_survives_a_killed_supervisor(client_process):
    process, cloud = client_process
    everybody = start_a_function(cloud)
    os.kill(cloud.pid, signal.SIGKILL)
    eventually(lambda: not any(alive(pid) for pid in everybody))
    process.stdin.close()
    process.wait()
    assert not os.path.exists(cloud.directory)


def test_a_client_that_ends_leaves_nothing(client_process):
    process, cloud = client_process
    process.stdin.close()
    assert process.wait() == 0
    assert not alive(cloud.pid)
    assert not os.path.exists(cloud.directory)


def test_one_process_has_one_cloud_and_a_forked_child_leaves_it_alone(cloud):
    assert local_cloud.start_private() == cloud
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if local_cloud.start_private() == cloud else 2
            local_cloud.stop_private()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert cloud.answers()


def test_a_shared_cloud_is_started_found_and_stopped():
    assert local_cloud.find_shared() is None
    assert not local_cloud.stop_shared()
    started = local_cloud.start_shared(CloudOptions(account_concurrency=7))
    try:
        state = Path(os.environ["XDG_STATE_HOME"], "wren", "local.json")
        assert state.stat().st_mode & 0o777 == 0o600
        assert local_cloud.find_shared() == started == local_cloud.start_shared()
        limits = client_of(started, "lambda").get_account_settings()["AccountLimit"]
        assert limits["ConcurrentExecutions"] == 7
        assert os.getsid(started.pid) != os.getsid(0)
    finally:
        assert local_cloud.stop_shared()
    assert not alive(started.pid)
    assert local_cloud.find_shared() is None
    assert not os.path.exists(started.directory)


@pytest.mark.parametrize("command", ["up", "down"])
def test_what_a_killed_cloud_leaves_is_removed_by_the_next_command(tmp_path, monkeypatch, command):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed = local_cloud.start_shared()
    os.kill(killed.pid, signal.SIGKILL)
    os.waitpid(killed.pid, 0)
    starting = Path(tempfile.mkdtemp(prefix="wren-shared-"))
    (starting / "supervisor.pid").touch()
    assert local_cloud.find_shared() is None
    assert os.path.exists(killed.directory)
    try:
        living = local_cloud.start_shared() if command == "up" else None
        if command == "down":
            assert not local_cloud.stop_shared()
        left = {str(one) for one in tmp_path.glob("wren-*")}
        assert left == {str(starting), *([living.directory] if living else [])}
    finally:
        local_cloud.stop_shared()


def test_a_state_directory_that_cannot_be_made_starts_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null/state")
    with pytest.raises(LocalCloudError, match=r"/dev/null/state/wren cannot be made .*XDG_STATE_HOME"):
        local_cloud.start_shared()
    assert list(tmp_path.glob("wren-*")) == []
    assert not local_cloud.stop_shared()


def test_a_state_directory_that_cannot_be_written_to_leaves_nothing_running(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (local_cloud.state_directory() / "local.json").mkdir(parents=True)  # a file cannot take its place
    with pytest.raises(LocalCloudError, match=r"local\.json cannot be written"):
        local_cloud.start_shared()
    assert [one.name for one in local_cloud.state_directory().iterdir()] == ["local.json"]
    assert list(tmp_path.glob("wren-*")) == []


def test_everything_listens_on_loopback_only(cloud):
    if sys.platform != "linux":
        pytest.skip("reads /proc/net")
    inodes = set()
    for pid in [cloud.pid, *descendants(cloud.pid)]:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(link)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                listening.append(fields[1].split(":")[0])
    assert listening
    assert set(listening) == {"0100007F"}


def test_a_cloud_that_cannot_start_says_why(monkeypatch, tmp_path):
    """The supervisor's own words reach the user."""
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'No way out' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(LocalCloudError, match="No way out"):
        local_cloud._launch(_new(tmp_path), [], CloudOptions(), subprocess.DEVNULL)


def test_a_package_that_is_missing_is_named(monkeypatch, tmp_path):
    """As without the extra `local`: the supervisor says so and removes its directory before it ends."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(LocalCloudError, match=r"needs the package .*pip install"):
        local_cloud._launch(_new(tmp_path), [], CloudOptions(), subprocess.DEVNULL)


def _new(tmp_path):
    directory = tmp_path / "cloud"
    directory.mkdir()
    return directory
