"""`wren cleanup` removes what `wren setup` has made, and nothing else."""

import json
import os
from pathlib import Path

import pytest

from wren_backends import Config, WrenExecutor
from wren_backends.deploy.policies import trust_policy
from wren_backends.deploy.role import TAG
from wren_backends.local.options import BUCKET

from .conftest import states


def test_everything_goes_and_the_next_time_there_is_nothing(setup, wren, name, client, guard):
    made = setup("--size", 256, "--packages", "toolz", test=True)
    with WrenExecutor(1, mode="s3") as executor:
        assert executor.submit(abs, -1).result() == 1
    shown = wren("cleanup", "--dry-run").stdout
    assert "delete 2 objects of jobs" in shown, shown
    done = json.loads(wren("cleanup", "--yes", "--json").stdout)
    assert set(states(done).values()) == {"delete"}
    assert {what for what, _ in states(done)} == {"function", "log group", "layer", "role", "bucket", "settings"}
    assert made["bucket"] not in [one["Name"] for one in client("s3").list_buckets()["Buckets"]]
    assert name not in json.dumps(client("lambda").list_functions()["Functions"], default=str)
    assert name not in json.dumps(client("iam").list_roles(), default=str)
    assert client("logs").describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{name}")["logGroups"] == []
    assert (
        "LayerVersions" not in client("lambda").list_layer_versions(LayerName=f"{name}-packages")
        or not client("lambda").list_layer_versions(LayerName=f"{name}-packages")["LayerVersions"]
    )
    assert not Path(os.environ["XDG_CONFIG_HOME"], "wren", "wren.toml").exists()
    guard.asked.clear()
    assert "nothing of wren's is left" in wren("cleanup", "--yes", "--name", name).stdout
    assert guard.changes == []


def test_what_others_made_stays(setup, wren, name, client, guard):
    Path(os.environ["XDG_CONFIG_HOME"], "wren").mkdir(parents=True)
    settings = Path(os.environ["XDG_CONFIG_HOME"], "wren", "wren.toml")
    settings.write_text("# mine\nretries = 2  # often enough\n")
    setup("--bucket", BUCKET)
    client("s3").put_object(Bucket=BUCKET, Key=f"mine/{name}", Body=b"mine")
    client("s3").put_object(Bucket=BUCKET, Key="wren/jobs/j/job.json", Body=b"{}")
    lambda_client, iam = client("lambda"), client("iam")
    arn = lambda_client.get_function_configuration(FunctionName=name)["FunctionArn"]
    lambda_client.untag_resource(Resource=arn, TagKeys=[TAG])
    iam.attach_role_policy(RoleName=f"{name}-worker", PolicyArn=_policy(iam, name))
    written = settings.read_text()
    guard.asked.clear()
    done = states(json.loads(wren("cleanup", "--yes", "--json").stdout))
    assert set(done.values()) == {"keep"}, "a function that stays keeps what it needs"
    assert guard.changes == []
    assert settings.read_text() == written
    lambda_client.tag_resource(Resource=arn, Tags={TAG: name})
    done = states(json.loads(wren("cleanup", "--yes", "--json").stdout))
    assert done["function", name] == "delete"
    assert done["role", f"{name}-worker"] == "keep"
    assert done["bucket", BUCKET] == "update"
    assert client("s3").get_object(Bucket=BUCKET, Key=f"mine/{name}")["Body"].read() == b"mine"
    assert client("s3").get_object(Bucket=BUCKET, Key="wren/jobs/j/job.json")
    assert settings.read_text() == "# mine\nretries = 2  # often enough\n"


