"""`wren setup`: all that jobs need is made, once, and whatever interrupts it, the next one completes it."""

import io
import json
import os
import pty
import subprocess
import sys
import zipfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from faults.proxy import Answer, on
from packages.wheels import wheel

from wren_backends import Config, StorageError, WrenExecutor
from wren_backends.deploy import function
from wren_backends.deploy.bucket import TAG as BUCKET_TAG
from wren_backends.deploy.package import function_zip
from wren_backends.deploy.plan import carry_out
from wren_backends.deploy.policies import trust_policy
from wren_backends.deploy.role import TAG
from wren_backends.local.configuration import host_architecture

from .conftest import states
from .guard import ACCOUNT

WREN = Path(sys.executable).with_name("wren")


def test_from_nothing_to_a_job(wren, name, guard, client):
    done = wren("setup", "--name", name, "--no-packages", "--yes")
    assert f"Test call: divmod(42, 5) = (8, 2) on function {name}." in done.stdout
    settings = Config.load()
    assert settings.function == name
    assert settings.bucket.startswith(f"wren-{ACCOUNT}-us-east-1-")
    for mode in ("direct", "s3"):
        with WrenExecutor(2, mode=mode) as executor:
            assert not executor.connection.is_local
            assert list(executor.map(abs, [-1, -2])) == [1, 2]
    s3, lambda_client = client("s3"), client("lambda")
    assert {"Key": BUCKET_TAG, "Value": name} in s3.get_bucket_tagging(Bucket=settings.bucket)["TagSet"]
    events = lambda_client.get_function_event_invoke_config(FunctionName=name)
    assert events["MaximumRetryAttempts"] == 0
    assert events["DestinationConfig"]["OnFailure"]["Destination"] == f"arn:aws:s3:::{settings.bucket}"
    role = client("iam").get_role(RoleName=f"{name}-worker")["Role"]
    assert {"Key": TAG, "Value": name} in role["Tags"]
    assert lambda_client.get_function_configuration(FunctionName=name)["Role"] == role["Arn"]


def test_the_second_time_nothing_is_sent_that_changes_anything(setup, guard):
    assert set(states(setup(test=True)).values()) >= {"create"}
    made = len(guard.changes)
    again = setup(test=True)
    assert len(guard.changes) == made > 8
    assert set(states(again).values()) == {"unchanged"}
    assert again["test"]["answer"] == [8, 2]


def test_a_dry_run_and_a_no_say_all_and_do_nothing(wren, name, guard):
    few = ("setup", "--name", name, "--no-packages")
    shown = json.loads(wren(*few, "--dry-run", "--json").stdout)
    assert [step["state"] for step in shown["steps"]] == ["create"] * 5
    refused = wren(*few, answers="n\n", status=1)
    assert refused.stdout.startswith(f"At {guard.url}, which is not AWS (account {ACCOUNT}, us-east-1) this is to be:")
    assert "programs that have no AWS_ENDPOINT_URL to AWS" in refused.stderr
    assert "AWS_ENDPOINT_URL" not in wren(*few, "--no-config", answers="n\n", status=1).stderr
    assert "make it: python3." in refused.stdout
    assert "--yes" in wren(*few, answers="", status=1).stderr
    assert "--yes" in wren(*few, "--json", status=2).stderr
    assert guard.changes == []
    agreed = wren(*few, "--no-test", answers="y\n")
    assert agreed.stdout.endswith("Done.\n")


