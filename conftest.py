"""Keeps the tests away from the user's own settings and gives them one local cloud that ends with them."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import asdict

import psutil
import pytest
from signals import Gate

from wren_backends import WrenExecutor
from wren_backends import executor as executor_module
from wren_backends.local import cloud as local_cloud
from wren_backends.local.options import CloudOptions
from wren_backends.local.paths import state_directory

SCRIPT_LIMIT_S = 60
ON_AWS = os.environ.get("TEST_ON_AWS") == "1"
"""Whether the function and the bucket that the environment names are used, on AWS; `make test-aws`."""


@pytest.fixture(scope="session", autouse=True)
def clean_surroundings(tmp_path_factory):
    """No setting of the user's counts here, and nothing that the tests started is left when they are over."""
    home = tmp_path_factory.mktemp("home")
    # Whatever starts tests in the background has Ctrl-C ignored, and so would every program that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with pytest.MonkeyPatch.context() as patch:
        for name in () if ON_AWS else list(os.environ):
            if name.startswith(("WREN_", "AWS_")):
                patch.delenv(name)
        if not ON_AWS:  # where the credentials are
            patch.setenv("HOME", str(home))
        for name in ("CONFIG", "STATE", "CACHE", "DATA"):
            patch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
        patch.setenv("DASK_TEMPORARY_DIRECTORY", str(home / "dask"))
        # Without it boto3 asks an address that only exists on EC2, and waits for an answer.
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.chdir(home)
        yield
        for shared in executor_module._shared.values():
            shared.shutdown()
        assert _gone(_our_threads) == []
        assert _gone(lambda: _children_but(before)) == []


def _gone(find, limit_s=15.0):
    """What `find` still finds when it has found nothing at last, or at the time limit."""
    deadline = time.monotonic() + limit_s
    while (found := find()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _our_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("wren-")]


def _children_but(known):
    left = []
    for child in psutil.Process().children(recursive=True):
        try:
            command = " ".join(child.cmdline())
            if child.pid not in known and "resource_tracker" not in command:
                left.append(f"{child.pid} {child.status()} {command}")
        except psutil.NoSuchProcess:
            continue
    return left


@pytest.fixture(scope="session")
def cloud(clean_surroundings):
    """The cloud of all tests and of the scripts that they start, which find it where `wren local up` leaves word.

    Its S3 is another server's in `make conformance-s3`.
    """
    if ON_AWS:
        yield None
        return
    with pytest.MonkeyPatch.context() as patch:
        s3_port = int(os.environ.get("CONFORMANCE_S3_PORT", "0"))
        if s3_port:
            patch.setenv("AWS_ACCESS_KEY_ID", os.environ["CONFORMANCE_S3_KEY"])
            patch.setenv("AWS_SECRET_ACCESS_KEY", os.environ["CONFORMANCE_S3_SECRET"])
        cloud = local_cloud.start_private(CloudOptions(async_time_scale=0.001, s3_port=s3_port))
    # Other tests may want a private cloud of their own with other options.
    private, local_cloud._private = local_cloud._private, None
    word = state_directory() / "local.json"
    word.parent.mkdir(parents=True, exist_ok=True)
    word.write_text(json.dumps(asdict(cloud)))
    yield cloud
    for shared in executor_module._shared.values():
        shared.shutdown()
    word.unlink()
    local_cloud._private = private
    local_cloud.stop_private()


@pytest.fixture
def executor(cloud):
    """An executor in mode `direct`, with two invocations in flight at most."""
    with WrenExecutor(2, mode="direct") as executor:
        yield executor


@pytest.fixture(params=["direct", "s3"])
def any_mode_executor(request, cloud):
    """An executor in each mode."""
    with WrenExecutor(2, mode=request.param) as executor:
        yield executor


@pytest.fixture
def gate(tmp_path):
    """Holds calls until the test opens it; at the end of the test it is open in any case."""
    gate = Gate(tmp_path)
    yield gate
    gate.open()


@pytest.fixture
def run_script(tmp_path, cloud):
    """Run Python source as a script in a process of its own; its current folder is the test's."""

    def run(source, limit_s=SCRIPT_LIMIT_S, **environment):
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(source))
        return subprocess.run(
            [sys.executable, str(path)],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )

    return run
