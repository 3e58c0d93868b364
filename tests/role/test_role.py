"""The role that the worker runs under and the client's policy: enough for every call, and for nothing else."""

import json
import os

import obstore
import pytest
from moto.iam.access_control import IAMPolicy, PermissionResult
from obstore.exceptions import PermissionDeniedError
from obstore.store import S3Store
from servers import ADMIN, ROLE, SCOPE, allows, client_of
from signals import mark, marks, wait_for

from lambda_worker.protocol import outcome_folder
from wren_backends import EnvironmentLostError, WrenExecutor, wren_get
from wren_backends.deploy.policies import client_policy

MB = 1_000_000
SOON_S = 30.0


def key_in_use():
    return os.environ["AWS_ACCESS_KEY_ID"]


def fail(text):
    raise LookupError(text)


def die_once(path):
    mark(path)
    if marks(path) == 1:
        os._exit(3)
    return "alive"


def remember(value):
    os.environ["REMEMBERED"] = value


def recall():
    return os.environ["REMEMBERED"]


def read(bucket, key):
    """What a call can do that looks around with what it finds in its environment."""
    store = S3Store(bucket, region="us-east-1", virtual_hosted_style_request=False, client_options={"allow_http": True})
    return bytes(obstore.get(store, key).bytes())


def keys_below(bucket, prefix):
    listed = client_of("s3", bucket.server_url, ADMIN).list_objects_v2(Bucket=SCOPE.bucket, Prefix=prefix)
    return [one["Key"] for one in listed.get("Contents", ())]


def committed(bucket, executor):
    return keys_below(bucket, f"{SCOPE.prefix}/{outcome_folder(executor.job_id)}")


# Enough: calls of every kind run.


def test_calls_run_under_the_role(careful_executor, bucket):
    """The function is this module's, which travels as a bundle of modules."""
    assert careful_executor.submit(key_in_use).result(SOON_S) == bucket.worker["aws_access_key_id"]


@pytest.mark.parametrize("size", [5 * MB, 20 * MB], ids=["one-put", "multipart"])
def test_large_arguments_and_results_travel_as_objects(careful_executor, bucket, size):
    data = os.urandom(size)
    assert careful_executor.submit(bytes.swapcase, data).result(SOON_S) == data.swapcase()
    assert keys_below(bucket, f"{SCOPE.prefix}/jobs/{careful_executor.job_id}/data/")


def test_intermediate_values_of_a_graph_are_put_read_and_deleted(careful, bucket):
    with WrenExecutor(1, connection=careful, inline_limit_bytes=0) as executor:
        graph = {"a": (os.urandom, MB), "b": (len, "a"), "c": (max, "a"), "d": (max, "b", "c")}
        assert wren_get(graph, "d", executor=executor) == MB
        assert executor.journal.counts["s3.worker.PUT"] >= 1
    assert executor.journal.counts["intermediates.deleted"] == 1
    assert keys_below(bucket, f"{SCOPE.prefix}/jobs/{executor.job_id}/data/") == []


def test_errors_come_back(careful_executor):
    with pytest.raises(LookupError, match="nothing there"):
        careful_executor.submit(fail, "nothing there").result(SOON_S)


@pytest.mark.parametrize("mode", ["direct", "s3"])
def test_an_initializer_runs(careful, mode):
    with WrenExecutor(1, remember, ("this",), mode=mode, connection=careful, inline_limit_bytes=0) as executor:
        assert executor.submit(recall).result(SOON_S) == "this"


def test_an_outcome_is_committed_before_the_reply(careful, bucket):
    with WrenExecutor(1, connection=careful, commit_after_s=0) as executor:
        assert executor.submit(pow, 2, 5).result(SOON_S) == 32
        assert len(committed(bucket, executor)) == 1


def test_a_further_attempt_looks_for_what_is_committed_and_commits(careful, bucket, tmp_path):
    """It asks for an outcome that is not there, to which AWS says that it is forbidden."""
    with WrenExecutor(1, connection=careful) as executor:
        assert executor.submit(die_once, str(tmp_path / "tried")).result(SOON_S) == "alive"
        assert len(committed(bucket, executor)) == 1


