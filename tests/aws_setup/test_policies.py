"""The printed policies suffice for what they are printed for, and hold nothing that it does not take."""

import json

import pytest

from wren_backends import Config, DeploymentError, WrenExecutor
from wren_backends.deploy.permissions import all_policies

from .guard import Asked, granted

OF_ADMINISTRATORS = 6144
"""Most characters of a managed policy, white space not counted (IAM quotas)."""


@pytest.fixture
def printed(wren, name):
    """What `--print-policy` prints, for this test's bucket."""
    more = ("--subnet", "subnet-1", "--security-group", "sg-1")

    def read(*arguments):
        shown = wren(
            "setup", "--print-policy", "--name", name, "--bucket", f"wren-for-{name}", *more, *arguments
        ).stdout
        return json.loads(shown)

    return read


def statements(*documents):
    return [one for document in documents for one in document["Statement"]]


def test_set_up_jobs_and_clean_up_run_under_their_policies_and_use_all_of_them(setup, wren, name, printed, guard):
    policies = printed()
    network = ("--subnet", "subnet-1", "--security-group", "sg-1", "--reserved-concurrency", 2)
    guard.policy = statements(policies["setup"], policies["client"])
    setup("--bucket", f"wren-for-{name}", "--packages", "toolz", *network, test=True)
    setup("--bucket", f"wren-for-{name}", "--timeout", 40, "--tag", "a=b", test=True)
    used = set(guard.asked)
    guard.policy = statements(policies["client"])
    for mode in ("direct", "s3"):
        with WrenExecutor(1, mode=mode) as executor:
            assert executor.submit(len, bytes(300_000)).result() == 300_000
    assert "Have an administrator grant you" in wren("setup", "--yes", "--no-packages", status=1).stderr
    guard.asked.clear()
    guard.policy = statements(policies["cleanup"])
    wren("cleanup", "--yes", "--bucket", f"wren-for-{name}")
    # A bucket that is named is not looked for, a new one is not public, and a new role's trust is right; archives of
    # packages are other tests'; this S3 lists each object with a version.
    spared = {
        "s3:ListAllMyBuckets",
        "s3:GetBucketPolicyStatus",
        "s3:GetObject",
        "s3:PutObject",
        "s3:AbortMultipartUpload",
        "s3:DeleteObject",
        "iam:UpdateAssumeRolePolicy",
        "lambda:UpdateFunctionCode",
    }
    for policy, asked in (("setup", used), ("cleanup", set(guard.asked))):
        for statement in policies[policy]["Statement"]:
            asked_for = {one.action for one in asked if granted([statement], one)}
            others = {"s3:PutLifecycleConfiguration"} if policy == "cleanup" else set()  # of a bucket that stays
            assert set(statement["Action"]) - asked_for <= spared | others, statement["Sid"]


def test_they_grant_nothing_beside(printed, name):
    policies = printed()
    for policy in ("setup", "cleanup", "client"):
        found = policies[policy]["Statement"]
        place, role = "arn:aws:lambda:us-east-1:123456789012", f"arn:aws:iam::123456789012:role/{name}-worker"
        beyond = [
            Asked("lambda:UpdateFunctionCode", f"{place}:function:{name}er"),
            Asked("lambda:DeleteFunction", f"{place}:function:{name}er"),
            Asked("lambda:InvokeFunction", f"{place}:function:another"),
            Asked("iam:PutRolePolicy", "arn:aws:iam::123456789012:role/another"),
            Asked("iam:PassRole", role, {"iam:PassedToService": "ec2.amazonaws.com"}),
            Asked("iam:AttachRolePolicy", role),
            Asked("s3:DeleteBucket", "arn:aws:s3:::another"),
            Asked("s3:PutObject", "arn:aws:s3:::another/wren/blobs/x"),
            Asked("s3:PutBucketPolicy", f"arn:aws:s3:::wren-for-{name}"),
            Asked("logs:DeleteLogGroup", "arn:aws:logs:us-east-1:123456789012:log-group:/aws/lambda/another"),
        ]
        assert [one for one in beyond if granted(found, one)] == []


def test_a_bucket_that_is_not_wren_s_own_is_not_to_be_emptied_or_deleted(wren, name):
    shown = wren("setup", "--print-policy", "--name", name, "--bucket", "mine", "--region", "us-east-1").stdout
    found = json.loads(shown)["cleanup"]["Statement"]
    for action, resource, wanted in (
        ("s3:DeleteBucket", "arn:aws:s3:::mine", False),
        ("s3:DeleteObject", "arn:aws:s3:::mine/theirs", False),
        ("s3:DeleteObject", "arn:aws:s3:::mine/wren/jobs/j/job.json", True),
        ("s3:DeleteObject", f"arn:aws:s3:::mine/aws/lambda/async/{name}/x", True),
    ):
        assert granted(found, Asked(action, resource)) == wanted, (action, resource)


def test_they_cover_layers_of_others_roles_with_a_path_and_other_partitions(wren, name):
    arn = "arn:aws-cn:lambda:cn-north-1:210987654321:layer:theirs:3"
    shown = wren("setup", "--print-policy", "--name", name, "--region", "cn-north-1", "--layer", arn).stdout
    assert "arn:aws:" not in shown
    found = json.loads(shown)["setup"]["Statement"]
    role = f"arn:aws-cn:iam::123456789012:role/team/{name}-worker"
    for asked in (Asked("lambda:GetLayerVersion", arn), Asked("iam:GetRole", role)):
        assert granted(found, asked), asked
    assert not granted(found, Asked("iam:GetRole", f"{role}s"))


def test_they_fit_into_managed_policies_and_need_no_aws(printed, monkeypatch, guard):
    for document in printed("--size", "3008").values():
        assert len(json.dumps(document, separators=(",", ":"))) <= OF_ADMINISTRATORS
    assert guard.asked == []


def test_without_a_bucket_they_are_for_the_one_that_set_up_would_name(setup, name, guard):
    scope_free = all_policies(Config(function=name, region="us-east-1"), f"{name}-worker")
    guard.policy = statements(scope_free["setup"])
    assert setup()["bucket"].startswith("wren-123456789012-us-east-1-")


def test_another_function_is_out_of_reach_of_the_client(setup, name, guard, wren):
    setup()
    policies = all_policies(Config(function="another", bucket="another", region="us-east-1"), "another-worker")
    guard.policy = statements(policies["client"])
    with pytest.raises(DeploymentError, match="lambda:GetFunctionConfiguration"):
        WrenExecutor(1, function=name, prefix="refused")


def test_the_guard_grants_as_iam_does():
    """What these tests rely on."""
    allow = {"Effect": "Allow", "Action": ["s3:Get*"], "Resource": ["arn:aws:s3:::b/x/*"]}
    assert granted([allow], Asked("s3:GetObject", "arn:aws:s3:::b/x/y"))
    assert not granted([allow], Asked("s3:GetObject", "arn:aws:s3:::b/y"))
    assert not granted([allow | {"Effect": "Deny"}, allow], Asked("s3:GetObject", "arn:aws:s3:::b/x/y"))