@pytest.mark.parametrize("unheard", [False, True], ids=["refused", "done-but-unheard"])
def test_interrupted_anywhere_the_next_one_completes_it(wren, setup, name, guard, client, unheard, monkeypatch):
    """Each run gets one request further than the one before it, until one gets to the end."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    guard.unheard = unheard
    few, runs = ("setup", "--name", name, "--yes", "--no-packages", "--no-test"), 1
    guard.changes_left = 1
    while (done := wren(*few, status=None)).exit_code:
        assert "it goes on where it stopped" in done.stderr
        guard.changes_left, runs = 1, runs + 1
        assert runs < 20
    guard.reset()
    assert runs > 4
    assert set(states(setup()).values()) == {"unchanged"}
    assert guard.changes == []
    [bucket] = [one["Name"] for one in client("s3").list_buckets()["Buckets"] if one["Name"] == Config.load().bucket]
    tags = client("s3").get_bucket_tagging(Bucket=bucket)["TagSet"]
    assert [one["Key"] for one in tags] == [BUCKET_TAG]


def test_a_bucket_that_was_refused_is_not_taken_for_ours_later(wren, setup, name, guard, client):
    """Somebody makes it in between."""
    bucket = f"refused-{name}"
    guard.changes_left = 0
    place = ("setup", "--name", name, "--no-packages", "--no-test", "--yes", "--bucket", bucket)
    assert "AccessDenied" in wren(*place, status=1).stderr
    guard.reset()
    client("s3").create_bucket(Bucket=bucket)
    [step] = [step for step in setup("--bucket", bucket)["steps"] if step["what"] == "bucket"]
    assert "not made by wren: `wren cleanup` will leave it" in step["notes"]
    assert states(json.loads(wren("cleanup", "--yes", "--json").stdout))["bucket", bucket] == "update"


def test_a_bucket_that_was_made_before_is_found_without_settings(setup, account):
    first = setup()
    Path(os.environ["XDG_CONFIG_HOME"], "wren", "wren.toml").unlink()
    again = setup()
    assert again["bucket"] == first["bucket"]
    assert states(again)["bucket", first["bucket"]] == "unchanged"


def test_somebody_elses_bucket_is_never_touched(wren, name, guard, client):
    """It is open to everybody: only who says whose bucket is expected is refused."""
    client("s3").create_bucket(Bucket=f"theirs-{name}")
    guard.foreign = {f"theirs-{name}"}
    done = wren("setup", "--name", name, "--no-packages", "--yes", "--bucket", f"theirs-{name}", status=1)
    assert f"not account {ACCOUNT}'s" in done.stderr
    assert "--bucket" in done.stderr
    assert guard.changes == []


def test_somebody_elses_bucket_gets_no_packages_and_no_calls(setup, wren, guard):
    bucket = setup()["bucket"]
    guard.foreign = {bucket}
    guard.asked.clear()
    assert f"not account {ACCOUNT}'s" in wren("deploy_lambda", "--packages", "toolz", status=1).stderr
    with pytest.raises(StorageError, match=f"not account {ACCOUNT}'s"):
        WrenExecutor(1, prefix="foreign")
    assert guard.changes == []


def test_a_bucket_in_another_region_is_not_used(setup, wren, name, guard):
    """Botocore asks again where S3 sends it, so that the answer is 200 in the end."""
    bucket = setup()["bucket"]
    there = Answer(200, (("x-amz-bucket-region", "eu-west-1"),))
    guard.refuse(on("HEAD", f"/{bucket}"), there, times=2)
    guard.asked.clear()
    assert "is in another region" in wren("setup", "--no-packages", "--no-test", "--yes", status=1).stderr
    assert guard.changes == []
    with pytest.raises(StorageError, match="in region eu-west-1"):
        WrenExecutor(1, prefix="elsewhere")
    with WrenExecutor(1, prefix="elsewhere") as executor:
        assert executor.submit(abs, -1).result() == 1


def test_a_bucket_of_ones_own_is_used_and_not_marked(setup, name, client):
    s3, bucket = client("s3"), f"mine-{name}"
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "team", "Value": "a"}]})
    other = {"ID": "other", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 30}}
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [other]})
    s3.delete_public_access_block(Bucket=bucket)
    step = next(one for one in setup("--bucket", bucket)["steps"] if one["what"] == "bucket")
    assert step["changes"] == ["objects of jobs expire after 7 days, beside its other rules"]
    assert any("--block-public-access" in one for one in step["notes"])
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == [{"Key": "team", "Value": "a"}]
    rules = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert [one["ID"] for one in rules if not one["ID"].startswith("wren-backends ")] == ["other"]
    with pytest.raises(s3.exceptions.ClientError, match="NoSuchPublicAccessBlock"):  # an ACL may use it
        s3.get_public_access_block(Bucket=bucket)
    setup("--bucket", bucket, "--block-public-access")
    assert all(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())


def test_a_bucket_that_is_open_to_the_public_takes_a_word(setup, wren, name, client):
    s3, bucket = client("s3"), f"open-{name}"
    s3.create_bucket(Bucket=bucket)
    s3.delete_public_access_block(Bucket=bucket)
    statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    few = ("setup", "--name", name, "--no-packages", "--no-test", "--yes", "--bucket", bucket)
    assert "--keep-public-access" in wren(*few, status=1).stderr
    kept = setup("--bucket", bucket, "--keep-public-access")
    assert "block public access" not in json.dumps(kept["steps"])
    blocked = setup("--bucket", bucket, "--block-public-access")
    assert "block public access" in json.dumps(blocked["steps"])


def test_a_function_and_a_role_of_others_are_left_alone(wren, setup, name, guard, client):
    setup()
    client("lambda").delete_function(FunctionName=name)
    role = client("iam").get_role(RoleName=f"{name}-worker")["Role"]["Arn"]
    zipped = b"PK\x05\x06" + bytes(18)
    theirs = {"Runtime": "python3.11", "Role": role, "Handler": "theirs.main", "Code": {"ZipFile": zipped}}
    client("lambda").create_function(FunctionName=name, **theirs)
    guard.asked.clear()
    few = ("setup", "--name", name, "--no-packages", "--no-test", "--yes")
    assert "wren did not make" in wren(*few, status=1).stderr
    assert "wren did not make" in wren("deploy_lambda", "--name", name, status=1).stderr
    assert guard.changes == []
    assert "code is another version" in wren(*few, "--adopt").stdout


def test_a_role_that_lambda_has_not_heard_of_yet_is_waited_for(setup, guard, monkeypatch):
    monkeypatch.setattr("wren_backends.deploy.plan._PAUSE_S", 0.01)
    text = "The role defined for the function cannot be assumed by Lambda."
    headers = (("content-type", "application/json"), ("x-amzn-errortype", "InvalidParameterValueException"))
    answer = Answer(400, headers, json.dumps({"Type": "User", "message": text}).encode())
    guard.refuse(on("POST", "/2015-03-31/functions"), answer, times=2)
    assert setup(test=True)["test"]["answer"] == [8, 2]


def test_settings_of_functions_reach_them_and_what_is_not_said_stays(setup, wren, name, client):
    network = ("--subnet", "subnet-1", "--subnet", "subnet-2", "--security-group", "sg-1")
    more = ("--memory", 256, "--timeout", 30, "--ephemeral", 600, "--reserved-concurrency", 5, "--tag", "team=a b")
    setup(*network, *more, "--arch", host_architecture(), "--size", 512)
    found = client("lambda").get_function(FunctionName=name)
    beside = client("lambda").get_function(FunctionName=f"{name}-512mb")
    for one, memory_mb in ((found, 256), (beside, 512)):
        shown = one["Configuration"]
        assert (shown["MemorySize"], shown["Timeout"], shown["Architectures"]) == (memory_mb, 30, [host_architecture()])
        assert shown["EphemeralStorage"] == {"Size": 600}
        assert shown["VpcConfig"]["SubnetIds"] == ["subnet-1", "subnet-2"]
        assert shown["VpcConfig"]["SecurityGroupIds"] == ["sg-1"]
        assert one["Concurrency"] == {"ReservedConcurrentExecutions": 5}
        assert one["Tags"] == {TAG: name, "team": "a b"}
    policy = client("iam").get_role_policy(RoleName=f"{name}-worker", PolicyName="wren-backends")["PolicyDocument"]
    actions = {statement["Sid"]: statement["Action"] for statement in policy["Statement"]}
    assert "ec2:CreateNetworkInterface" in actions["ConnectToTheNetwork"]
    assert actions["NotForCalls"] == actions["ConnectToTheNetwork"]
    Path(os.environ["XDG_CONFIG_HOME"], "wren", "wren.toml").unlink()
    bucket = states(setup("--memory", 300, "--subnet", "subnet-1", "--security-group", "sg-1"))
    assert bucket["function", name] == "update"
    after = client("lambda").get_function(FunctionName=name)["Configuration"]
    assert (after["MemorySize"], after["Timeout"], after["EphemeralStorage"]["Size"]) == (300, 30, 600)
    assert after["VpcConfig"]["SubnetIds"] == ["subnet-1"]
    assert after["Environment"] == found["Configuration"]["Environment"]


def test_a_function_for_another_architecture_is_made_and_changed(account, name, client):
    """What may lack a wheel there is not fetched: the local cloud does not run it in any case."""
    other = "x86_64" if host_architecture() == "arm64" else "arm64"
    role = client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust_policy()))["Role"]["Arn"]
    spec = function.FunctionSpec(name, role, "some-bucket", architecture=other)
    parts, code = {"lambda": client("lambda")}, function_zip()
    for architecture, state in ((other, "create"), (other, "unchanged"), (host_architecture(), "update")):
        step = function.step(
            function.look(parts["lambda"], name), replace(spec, architecture=architecture), code, adopt=False
        )
        assert step.state == state
        carry_out(step, parts)
        found = parts["lambda"].get_function_configuration(FunctionName=name)
        assert found["Architectures"] == [architecture]


@pytest.fixture
def uses_it():
    """Whether the package is there, and not as part of the function's zip; travels by value."""

    def look():
        import toolz

        return toolz.__name__, toolz.__file__.startswith(os.environ["LAMBDA_TASK_ROOT"])

    return look