def test_in_a_bucket_of_ones_own_what_functions_share_takes_a_word(setup, wren, name, client):
    s3, bucket = client("s3"), f"shared-{name}"
    s3.create_bucket(Bucket=bucket)
    setup("--bucket", bucket)
    for key in ("wren/packages/p", "wren/jobs/j/job.json", f"aws/lambda/async/{name}/r", "aws/lambda/async/other/r"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    place = ("cleanup", "--name", name, "--bucket", bucket, "--yes")
    assert "2 objects of jobs and packages below" in wren(*place).stdout
    assert keys(s3, bucket) == {"aws/lambda/async/other/r", "wren/jobs/j/job.json", "wren/packages/p"}
    rules = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert {one["ID"] for one in rules} == {"wren-backends wren/jobs/", "wren-backends wren/blobs/"}
    assert "delete 2 objects of jobs" in wren(*place, "--delete-shared-objects").stdout
    assert keys(s3, bucket) == {"aws/lambda/async/other/r"}


def test_a_name_that_is_not_the_settings_takes_nothing_of_theirs(setup, wren, name, client, guard):
    bucket = setup()["bucket"]
    for key in ("wren/packages/p", "wren/jobs/j/job.json", f"aws/lambda/async/{name}/r"):
        client("s3").put_object(Bucket=bucket, Key=key, Body=b"")
    settings = Path(os.environ["XDG_CONFIG_HOME"], "wren", "wren.toml").read_text()
    guard.asked.clear()
    shown = wren("cleanup", "--yes", "--name", "typo", "--delete-shared-objects", "--delete-foreign-objects").stdout
    assert f"it is function '{name}''s" in shown
    assert f"they are function '{name}''s" in shown
    assert guard.changes == []
    assert len(keys(client("s3"), bucket)) == 3
    assert Path(os.environ["XDG_CONFIG_HOME"], "wren", "wren.toml").read_text() == settings


def test_a_bucket_for_two_functions_goes_with_the_last(setup, wren, name, client):
    bucket, second, s3 = setup()["bucket"], f"{name}second", client("s3")
    few = ("setup", "--name", second, "--bucket", bucket, "--no-packages", "--no-test", "--yes", "--no-config")
    assert f"made for function '{name}'" in wren(*few).stdout
    s3.put_object(Bucket=bucket, Key="wren/packages/p", Body=b"")
    s3.put_object(Bucket=bucket, Key=f"aws/lambda/async/{second}/r", Body=b"")
    first = wren("cleanup", "--name", name, "--bucket", bucket, "--yes", "--delete-foreign-objects").stdout
    assert f"it is used for '{second}' too" in first
    assert keys(s3, bucket) == {"wren/packages/p", f"aws/lambda/async/{second}/r"}
    done = states(json.loads(wren("cleanup", "--name", second, "--bucket", bucket, "--yes", "--json").stdout))
    assert done["function", second] == "delete"
    assert keys(s3, bucket) == {"wren/packages/p"}
    done = states(json.loads(wren("cleanup", "--name", name, "--bucket", bucket, "--yes", "--json").stdout))
    assert done["bucket", bucket] == "delete"


def test_versions_of_the_layer_that_others_published_stay(setup, wren, name, client):
    layer, lambda_client = f"{name}-packages", client("lambda")
    zipped = {"ZipFile": b"PK\x05\x06" + bytes(18)}
    theirs = lambda_client.publish_layer_version(LayerName=layer, Description="mine", Content=zipped)["Version"]
    setup("--packages", "toolz")
    done = states(json.loads(wren("cleanup", "--yes", "--json").stdout))
    assert [(what, one) for what, one in done if what == "layer"] == [("layer", f"{layer}:{theirs + 1}")]
    assert [one["Version"] for one in lambda_client.list_layer_versions(LayerName=layer)["LayerVersions"]] == [theirs]


def test_what_was_taken_over_stays(setup, wren, name, client):
    role, lambda_client = f"{name}-worker", client("lambda")
    arn = client("iam").create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps(trust_policy()))["Role"]["Arn"]
    theirs = {"Runtime": "python3.11", "Handler": "theirs.main", "Code": {"ZipFile": b"PK\x05\x06" + bytes(18)}}
    lambda_client.create_function(FunctionName=name, Role=arn, **theirs)
    setup("--adopt", test=True)
    again = setup("--adopt")
    assert set(states(again).values()) == {"unchanged"}
    done = states(json.loads(wren("cleanup", "--yes", "--json").stdout))
    assert (done["function", name], done["role", role]) == ("keep", "keep")
    assert "took it over" in wren("delete_lambda", "--yes").stdout
    lambda_client.delete_function(FunctionName=name)
    done = states(json.loads(wren("cleanup", "--yes", "--json").stdout))
    assert done.pop(("role", role)) == "keep"
    assert set(done.values()) == {"delete"}


@pytest.mark.parametrize("tags", [{}, {"team": "a"}, {TAG: "another"}], ids=["untagged", "tagged", "of another"])
def test_a_log_group_that_was_there_before_is_left_alone(setup, wren, name, client, tags):
    logs, group = client("logs"), f"/aws/lambda/{name}"
    logs.create_log_group(logGroupName=group, **({"tags": tags} if tags else {}))
    for _ in range(2):  # the second time the function is ours, too
        [step] = [step for step in setup()["steps"] if step["what"] == "log group"]
        assert step["state"] == "unchanged"
        assert "its lines are kept for ever" in step["notes"][0]
    done = states(json.loads(wren("cleanup", "--yes", "--json").stdout))
    assert done.pop(("log group", group)) == "keep"
    assert set(done.values()) == {"delete"}
    [found] = logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    assert "retentionInDays" not in found
    assert logs.list_tags_for_resource(resourceArn=found["arn"].removesuffix(":*"))["tags"] == tags


