"""The `wren` command as a user types it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from wren_backends import Config
from wren_backends.local.options import BUCKET

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


def test_deploy_lambda_makes_a_function_that_calls_run_on_and_keeps_its_secret(wren, cloud):
    role = "arn:aws:iam::123456789012:role/wren"
    settings = {**cloud.environment(), "WREN_BUCKET": BUCKET, "WREN_FUNCTION": "by-hand", "WREN_MEMORY_MB": "256"}
    made = wren("deploy_lambda", "--role", role, **settings)
    assert "256 MB" in made.stdout, made.stderr
    assert json.loads(wren("test_function", "--json", **settings).stdout)["local"] is False
    client = boto3.client(
        "lambda",
        cloud.region,
        endpoint_url=cloud.endpoint_url,
        aws_access_key_id=cloud.access_key_id,
        aws_secret_access_key=cloud.secret_access_key,
    )
    before = client.get_function_configuration(FunctionName="by-hand")
    assert wren("deploy-lambda", "--role", role, **settings | {"WREN_MEMORY_MB": "512"}).returncode == 0
    after = client.get_function_configuration(FunctionName="by-hand")
    assert after["MemorySize"] == 512
    assert after["Environment"] == before["Environment"]


def test_deploy_lambda_without_a_bucket_says_what_to_set(wren):
    done = wren("deploy_lambda", "--role", "arn")
    assert done.returncode == 1
    assert "WREN_BUCKET" in done.stderr