def test_a_function_without_packages_gets_some(setup, wren, name, uses_it):
    setup()
    assert "layers none -> the new one" in wren("deploy_lambda", "--packages", "toolz", "--dry-run").stdout
    assert f"layers none -> {name}-packages:1" in wren("deploy_lambda", "--packages", "toolz").stdout
    with WrenExecutor(1) as executor:
        assert executor.submit(uses_it).result() == ("toolz", False)
    assert f"{name}: unchanged" in wren("deploy_lambda", "--packages", "toolz").stdout


def test_a_region_that_does_not_exist_is_told_by_its_name(wren, name, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    refused = wren("setup", "--name", name, "--region", "us-east1", "--dry-run", status=1)
    assert "no AWS region 'us-east1': is it 'us-east-1'? Set WREN_REGION or --region" in refused.stderr


def test_what_calls_will_be_refused_for_is_said_before_anything_is_done(wren, name, guard, tmp_path, monkeypatch):
    wheel(tmp_path, "numpy", "1.99")
    monkeypatch.setenv("PIP_FIND_LINKS", f"{tmp_path} {os.environ.get('PIP_FIND_LINKS', '')}".strip())
    few = ("setup", "--name", name, "--packages", "numpy==1.99", "--no-test")
    declined = wren(*few, answers="n\n", status=1)
    refused = f"calls from here that use numpy will be refused: the client has numpy {version('numpy')}, this function"
    assert f"{refused} numpy 1.99" in declined.stdout, declined.stderr
    assert "pip install 'numpy==1.99'" in declined.stdout
    assert ("or use Python 3.12 or newer" in declined.stdout) == (sys.version_info < (3, 12))
    assert guard.changes == []
    assert refused in wren(*few, "--yes").stderr
    call = json.loads(wren("doctor", "--json", status=1).stdout)[-1]
    assert call["what"] == "call"
    assert "`pip install 'numpy==1.99'`" in call["found"]


def test_packages_are_published_once_and_calls_have_them(setup, name, client, uses_it):
    first = setup("--packages", "toolz", "--memory", 256, test=True)
    by_kind = {step["what"]: step for step in first["steps"]}
    assert by_kind["packages"]["state"] == "create"
    assert by_kind["packages"]["name"] == "1 packages"
    with WrenExecutor(1) as executor:
        assert executor.submit(uses_it).result() == ("toolz", False)
    again = setup("--packages", "toolz", test=True)
    assert set(states(again).values()) == {"unchanged"}
    assert len(client("lambda").list_layer_versions(LayerName=f"{name}-packages")["LayerVersions"]) == 1
    # What leaves the packages alone leaves them to the function.
    assert set(states(setup()).values()) == {"unchanged"}


def test_run_bare_in_a_terminal_it_asks_with_answers_at_hand(account, name, guard):
    """Enter takes what is suggested; here for the memory and the bucket."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [WREN, "setup", "--no-packages", "--no-test"],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=account,
        start_new_session=True,
    )
    os.close(terminal)
    os.write(controller, f"{name}\n\n\ny\n".encode())
    output = process.communicate(timeout=60)[0].decode()
    os.close(controller)
    assert process.returncode == 0, output
    assert "Name of the function [wren]:" in output
    assert "[1769]:" in output
    assert "Do this?" in output
    assert (Config.load().function, Config.load().bucket[:5]) == (name, "wren-")


def test_the_local_cloud_needs_no_set_up_and_says_so(wren, monkeypatch):
    monkeypatch.setenv("WREN_CLOUD", "local")
    assert "WREN_CLOUD" in wren("setup", "--yes", status=1).stderr


@pytest.fixture
def layer(client):
    """A layer version of somebody else's."""

    def make(name):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as bundle:
            bundle.writestr("python/theirs.txt", "")
        made = client("lambda").publish_layer_version(LayerName=name, Content={"ZipFile": packed.getvalue()})
        return made["LayerVersionArn"]

    return make


def test_packages_leave_an_administrators_layer_and_a_larger_disk(setup, wren, name, client, layer):
    setup()
    theirs, lambda_client = layer(f"{name}-theirs"), client("lambda")
    lambda_client.update_function_configuration(FunctionName=name, Layers=[theirs], EphemeralStorage={"Size": 2048})
    wren("deploy_lambda", "--packages", "toolz")
    found = lambda_client.get_function_configuration(FunctionName=name)
    own = f"{theirs.rpartition(':layer:')[0]}:layer:{name}-packages:1"
    assert [one["Arn"] for one in found["Layers"]] == [theirs, own]
    assert found["EphemeralStorage"] == {"Size": 2048}
    # A configured layer comes in the place of theirs, and beside the packages.
    mine = layer(f"{name}-mine")
    wren("deploy_lambda", "--layer", mine)
    found = lambda_client.get_function_configuration(FunctionName=name)
    assert [one["Arn"] for one in found["Layers"]] == [mine, own]


def test_packages_of_another_python_are_not_kept_unasked(setup, wren, name, client, guard):
    setup("--packages", "toolz")
    older = "python3.12" if sys.version_info[:2] != (3, 12) else "python3.13"
    client("lambda").update_function_configuration(FunctionName=name, Runtime=older)
    guard.asked.clear()
    for command in (("deploy_lambda",), ("setup", "--no-packages", "--yes", "--no-test")):
        assert "wren deploy_lambda --environment" in wren(*command, status=1).stderr
    assert guard.changes == []
    wren("deploy_lambda", "--packages", "toolz")


def test_an_adopted_role_with_a_path_is_the_one_that_the_function_gets(setup, name, client):
    trust = json.dumps(trust_policy())
    made = client("iam").create_role(RoleName=f"{name}-worker", Path="/team/", AssumeRolePolicyDocument=trust)
    assert setup("--adopt")["role"] == made["Role"]["Arn"]
    assert client("lambda").get_function_configuration(FunctionName=name)["Role"] == made["Role"]["Arn"]


def test_a_role_with_the_whole_bucket_keeps_it(setup, wren, name, client):
    setup("--whole-bucket")
    assert "unchanged" in wren("create_role").stdout


def test_what_is_no_arn_of_a_role_is_refused(setup, wren, name):
    setup()
    for role in (f"{name}-worker", "arn:aws:iam::123456789012:user/me"):
        assert "no ARN of a role" in wren("deploy_lambda", "--role", role, status=1).stderr


@pytest.mark.parametrize(
    ("right", "command"),
    [
        ("lambda:ListLayerVersions", ("setup", "--yes", "--packages", "toolz")),
        ("lambda:GetFunction", ("delete_lambda", "--yes")),
        ("iam:GetRole", ("delete_role", "--yes")),
        ("iam:GetRole", ("create_role",)),
    ],
)
def test_a_refused_look_is_an_error_and_no_traceback(wren, name, guard, monkeypatch, right, command):
    monkeypatch.setenv("WREN_BUCKET", f"some-{name}")
    monkeypatch.setenv("WREN_FUNCTION", name)
    everything = {"Effect": "Allow", "Action": ["*"], "Resource": ["*"]}
    guard.policy = [everything, {**everything, "Effect": "Deny", "Action": [right]}]
    done = wren(*command, status=1)
    assert isinstance(done.exception, SystemExit), done.exception
    assert "dministrator" in done.stderr


def test_the_key_that_encrypts_variables_may_hear_of_the_role_later(setup, wren, name, guard, monkeypatch):
    monkeypatch.setattr("wren_backends.deploy.plan._PAUSE_S", 0.01)
    role = setup()["role"]
    text = f"KMS key is invalid for CreateGrant to Grantee {role}. Please contact KMS"
    headers = (("content-type", "application/json"), ("x-amzn-errortype", "InvalidParameterValueException"))
    answer = Answer(400, headers, json.dumps({"Type": "User", "message": text}).encode())
    guard.refuse(on("PUT", f"/2015-03-31/functions/{name}/configuration"), answer, times=2)
    assert "timeout 900 -> 30" in wren("deploy_lambda", "--timeout", 30).stdout