def test_a_function_with_the_name_of_a_size_is_its_own(setup, wren, name, client, guard):
    bucket, other = setup()["bucket"], f"{name}-256mb"
    few = ("setup", "--bucket", bucket, "--no-packages", "--no-test", "--yes", "--no-config")
    wren(*few, "--name", other)
    guard.asked.clear()
    assert set(states(setup()).values()) == {"unchanged"}
    assert guard.changes == []
    refused = wren("deploy_lambda", "--size", 256, status=1).stderr
    assert f"was made for function '{other}'" in refused
    assert "--adopt" in refused
    assert client("lambda").get_function(FunctionName=other)["Tags"] == {TAG: other}


def test_a_bucket_with_versions_is_emptied_to_the_last(setup, wren, name, client, guard):
    bucket, s3 = setup()["bucket"], client("s3")
    s3.put_object(Bucket=bucket, Key="wren/jobs/j/job.json", Body=b"of before")
    for status, body in (("Enabled", b"1"), ("Suspended", b"2"), ("Enabled", b"3")):
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})
        s3.put_object(Bucket=bucket, Key="wren/jobs/j/job.json", Body=body)
    s3.delete_object(Bucket=bucket, Key="wren/jobs/j/job.json")
    assert "null" in {one["VersionId"] for one in s3.list_object_versions(Bucket=bucket)["Versions"]}
    guard.asked.clear()
    wren("cleanup", "--yes")
    assert guard.changes.count("s3:DeleteObjectVersion") == 4  # three versions, one of them null, and the mark
    assert "s3:DeleteObject" not in guard.changes  # which would only add a mark
    assert bucket not in [one["Name"] for one in s3.list_buckets()["Buckets"]]


def keys(s3, bucket):
    return {one["Key"] for one in s3.list_objects_v2(Bucket=bucket).get("Contents", ())}


def _policy(iam, name):
    document = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}}
    return iam.create_policy(PolicyName=name, PolicyDocument=json.dumps(document))["Policy"]["Arn"]


def test_a_bucket_of_ours_with_objects_of_others_takes_a_word(setup, wren, name, client):
    bucket = setup()["bucket"]
    client("s3").put_object(Bucket=bucket, Key="thesis.pdf", Body=b"mine")
    kept = wren("cleanup", answers="y\n").stdout
    assert "1 objects in it are not wren's, such as thesis.pdf" in kept
    assert client("s3").get_object(Bucket=bucket, Key="thesis.pdf")["Body"].read() == b"mine"
    gone = wren("cleanup", "--name", name, "--bucket", bucket, "--delete-foreign-objects", "--yes").stdout
    assert "and 1 others, such as thesis.pdf" in gone
    assert bucket not in [one["Name"] for one in client("s3").list_buckets()["Buckets"]]


def test_interrupted_the_next_one_goes_on(setup, wren, name, guard):
    setup("--size", 256)
    bucket, runs, guard.changes_left = Config.load().bucket, 0, 1
    place = ("--name", name, "--bucket", bucket)
    while (done := wren("cleanup", "--yes", *place, status=None)).exit_code:
        assert "it goes on where it stopped" in done.stderr
        guard.changes_left, runs = 1, runs + 1
        assert runs < 20
    guard.reset()
    assert runs > 3
    assert "nothing of wren's is left" in wren("cleanup", "--yes", "--name", name).stdout


def test_single_steps(setup, wren, name, client):
    setup("--size", 256)
    assert f"{name}-256mb" in wren("delete-lambda", "--yes").stdout
    assert "There is no function" in wren("delete_lambda", "--yes").stdout
    wren("delete_role", "--yes")
    assert "There is no role" in wren("delete-role", "--yes").stdout
    iam = client("iam")
    iam.create_role(RoleName=f"{name}-worker", AssumeRolePolicyDocument=json.dumps(trust_policy()))
    assert "wren did not make it" in wren("delete_role", "--yes").stdout
    with pytest.raises(AssertionError):
        wren("delete_role", "--yes", "--no-such-option")


def test_a_made_up_name_finds_nothing(wren, name):
    assert "nothing of wren's is left" in wren("cleanup", "--name", name, "--yes").stdout