@pytest.mark.parametrize("mode", ["direct", "s3"])
def test_what_has_gone_from_the_bucket_is_sent_again(careful, bucket, mode):
    """The worker has to be told that functions and modules are gone; what is forbidden would not be sent again."""
    admin = client_of("s3", bucket.server_url, ADMIN)
    gone = []

    def remove(happening):
        if happening.name == "blob.uploaded" and happening.fields["digest"] not in gone:
            gone.append(happening.fields["digest"])
            for key in keys_below(bucket, f"{SCOPE.prefix}/blobs/{gone[-1]}"):
                admin.delete_object(Bucket=SCOPE.bucket, Key=key)

    ballast = os.urandom(200_000)  # makes the function a blob; it is another one in each mode
    with WrenExecutor(1, mode=mode, connection=careful, on_event=remove) as executor:
        assert executor.submit(lambda: len(ballast)).result(SOON_S) == 200_000
        assert executor.journal.counts["blob.uploaded"] > len(gone) > 0


def test_lambdas_record_of_a_failure_is_written_under_the_role_and_read_by_the_client(careful, bucket, cloud):
    """The local Lambda service writes it as the owner of its own bucket; from there it goes where the role puts it."""
    records = f"aws/lambda/async/{SCOPE.function}/"
    own = {"aws_access_key_id": cloud.access_key_id, "aws_secret_access_key": cloud.secret_access_key}
    local = client_of("s3", cloud.s3_endpoint_url, own)
    local.create_bucket(Bucket=SCOPE.bucket)
    with WrenExecutor(1, mode="s3", connection=careful, max_attempts=1) as executor:
        future = executor.submit(os._exit, 3)
        [one] = wait_for(lambda: local.list_objects_v2(Bucket=SCOPE.bucket, Prefix=records).get("Contents"))
        record = local.get_object(Bucket=SCOPE.bucket, Key=one["Key"])["Body"].read()
        bucket.client_of("worker").put_object(Bucket=SCOPE.bucket, Key=one["Key"], Body=record)
        assert type(future.exception(SOON_S)) is EnvironmentLostError


# Nothing else: S3.


def on(bucket, key="private/x"):
    return {"Bucket": bucket, "Key": key}


OURS = f"{SCOPE.prefix}/jobs/j/outcomes/x"
ANYBODYS = {"Principal": "*", "Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::spare-bucket/*"}
POLICY = f'{{"Version": "2012-10-17", "Statement": [{str(ANYBODYS).replace(chr(39), chr(34))}]}}'

