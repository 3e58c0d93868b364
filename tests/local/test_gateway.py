"""The front door: who is let in, where requests go, what is counted."""

import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from botocore.exceptions import ClientError

from .helpers import client_of


@pytest.mark.parametrize(
    ("service", "call", "code"),
    [
        ("lambda", lambda client: client.list_functions(), "UnrecognizedClientException"),
        ("sts", lambda client: client.get_caller_identity(), "InvalidClientTokenId"),
        ("logs", lambda client: client.describe_log_groups(), "UnrecognizedClientException"),
        ("s3", lambda client: client.list_buckets(), "InvalidAccessKeyId"),
    ],
)
def test_an_unknown_key_is_refused(cloud, service, call, code):
    client = client_of(cloud, service, aws_access_key_id="AKIAUNKNOWN")
    with pytest.raises(ClientError) as caught:
        call(client)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert caught.value.response["Error"]["Code"] == code


@pytest.mark.parametrize(
    ("service", "call", "code"),
    [
        ("lambda", lambda client: client.list_functions(), "InvalidSignatureException"),
        ("iam", lambda client: client.list_roles(), "SignatureDoesNotMatch"),
        ("s3", lambda client: client.list_buckets(), "SignatureDoesNotMatch"),
    ],
)
def test_a_wrong_secret_is_refused(cloud, service, call, code):
    with pytest.raises(ClientError) as caught:
        call(client_of(cloud, service, aws_secret_access_key="wrong"))
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert caught.value.response["Error"]["Code"] == code


def test_a_wrong_region_is_refused(cloud):
    with pytest.raises(ClientError, match="valid region"):
        client_of(cloud, "lambda", region_name="eu-west-1").list_functions()


def test_an_old_signature_is_refused(cloud):
    client = client_of(cloud, "lambda")

    def backdate(request, **_):
        request.headers.replace_header("X-Amz-Date", "20200101T000000Z")

    client.meta.events.register("before-send", lambda request, **_: _backdated(request))
    with pytest.raises(ClientError, match="Signature expired"):
        client.list_functions()


def _backdated(request):
    request.headers["X-Amz-Date"] = b"20200101T000000Z"


def test_an_unsigned_request_is_refused(cloud):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{cloud.endpoint_url}/2015-03-31/functions")
    with caught.value as answer:
        assert answer.code == 403
        assert answer.headers["x-amzn-ErrorType"] == "MissingAuthenticationTokenException"
        assert answer.read() == b'{"message": "Missing Authentication Token"}'


def test_s3_through_the_front_door(cloud, s3):
    s3.create_bucket(Bucket="front-door")
    large = bytes(range(256)) * 40_000  # larger than any buffer on the way
    s3.put_object(Bucket="front-door", Key="folder/a b+ä", Body=large)
    assert s3.get_object(Bucket="front-door", Key="folder/a b+ä")["Body"].read() == large
    part = s3.get_object(Bucket="front-door", Key="folder/a b+ä", Range="bytes=256-511")
    assert part["Body"].read() == bytes(range(256))
    assert s3.head_object(Bucket="front-door", Key="folder/a b+ä")["ContentLength"] == len(large)
    s3.put_object(Bucket="front-door", Key="empty", Body=b"")
    assert s3.get_object(Bucket="front-door", Key="empty")["Body"].read() == b""
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket="front-door")["Contents"]]
    assert keys == ["empty", "folder/a b+ä"]
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "front-door", "Key": "empty"})
    with urllib.request.urlopen(url) as answer:
        assert answer.status == 200
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket="front-door", Key="nothing")
    assert caught.value.response["Error"]["Code"] == "NoSuchKey"
    s3.delete_object(Bucket="front-door", Key="empty")


def test_of_two_conditional_writes_one_wins(s3):
    s3.create_bucket(Bucket="conditional")

    def put(number):
        try:
            s3.put_object(Bucket="conditional", Key="one", Body=b"%d" % number, IfNoneMatch="*")
        except ClientError as error:
            return error.response["ResponseMetadata"]["HTTPStatusCode"]
        return 200

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(put, range(2))) == [200, 412]


def test_requests_are_counted_where_they_are_answered(cloud, s3):
    s3.create_bucket(Bucket="counted")
    s3.put_object(Bucket="counted", Key="warm", Body=b"x")
    before = cloud.stats()["s3"]
    for number in range(3):
        s3.put_object(Bucket="counted", Key=f"k{number}", Body=b"x")
    s3.get_object(Bucket="counted", Key="k1")["Body"].read()
    direct = client_of(cloud, "s3", endpoint_url=cloud.s3_endpoint_url)
    direct.get_object(Bucket="counted", Key="k2")["Body"].read()
    s3.list_objects_v2(Bucket="counted")
    after = cloud.stats()["s3"]
    grown = {kind: after[kind] - before.get(kind, 0) for kind in after if after[kind] != before.get(kind, 0)}
    assert grown == {"PUT": 3, "GET": 2, "LIST": 1, "total": 6}


def test_logs_are_found_through_boto3(cloud, function, invoke):
    name = function("def handler(event, context):\n    print('said', event)\n    return context.log_stream_name\n")
    stream = invoke(name, 1).value
    logs = client_of(cloud, "logs")
    group = f"/aws/lambda/{name}"
    assert [one["logStreamName"] for one in logs.describe_log_streams(logGroupName=group)["logStreams"]] == [stream]
    invoke(name, 2)
    events = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True)["events"]
    said = [one["message"] for one in events if one["message"].startswith("said")]
    assert said == ["said 1", "said 2"]
    found = logs.filter_log_events(logGroupName=group, filterPattern="REPORT")["events"]
    assert len(found) == 2


def test_iam_and_sts_answer(cloud):
    iam = client_of(cloud, "iam")
    iam.create_role(RoleName="a-role", AssumeRolePolicyDocument='{"Version": "2012-10-17", "Statement": []}')
    assert iam.get_role(RoleName="a-role")["Role"]["Arn"] == "arn:aws:iam::123456789012:role/a-role"
    assert client_of(cloud, "sts").get_caller_identity()["Account"] == "123456789012"


def test_a_foreign_client_needs_only_the_environment(cloud, monkeypatch):
    for name, value in cloud.environment().items():
        monkeypatch.setenv(name, value)
    session = boto3.Session()
    assert session.client("lambda").list_functions()["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert session.client("s3").list_buckets()["ResponseMetadata"]["HTTPStatusCode"] == 200
