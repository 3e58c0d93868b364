"""The `wren` command as a user types it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wren_backends import Config

WREN = Path(sys.executable).with_name("wren")


@pytest.fixture
def wren(tmp_path):
    """Run the command in a folder and a HOME of its own."""

    def run(*arguments, **environment):
        own = {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true", "PATH": os.environ["PATH"]}
        return subprocess.run(
            [WREN, *arguments],
            cwd=tmp_path,
            env={**own, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_config_shows_what_is_in_force(wren):
    shown = json.loads(wren("config", "--json", WREN_MODE="s3").stdout)
    assert shown["mode"] == "s3"
    assert shown["function"] == Config().function
    assert "WREN" not in wren("config").stderr


def test_a_bad_setting_is_one_line_and_exit_status_1(wren):
    done = wren("config", WREN_MODE="nonsense")
    assert done.returncode == 1
    assert "mode" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_local_cloud_of_its_own_from_up_to_down(wren, tmp_path):
    assert wren("local", "status").returncode == 3
    up = json.loads(wren("local", "up", "--json").stdout)
    try:
        status = json.loads(wren("local", "status", "--json").stdout)
        assert status["running"] is True
        assert status["endpoint_url"] == up["endpoint_url"]
        made = json.loads(wren("test_function", "--json").stdout)
        assert made["answer"] == [8, 2]
        assert json.loads(wren("test-function", "--json").stdout)["function"] == made["function"]
        assert json.loads(wren("local", "status", "--json").stdout)["lambda"]["invocations"] == 4
    finally:
        down = wren("local", "down")
    assert "stopped" in down.stdout
    assert wren("local", "status").returncode == 3
    assert not Path(up["directory"]).exists()


def test_help_and_version(wren):
    assert "local" in wren("--help").stdout
    assert wren("--version").stdout.startswith("wren, version ")
