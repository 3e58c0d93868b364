"""The role on AWS: made once, brought up to date, and never taken from somebody else unasked."""

import json
from dataclasses import replace

import pytest
from servers import SCOPE, client_of

from lambda_worker.protocol import BlobRef, outcome_key
from wren_backends import DeploymentError
from wren_backends.deploy.policies import client_policy, trust_policy, worker_policy
from wren_backends.deploy.role import ADOPTED, TAG, create_role

SOMEBODY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
}
READS_DATA = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::data/*"}],
}


@pytest.fixture
def iam(account):
    """IAM for a user who has the rights that making a role takes, and no others."""
    return account.client_of("iam", "operator")


@pytest.fixture
def admin(account):
    return account.client_of("iam", "admin")


@pytest.fixture
def name(request, admin):
    """Name of a role of this test's own, which is gone after it."""
    name = request.node.name[:64]
    yield name
    if name not in [role["RoleName"] for role in admin.list_roles()["Roles"]]:
        return
    for policy in admin.list_role_policies(RoleName=name)["PolicyNames"]:
        admin.delete_role_policy(RoleName=name, PolicyName=policy)
    for policy in admin.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
        admin.detach_role_policy(RoleName=name, PolicyArn=policy["PolicyArn"])
    admin.delete_role(RoleName=name)


def as_it_stands(admin, name):
    role = admin.get_role(RoleName=name)["Role"]
    policies = {
        policy: admin.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
        for policy in admin.list_role_policies(RoleName=name)["PolicyNames"]
    }
    tags = {tag["Key"]: tag["Value"] for tag in role.get("Tags", ())}
    return role["AssumeRolePolicyDocument"], policies, tags


def test_a_role_is_made_once(iam, admin, name):
    made = create_role(iam, name, SCOPE)
    assert made.arn == f"arn:aws:iam::123456789012:role/{name}"
    assert made.change == "created"
    expected = trust_policy(), {"wren-backends": worker_policy(SCOPE)}, {TAG: SCOPE.function}
    assert as_it_stands(admin, name) == expected
    assert create_role(iam, name, SCOPE) == replace(made, change="unchanged")
    assert as_it_stands(admin, name) == expected


def test_a_role_is_brought_up_to_date(iam, admin, name):
    create_role(iam, name, SCOPE)
    elsewhere = replace(SCOPE, prefix="elsewhere")
    assert create_role(iam, name, elsewhere).change == "updated"
    assert as_it_stands(admin, name)[1] == {"wren-backends": worker_policy(elsewhere)}


def test_trust_that_was_widened_is_narrowed_again(iam, admin, name):
    create_role(iam, name, SCOPE)
    admin.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(SOMEBODY))
    assert create_role(iam, name, SCOPE).change == "updated"
    assert as_it_stands(admin, name)[0] == trust_policy()


def test_a_role_whose_making_was_interrupted_is_completed(iam, admin, name):
    create_role(iam, name, SCOPE)
    admin.delete_role_policy(RoleName=name, PolicyName="wren-backends")
    assert create_role(iam, name, SCOPE).change == "updated"
    assert as_it_stands(admin, name)[1] == {"wren-backends": worker_policy(SCOPE)}


def test_policies_from_elsewhere_are_left_alone_and_named(iam, admin, name):
    create_role(iam, name, SCOPE)
    admin.put_role_policy(RoleName=name, PolicyName="reads-data", PolicyDocument=json.dumps(READS_DATA))
    attached = admin.create_policy(PolicyName=f"more-{name}", PolicyDocument=json.dumps(READS_DATA))["Policy"]
    admin.attach_role_policy(RoleName=name, PolicyArn=attached["Arn"])
    made = create_role(iam, name, SCOPE)
    assert (made.change, made.others) == ("unchanged", ("reads-data", f"more-{name}"))
    assert as_it_stands(admin, name)[1]["reads-data"] == READS_DATA


@pytest.mark.parametrize("tags", [[], [{"Key": TAG, "Value": "another"}]], ids=["nobodys", "anothers"])
def test_somebody_elses_role_is_refused_untouched_unless_told_otherwise(iam, admin, name, tags):
    admin.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(SOMEBODY), Tags=tags)
    before = as_it_stands(admin, name)
    with pytest.raises(DeploymentError, match="--adopt") as caught:
        create_role(iam, name, SCOPE)
    assert repr(name) in str(caught.value)
    assert as_it_stands(admin, name) == before
    assert create_role(iam, name, SCOPE, adopt=True).change == "updated"
    assert as_it_stands(admin, name) == (
        trust_policy(),
        {"wren-backends": worker_policy(SCOPE)},
        {TAG: SCOPE.function, ADOPTED: "true"},
    )


def test_who_may_not_make_roles_learns_what_it_takes(account, name):
    with pytest.raises(DeploymentError, match="PutRolePolicy") as caught:
        create_role(account.client_of("iam", "client"), name, SCOPE)
    assert "wren create_role --print" in str(caught.value)
    assert "AccessDenied" in str(caught.value)


def test_iam_that_cannot_be_reached(name):
    nowhere = client_of("iam", "http://127.0.0.1:1", {"aws_access_key_id": "a", "aws_secret_access_key": "b"})
    with pytest.raises(DeploymentError, match="check credentials and network"):
        create_role(nowhere, name, SCOPE)


def resources(policy):
    return {one for statement in policy["Statement"] for one in statement["Resource"]}


def test_the_keys_are_those_of_the_wire():
    below = f"{SCOPE.bucket_arn}/{SCOPE.prefix}/"
    written = resources({"Statement": [s for s in worker_policy(SCOPE)["Statement"] if s["Sid"] == "WriteOutcomes"]})
    assert written == {f"{below}{outcome_key('j', 0).partition('/')[0]}/*"}
    assert f"{below}{BlobRef('0' * 64, 1, 'j').key.partition('/')[0]}/*" in written
    assert f"{below}{BlobRef('0' * 64, 1).key.partition('/')[0]}/*" in resources(client_policy(SCOPE))


@pytest.mark.parametrize("prefix", ["", "/"])
def test_without_a_prefix_the_rest_of_the_bucket_is_not_theirs(prefix):
    for policy in (worker_policy(replace(SCOPE, prefix=prefix)), client_policy(replace(SCOPE, prefix=prefix))):
        assert f"{SCOPE.bucket_arn}/jobs/*" in resources(policy)
        assert f"{SCOPE.bucket_arn}/*" not in resources(policy)


def test_wildcards_in_a_prefix_are_no_wildcards():
    found = resources(worker_policy(replace(SCOPE, prefix="*/a?$")))
    assert f"{SCOPE.bucket_arn}/${{*}}/a${{?}}${{$}}/jobs/*" in found


def test_the_whole_bucket_only_when_asked_for():
    more = worker_policy(replace(SCOPE, whole_bucket=True))
    assert f"{SCOPE.bucket_arn}/*" in resources(more)
    assert not any("Condition" in statement for statement in more["Statement"])
    assert client_policy(replace(SCOPE, whole_bucket=True)) == client_policy(SCOPE)


def test_other_partitions():
    found = resources(worker_policy(replace(SCOPE, partition="aws-cn")))
    assert found
    assert all(one.startswith("arn:aws-cn:") for one in found)
