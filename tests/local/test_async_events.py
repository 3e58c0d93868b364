"""Event invocations: 202, retries, throttles, and the record of an event that failed for good."""

import json

import pytest
from botocore.exceptions import ClientError

from .helpers import client_of, eventually


def with_destination(lambda_client, s3, name, **settings):
    bucket = f"failures-{name.lower().replace('_', '-')[:40]}".rstrip("-")
    s3.create_bucket(Bucket=bucket)
    destination = {"OnFailure": {"Destination": f"arn:aws:s3:::{bucket}"}}
    lambda_client.put_function_event_invoke_config(FunctionName=name, DestinationConfig=destination, **settings)
    return bucket


def record_in(s3, bucket):
    def look():
        listed = s3.list_objects_v2(Bucket=bucket).get("Contents", [])
        return listed and (
            listed[0]["Key"],
            json.loads(s3.get_object(Bucket=bucket, Key=listed[0]["Key"])["Body"].read()),
        )

    return eventually(look)


def log_lines(cloud, name, pattern):
    logs = client_of(cloud, "logs")
    return logs.filter_log_events(logGroupName=f"/aws/lambda/{name}", filterPattern=pattern)["events"]


def test_an_event_is_accepted_and_runs(cloud, function, lambda_client):
    name = function("def handler(event, context):\n    print('ran', event)\n")
    assert lambda_client.invoke(FunctionName=name, InvocationType="Event", Payload=b"7")["StatusCode"] == 202
    eventually(lambda: _logged(cloud, name))


def _logged(cloud, name):
    try:
        return log_lines(cloud, name, "ran")
    except ClientError:  # the log group appears with the first line
        return []


def test_a_failing_event_is_tried_three_times_and_then_recorded(cloud, s3, function, lambda_client):
    name = function("def handler(event, context):\n    raise ValueError('never')\n")
    bucket = with_destination(lambda_client, s3, name)
    before = cloud.stats()["lambda"]["invocations"]
    reply = lambda_client.invoke(FunctionName=name, InvocationType="Event", Payload=b'{"n": 1}')
    key, record = record_in(s3, bucket)
    assert cloud.stats()["lambda"]["invocations"] == before + 3
    assert key.startswith(f"aws/lambda/async/{name}/")
    day, _, file = key.removeprefix(f"aws/lambda/async/{name}/").rpartition("/")
    assert file.startswith(day.replace("/", "-") + "T")
    request_id = reply["ResponseMetadata"]["RequestId"]
    assert record["version"] == "1.0"
    assert record["requestContext"] == {
        "requestId": request_id,
        "functionArn": f"arn:aws:lambda:us-east-1:123456789012:function:{name}:$LATEST",
        "condition": "RetriesExhausted",
        "approximateInvokeCount": 3,
    }
    assert record["requestPayload"] == {"n": 1}
    expected = {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"}
    assert record["responseContext"] == expected
    assert record["responsePayload"]["errorMessage"] == "never"
    assert record["responsePayload"]["requestId"] == request_id


def test_retries_can_be_switched_off(cloud, s3, function, lambda_client):
    name = function("import os\ndef handler(event, context):\n    os._exit(9)\n")
    bucket = with_destination(lambda_client, s3, name, MaximumRetryAttempts=0)
    before = cloud.stats()["lambda"]["invocations"]
    lambda_client.invoke(FunctionName=name, InvocationType="Event", Payload=b"{}")
    _, record = record_in(s3, bucket)
    assert cloud.stats()["lambda"]["invocations"] == before + 1
    assert record["requestContext"]["approximateInvokeCount"] == 1
    assert record["responsePayload"]["errorType"] == "Runtime.ExitError"


def test_a_throttled_event_waits_its_turn(cloud, s3, function, lambda_client):
    s3.create_bucket(Bucket="turns")
    name = function("import time\ndef handler(event, context):\n    time.sleep(0.05)\n    print('turn', event)\n")
    lambda_client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    lambda_client.put_function_event_invoke_config(FunctionName=name, MaximumRetryAttempts=0)
    before = cloud.stats()["lambda"]
    for number in range(10):
        lambda_client.invoke(FunctionName=name, InvocationType="Event", Payload=str(number).encode())
    after = eventually(lambda: (now := cloud.stats()["lambda"])["invocations"] == before["invocations"] + 10 and now)
    assert after["throttles"] > before["throttles"]


def test_an_event_that_is_too_old_is_given_up(s3, function, lambda_client):
    name = function("def handler(event, context): pass\n")
    bucket = with_destination(lambda_client, s3, name, MaximumEventAgeInSeconds=60)
    lambda_client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    lambda_client.invoke(FunctionName=name, InvocationType="Event", Payload=b"{}")
    _, record = record_in(s3, bucket)
    assert record["requestContext"]["condition"] == "EventAgeExceeded"
    assert record["requestContext"]["approximateInvokeCount"] == 0
    assert "responsePayload" not in record


def test_the_configuration_is_kept_and_checked(function, lambda_client):
    name = function("def handler(event, context): pass\n")
    with pytest.raises(ClientError, match="doesn't have an EventInvokeConfig"):
        lambda_client.get_function_event_invoke_config(FunctionName=name)
    lambda_client.put_function_event_invoke_config(FunctionName=name, MaximumRetryAttempts=1)
    lambda_client.update_function_event_invoke_config(FunctionName=name, MaximumEventAgeInSeconds=90)
    shown = lambda_client.get_function_event_invoke_config(FunctionName=name)
    assert (shown["MaximumRetryAttempts"], shown["MaximumEventAgeInSeconds"]) == (1, 90)
    queue = {"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:123456789012:queue"}}
    with pytest.raises(ClientError, match="not supported by the local cloud"):
        lambda_client.put_function_event_invoke_config(FunctionName=name, DestinationConfig=queue)
    lambda_client.delete_function_event_invoke_config(FunctionName=name)
    with pytest.raises(ClientError, match="doesn't have an EventInvokeConfig"):
        lambda_client.delete_function_event_invoke_config(FunctionName=name)
