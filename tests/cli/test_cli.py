"""The `wren` command as a user types it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from wren_backends import BrokenWrenExecutor, Config, WrenExecutor
from wren_backends.cli_aws import role_hint
from wren_backends.local.options import BUCKET

WREN = Path(sys.executable).with_name("wren")
ROLE_ARN = "arn:aws:iam::123456789012:role/wren"


@pytest.fixture
def wren(tmp_path):
    """Run the command in a folder and a HOME of its own."""

    def run(*arguments, **environment):
        own = {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
        own |= {name: os.environ[name] for name in ("PATH", "XDG_CACHE_HOME")}  # what was packed once stays packed
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


def test_config_shows_where_a_setting_comes_from_and_what_it_comes_to(wren, tmp_path):
    (tmp_path / "wren.toml").write_text("retries = 2")
    shown = json.loads(wren("config", "--json", WREN_MODE="s3").stdout)
    assert shown["origins"] == {"mode": "environment", "retries": str(tmp_path / "wren.toml")}
    assert shown["found_out"] == {"cloud": "local", "max_workers": max(2, os.cpu_count()), "region": "us-east-1"}
    on_aws = json.loads(wren("config", "--json", WREN_BUCKET="mine", AWS_DEFAULT_REGION="eu-west-1").stdout)
    assert on_aws["found_out"] == {"cloud": "aws", "max_workers": 1000, "region": "eu-west-1"}
    table = wren("config", WREN_MODE="s3", COLUMNS="200").stdout
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if "│" in line]
    assert ["cloud", "auto (local)", "default"] in [row[:3] for row in rows]
    assert ["mode", "s3", "environment"] in [row[:3] for row in rows]


def test_a_log_level_that_is_none_is_told(wren, cloud, monkeypatch):
    state = {"XDG_STATE_HOME": os.environ["XDG_STATE_HOME"], "WREN_LOGLEVEL": "infoo"}
    assert "WREN_LOGLEVEL=INFOO is ignored: it has to be one of CRITICAL" in wren("test_function", **state).stderr


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


def test_up_without_a_home_is_one_line(wren):
    done = wren("local", "up", HOME="/dev/null")
    assert done.returncode == 1
    assert "XDG_STATE_HOME" in done.stderr
    assert "Traceback" not in done.stderr


def test_down_says_when_it_ends_what_others_run(wren, gate, monkeypatch, tmp_path):
    up = json.loads(wren("local", "up", "--json").stdout)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / ".local" / "state"))
    try:
        with WrenExecutor(2, prefix="down") as executor:
            assert executor.connection.lambda_url == up["endpoint_url"]
            future = executor.submit(gate.hold)
            gate.wait_entered()
            down = wren("local", "down")
            assert isinstance(future.exception(30), BrokenWrenExecutor)
    finally:
        wren("local", "down")
    assert "running: 1." in down.stderr


PROXIES = {
    variable: "http://127.0.0.1:9"  # nobody listens there
    for name in ("http_proxy", "https_proxy", "all_proxy")
    for variable in (name, name.upper())
}


@pytest.mark.parametrize(
    "disturbing", [PROXIES, {"AWS_PROFILE": "nope"}, {"AWS_CONFIG_FILE": "broken"}], ids=["proxies", "profile", "file"]
)
def test_the_local_cloud_is_not_disturbed_by_what_is_meant_for_the_world(run_script, tmp_path, disturbing):
    (tmp_path / "broken").write_text("[profile")
    done = run_script(
        """
        from wren_backends import WrenExecutor
        for mode in ("direct", "s3"):
            with WrenExecutor(2, mode=mode, prefix="undisturbed") as executor:
                data = bytes(1_000_000)
                assert executor.submit(lambda: data + data).result() == 2 * data
        """,
        XDG_STATE_HOME=str(tmp_path),  # so that it starts a cloud, instead of finding the tests'
        **disturbing,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["test_function", "create_role", "deploy_lambda"])
def test_a_profile_that_is_not_there_is_one_line(wren, command):
    more = ["--role", ROLE_ARN] if command == "deploy_lambda" else []
    done = wren(command, *more, AWS_PROFILE="nope", WREN_BUCKET="mine", WREN_REGION="eu-west-1")
    assert done.returncode == 1
    assert "nope" in done.stderr
    assert "AWS_PROFILE" in done.stderr
    assert "Traceback" not in done.stderr


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
    done = wren("deploy_lambda", "--role", ROLE_ARN)
    assert done.returncode == 1
    assert "WREN_BUCKET" in done.stderr


def test_deploy_lambda_without_a_role_says_how_to_make_one(wren, cloud):
    done = wren("deploy_lambda", **cloud.environment(), WREN_BUCKET=BUCKET, WREN_FUNCTION="no-role")
    assert done.returncode == 1
    assert "wren create_role" in done.stderr


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("The role defined for the function cannot be assumed by Lambda.", "wren create_role`. If that was just done"),
        ("The function execution role does not have permissions to call PutObject on S3", "create_role --whole-bucket"),
    ],
)
def test_what_to_do_about_a_role_that_lambda_refuses(text, hint):
    """`wren setup` and `wren deploy_lambda` say so after a minute, since Lambda hears late of a new role."""
    assert hint in role_hint(f"An error occurred (InvalidParameterValueException): {text}")


def test_from_create_role_to_a_first_call(wren, cloud):
    settings = {**cloud.environment(), "WREN_BUCKET": BUCKET, "WREN_FUNCTION": "from-nothing"}
    first = wren("create_role", **settings)
    assert "from-nothing-worker: created" in first.stdout, first.stderr
    said = first.stdout.splitlines()[-1].removeprefix("Next: wren ").split()
    assert wren("create-role", **settings).stdout == first.stdout.replace("created", "unchanged")
    moved = wren("create_role", **settings | {"WREN_PREFIX": "elsewhere"})
    assert f"updated. It may use s3://{BUCKET}/elsewhere and" in moved.stdout
    assert wren(*said, **settings).returncode == 0
    assert json.loads(wren("test_function", "--json", **settings).stdout)["answer"] == [8, 2]


def test_create_role_refuses_the_role_of_another_function(wren, cloud):
    settings = {**cloud.environment(), "WREN_BUCKET": BUCKET}
    assert wren("create_role", "--name", "taken", **settings, WREN_FUNCTION="one").returncode == 0
    done = wren("create_role", "--name", "taken", **settings, WREN_FUNCTION="two")
    assert done.returncode == 1
    assert "function 'one'" in done.stderr
    assert "--adopt" in done.stderr
    adopted = wren("create_role", "--name", "taken", "--adopt", **settings, WREN_FUNCTION="two")
    assert "taken: updated" in adopted.stdout, adopted.stderr


def test_create_role_prints_the_policies_without_aws(wren):
    done = wren("create_role", "--print", WREN_BUCKET="mine", WREN_REGION="eu-west-1")
    printed = json.loads(done.stdout)
    assert set(printed) == {"trust", "worker", "client"}
    assert "arn:aws:s3:::mine/wren/jobs/*" in done.stdout
    assert "log-group:/aws/lambda/wren" in json.dumps(printed["worker"])
    assert "lambda:InvokeFunction" in json.dumps(printed["client"])


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({}, "WREN_BUCKET"),
        ({"WREN_BUCKET": "mine"}, "WREN_REGION"),
        ({"WREN_BUCKET": "mine", "WREN_REGION": "eu-west-1"}, "aws configure"),
    ],
)
def test_create_role_says_what_is_missing(wren, settings, hint):
    done = wren("create_role", **settings)
    assert done.returncode == 1
    assert hint in done.stderr