FORBIDDEN = {
    "get beside the prefix": lambda s3: s3.get_object(**on(SCOPE.bucket)),
    "get below a prefix that begins alike": lambda s3: s3.get_object(**on(SCOPE.bucket, "some/projects/jobs/x")),
    "get from another bucket": lambda s3: s3.get_object(**on("another-bucket", OURS)),
    "put beside the prefix": lambda s3: s3.put_object(**on(SCOPE.bucket, "private/new")),
    "put at the prefix itself": lambda s3: s3.put_object(**on(SCOPE.bucket, f"{SCOPE.prefix}/elsewhere")),
    "put into another bucket": lambda s3: s3.put_object(**on("another-bucket", OURS)),
    "put another function's failure": lambda s3: s3.put_object(**on(SCOPE.bucket, "aws/lambda/async/other/x")),
    "begin a multipart upload beside": lambda s3: s3.create_multipart_upload(**on(SCOPE.bucket)),
    "delete an outcome": lambda s3: s3.delete_object(**on(SCOPE.bucket, OURS)),
    "delete beside the prefix": lambda s3: s3.delete_object(**on(SCOPE.bucket)),
    "list the whole bucket": lambda s3: s3.list_objects_v2(Bucket=SCOPE.bucket),
    "list beside the prefix": lambda s3: s3.list_objects_v2(Bucket=SCOPE.bucket, Prefix="private/"),
    "list a prefix that begins alike": lambda s3: s3.list_objects_v2(Bucket=SCOPE.bucket, Prefix="some/projects/"),
    "list another bucket": lambda s3: s3.list_objects_v2(Bucket="another-bucket", Prefix=f"{SCOPE.prefix}/jobs/"),
    "create a bucket": lambda s3: s3.create_bucket(Bucket="one-more-bucket"),
    "publish an object": lambda s3: s3.put_object_acl(**on("spare-bucket", OURS), ACL="public-read"),
    "publish a bucket": lambda s3: s3.put_bucket_policy(Bucket="spare-bucket", Policy=POLICY),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_s3_refuses_both_what_only_the_owner_may_do(bucket, what):
    for who in ("worker", "client"):
        assert not allows(lambda who=who: FORBIDDEN[what](bucket.client_of(who))), who


@pytest.mark.parametrize("what", [one for one in FORBIDDEN if not one.startswith("delete")])
def test_the_owner_may(bucket, what):
    """What is refused above is refused for want of rights, not because the request is wrong."""
    assert allows(lambda: FORBIDDEN[what](client_of("s3", bucket.server_url, ADMIN)))


def test_the_worker_does_not_write_what_calls_share_nor_the_client_outcomes(bucket):
    """They do not replace each other's objects."""
    worker, client = bucket.client_of("worker"), bucket.client_of("client")
    blob, outcome = f"{SCOPE.prefix}/blobs/new", f"{SCOPE.prefix}/jobs/j/outcomes/new"
    assert not allows(lambda: worker.put_object(**on(SCOPE.bucket, blob)))
    assert allows(lambda: client.put_object(**on(SCOPE.bucket, blob)))
    assert not allows(lambda: client.put_object(**on(SCOPE.bucket, outcome)))
    assert allows(lambda: worker.put_object(**on(SCOPE.bucket, outcome)))


def test_the_worker_reads_its_packages_and_nobody_here_writes_them(bucket):
    """Whoever deploys the function does."""
    worker, client = bucket.client_of("worker"), bucket.client_of("client")
    archive = on(SCOPE.bucket, f"{SCOPE.prefix}/packages/x")
    client_of("s3", bucket.server_url, ADMIN).put_object(**archive)
    assert allows(lambda: worker.get_object(**archive))
    assert not allows(lambda: worker.get_object(**on(SCOPE.bucket, f"{SCOPE.prefix}/packages-of-others/x")))
    for refused in (
        worker.put_object,
        worker.delete_object,
        client.get_object,
        client.put_object,
        client.delete_object,
    ):
        assert not allows(lambda refused=refused: refused(**archive)), refused
    assert not allows(lambda: worker.list_objects_v2(Bucket=SCOPE.bucket, Prefix=f"{SCOPE.prefix}/packages/"))


@pytest.mark.parametrize("who", ["worker", "client"])
def test_nothing_goes_by_deleting_many_at_once(bucket, who):
    """S3 answers 200 to such a request, whatever it does."""
    kept = [f"{SCOPE.prefix}/blobs/x", OURS, "private/x"]
    doomed = {"Objects": [{"Key": key} for key in kept], "Quiet": True}
    allows(lambda: bucket.client_of(who).delete_objects(Bucket=SCOPE.bucket, Delete=doomed))
    assert [keys_below(bucket, key) for key in kept] == [[key] for key in kept]


@pytest.mark.parametrize("who", ["worker", "client"])
def test_no_bucket_is_shown(bucket, account, who):
    """SeaweedFS shows the buckets that somebody may list, AWS and moto all or none."""
    assert bucket.client_of(who).list_buckets()["Buckets"] == []
    assert not allows(account.client_of("s3", who).list_buckets)
    assert allows(account.client_of("s3", "admin").list_buckets)


def test_a_call_that_looks_around_finds_the_same_limits(careful_executor):
    assert careful_executor.submit(read, SCOPE.bucket, OURS).result(SOON_S) == b"theirs"
    for place in ((SCOPE.bucket, "private/x"), ("another-bucket", OURS)):
        assert type(careful_executor.submit(read, *place).exception(SOON_S)) is PermissionDeniedError


# Nothing else: other services, and the role itself.

OTHER_SERVICES = {
    "see users": ("iam", "list_users", {}),
    "make a user": ("iam", "create_user", {"UserName": "intruder"}),
    "see the role": ("iam", "get_role", {"RoleName": ROLE}),
    "give the role more": (
        "iam",
        "put_role_policy",
        {"RoleName": ROLE, "PolicyName": "more", "PolicyDocument": POLICY.replace('"Principal": "*", ', "")},
    ),
    "take on a role": (
        "sts",
        "assume_role",
        {"RoleArn": f"arn:aws:iam::123456789012:role/{ROLE}", "RoleSessionName": "intruder"},
    ),
    "see logs": ("logs", "describe_log_groups", {}),
    "see queues": ("sqs", "list_queues", {}),
    "see secrets": ("secretsmanager", "list_secrets", {}),
}


@pytest.mark.parametrize("what", OTHER_SERVICES)
def test_other_services_refuse_both_what_an_administrator_may_do(account, what):
    service, operation, arguments = OTHER_SERVICES[what]
    for who in ("worker", "client"):
        assert not allows(lambda who=who: getattr(account.client_of(service, who), operation)(**arguments)), who
    if operation not in ("put_role_policy", "assume_role"):  # the role stays as it is
        assert allows(lambda: getattr(account.client_of(service, "admin"), operation)(**arguments))


FUNCTION = f"arn:aws:lambda:us-east-1:123456789012:function:{SCOPE.function}"
LOG = f"arn:aws:logs:us-east-1:123456789012:log-group:/aws/lambda/{SCOPE.function}"

LAMBDA_AND_LOGS = {
    ("lambda:InvokeFunction", FUNCTION): {"client"},
    ("lambda:GetFunctionConfiguration", FUNCTION): {"client"},
    ("lambda:InvokeFunction", f"{FUNCTION}-2"): set(),
    ("lambda:GetFunctionConfiguration", f"{FUNCTION}-2"): set(),
    ("lambda:GetFunction", FUNCTION): set(),
    ("lambda:UpdateFunctionCode", FUNCTION): set(),
    ("lambda:UpdateFunctionConfiguration", FUNCTION): set(),
    ("lambda:DeleteFunction", FUNCTION): set(),
    ("lambda:ListFunctions", "*"): set(),
    ("iam:PassRole", f"arn:aws:iam::123456789012:role/{ROLE}"): set(),
    # This is the resource that AWS checks, not the bare group.
    ("logs:CreateLogGroup", f"{LOG}:log-stream:"): {"worker"},
    ("logs:CreateLogStream", f"{LOG}:log-stream:2026/01/01/[$LATEST]0"): {"worker"},
    ("logs:PutLogEvents", f"{LOG}:log-stream:2026/01/01/[$LATEST]0"): {"worker"},
    ("logs:PutLogEvents", f"{LOG}-2:log-stream:2026/01/01/[$LATEST]0"): set(),
    ("logs:GetLogEvents", f"{LOG}:log-stream:2026/01/01/[$LATEST]0"): set(),
    ("logs:FilterLogEvents", f"{LOG}:log-stream:"): {"client"},
    ("logs:DescribeLogStreams", f"{LOG}:log-stream:"): {"client"},
    ("logs:FilterLogEvents", f"{LOG}-2:log-stream:"): set(),
    ("logs:CreateLogGroup", f"{LOG}-2:log-stream:"): set(),
    ("logs:DeleteLogGroup", f"{LOG}:log-stream:"): set(),
}


@pytest.mark.parametrize(("action", "resource"), LAMBDA_AND_LOGS)
def test_rights_to_lambda_and_logs(account, action, resource):
    """No server here enforces these, so moto's evaluation of policies is asked what it makes of the documents."""
    policies = {"worker": account.policy, "client": client_policy(SCOPE)}
    asked = {
        who: IAMPolicy(json.dumps(policy)).is_action_permitted(action, resource) for who, policy in policies.items()
    }
    assert {who for who, found in asked.items() if found is PermissionResult.PERMITTED} == LAMBDA_AND_LOGS[
        action, resource
    ]


def test_nobody_but_lambda_takes_on_the_role(bucket):
    """Not even the owner of everything; the one whose trust was widened for these tests shows that it is the trust."""
    sts = client_of("sts", bucket.server_url, ADMIN)
    arn = "arn:aws:iam::123456789012:role/"
    assert not allows(lambda: sts.assume_role(RoleArn=f"{arn}as-made", RoleSessionName="owner"))
    assert allows(lambda: sts.assume_role(RoleArn=f"{arn}{ROLE}", RoleSessionName="owner"))
