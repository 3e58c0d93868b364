"""Functions of several sizes side by side: the memory that is asked for chooses one."""

import json
import os

import joblib
import pytest
from signals import wait_for

from wren_backends import Config, DeploymentError, WrenExecutor


@pytest.fixture
def memory():
    """Travels by value: what this module imports is not among the function's packages."""

    def where():
        return os.environ["AWS_LAMBDA_FUNCTION_NAME"], os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]

    return where


def test_each_executor_has_the_size_that_it_asks_for(setup, wren, name, memory):
    setup("--size", 256, "--packages", "joblib")
    for asked, function, has in (({}, name, "1769"), ({"memory_mb": 256}, f"{name}-256mb", "256")):
        with WrenExecutor(1, **asked) as executor:
            assert executor.submit(memory).result() == (function, has)
            assert executor.connection.memory_mb == int(has)
        with joblib.parallel_config("wren", n_jobs=2, **asked):
            assert joblib.Parallel()([joblib.delayed(memory)()] * 2) == [(function, has)] * 2
    with WrenExecutor(1, memory_mb=1769) as executor:
        assert executor.submit(memory).result() == (name, "1769")
    with pytest.raises(DeploymentError, match="wren setup --size 384"):
        WrenExecutor(1, memory_mb=384)
    wren("deploy_lambda", "--size", 384)
    with WrenExecutor(1, memory_mb=384) as executor:
        assert executor.submit(memory).result() == (f"{name}-384mb", "384")


def test_a_size_that_is_added_is_like_the_base_and_the_role_lets_it_log(setup, wren, name, client, monkeypatch):
    setup("--timeout", 40, "--packages", "toolz", "--tag", "team=a")
    monkeypatch.setenv("WREN_TIMEOUT_S", "")
    said = wren("deploy_lambda", "--size", 256).stdout
    assert f"{name}-worker: let it write the logs of {name}-256mb too" in said
    assert f": also objects below aws/lambda/async/{name}-256mb/ expire after 7 days" in said
    assert f"{name}: unchanged" in said
    lambda_client = client("lambda")
    base = lambda_client.get_function_configuration(FunctionName=name)
    beside = lambda_client.get_function_configuration(FunctionName=f"{name}-256mb")
    alike = ("Timeout", "Layers", "Role", "Runtime", "CodeSha256", "Handler")
    assert {one: base[one] for one in alike} == {one: beside[one] for one in alike}
    assert base["Environment"] != beside["Environment"]  # each has a secret of its own
    policy = client("iam").get_role_policy(RoleName=f"{name}-worker", PolicyName="wren-backends")["PolicyDocument"]
    log = next(one for one in policy["Statement"] if one["Sid"] == "WriteItsLog")
    assert [one.split("/")[-1] for one in log["Resource"]] == [f"{name}:*", f"{name}-256mb:*"]
    # From now on it is among what set-up looks after, though no setting names it.
    assert setup()["steps"][-1]["name"] == f"{name}-256mb"


def test_calls_that_run_out_of_memory_go_to_the_size_for_that(setup, wren, name):
    wren("create_config", "--name", name)
    setup("--size", 512, "--memory", 128)
    data = 200_000_000
    with WrenExecutor(1, retry_memory_mb=512, max_attempts=1) as executor:
        assert executor.submit(lambda: len(bytearray(os.urandom(1)) * data)).result() == data
        assert executor.journal.counts["call.enlarged"] == 1
    assert Config.load().sizes_mb == (512,)


def test_doctor_and_logs_know_the_functions_that_are_there(setup, wren, name, monkeypatch):
    """Nothing is wrong with what set-up has made, in a network too, and no setting names the size."""
    network = ("--subnet", "subnet-1", "--security-group", "sg-1")
    setup("--packages", "joblib", *network)
    wren("deploy_lambda", "--size", 256)
    assert Config.load().sizes_mb == ()
    kept = json.loads(wren("cleanup", "--dry-run", "--json").stdout)["steps"]
    (group,) = [one for one in kept if one["name"] == f"/aws/lambda/{name}-256mb"]
    assert (
        group["state"] == "delete"
    )  # it was made with the function, not by Lambda, which would keep its lines for ever
    monkeypatch.setenv("WREN_MEMORY_MB", "256")
    findings = json.loads(wren("doctor", "--json", status=None).stdout)
    assert not [one for one in findings if "MemorySize" in one["found"]]  # calls go to the other size
    monkeypatch.delenv("WREN_MEMORY_MB")
    (lifecycle,) = [one for one in findings if one["what"] == "bucket lifecycle"]
    assert lifecycle["status"] == "pass", lifecycle
    assert {f"function {name}", f"function {name}-256mb"} <= {one["what"] for one in findings}
    roles = [one for one in findings if one["what"] == f"role {name}-worker"]
    assert {one["status"] for one in roles} == {"pass"}, roles
    with WrenExecutor(1, memory_mb=256) as executor:
        executor.submit(print, "said by the other size").result()
    wait_for(lambda: "said by the other size" in wren("logs").stdout)


def test_another_size_is_added_to_those_of_the_settings(setup):
    setup("--size", 384)
    setup("--size", 256)
    assert Config.load().sizes_mb == (256, 384)


def test_the_role_of_a_long_name_has_a_name_that_iam_takes(wren, name):
    function = name.ljust(60, "x")
    shown = wren("setup", "--name", function, "--no-packages", "--no-test", "--yes", "--json").stdout
    assert json.loads(shown)["role"].endswith(f"/{function[:57]}-worker")
