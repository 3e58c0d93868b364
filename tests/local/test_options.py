"""What can be set when a cloud is started, on a shared cloud that is small, slow and forgetful."""

import json
import threading
import time

import pytest
from botocore.exceptions import ClientError

from wren_backends.local import cloud as local_cloud
from wren_backends.local.options import BUCKET, CloudOptions, memory_for_weed_mb, parse_arguments

from .helpers import ROLE, RUNTIME, client_of, eventually, zipped

OPTIONS = CloudOptions(
    account_concurrency=2, idle_ttl_s=0.5, invoke_latency_ms=50, cold_latency_ms=300, s3_latency_ms=40
)


@pytest.fixture(scope="module")
def small_cloud(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield local_cloud.start_shared(OPTIONS)
        local_cloud.stop_shared()


@pytest.fixture(scope="module")
def client(small_cloud):
    client = client_of(small_cloud, "lambda")
    source = "import time\ndef handler(event, context):\n    time.sleep(event)\n"
    client.create_function(
        FunctionName="f",
        Runtime=RUNTIME,
        Role=ROLE,
        Handler="app.handler",
        Code={"ZipFile": zipped({"app.py": source})},
    )
    return client


def timed(client, event=0):
    began = time.monotonic()
    reply = client.invoke(FunctionName="f", Payload=json.dumps(event).encode())
    assert "FunctionError" not in reply
    return time.monotonic() - began


def test_latencies_are_added_and_idle_environments_end(small_cloud, client):
    assert timed(client) >= 0.35
    assert 0.05 <= timed(client) < 0.3
    eventually(lambda: small_cloud.stats()["lambda"]["environments"] == 0)
    assert timed(client) >= 0.35
    assert small_cloud.stats()["lambda"]["cold_starts"] == 2


def test_requests_to_s3_wait(small_cloud):
    s3 = client_of(small_cloud, "s3")
    s3.put_object(Bucket=BUCKET, Key="x", Body=b"content")
    began = time.monotonic()
    assert s3.get_object(Bucket=BUCKET, Key="x")["Body"].read() == b"content"
    assert time.monotonic() - began >= 0.04


def test_the_account_s_concurrency_is_a_limit(small_cloud, client):
    before = small_cloud.stats()["lambda"]["invocations"]
    threads = [threading.Thread(target=timed, args=(client, 1.5)) for _ in range(2)]
    for thread in threads:
        thread.start()
    eventually(lambda: small_cloud.stats()["lambda"]["invocations"] == before + 2)
    with pytest.raises(ClientError) as caught:
        client.invoke(FunctionName="f", Payload=b"0")
    for thread in threads:
        thread.join()
    assert caught.value.response["Error"]["Code"] == "TooManyRequestsException"
    assert caught.value.response["Reason"] == "ConcurrentInvocationLimitExceeded"


def test_options_survive_the_command_line():
    assert parse_arguments(OPTIONS.arguments()).options == OPTIONS


@pytest.mark.parametrize(("machine_gb", "weed_mb"), [(1, 512), (4, 512), (8, 1024), (64, 2048)])
def test_the_s3_server_may_take_an_eighth_of_the_memory(machine_gb, weed_mb):
    assert memory_for_weed_mb(machine_gb << 30) == weed_mb
