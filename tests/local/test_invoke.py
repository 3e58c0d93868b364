"""Invoke: every way in which an invocation can end, as AWS answers it."""

import json
import os
import re
import socket
import threading
import time

import pytest
from botocore.exceptions import ClientError

from .helpers import client_of, eventually, zipped


def refused(call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"], response


def test_a_value_comes_back_with_log_and_version(function, invoke):
    name = function("def handler(event, context):\n    print('hello')\n    return event\n")
    cold, warm = invoke(name, [1, "ä"]), invoke(name, [1, "ä"])
    assert cold.value == warm.value == [1, "ä"]
    assert cold.raw["StatusCode"] == 200
    assert cold.raw["ExecutedVersion"] == "$LATEST"
    request_id = warm.raw["ResponseMetadata"]["RequestId"]
    start, text, end, report, _ = warm.log.split("\n")
    assert start == f"START RequestId: {request_id} Version: $LATEST"
    assert text == "hello"
    assert end == f"END RequestId: {request_id}"
    assert re.match(
        rf"REPORT RequestId: {request_id}\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\t"
        r"Memory Size: 128 MB\tMax Memory Used: \d+ MB\t$",
        report,
    )
    assert "Init Duration" in cold.report


def test_the_context_is_aws_lambda_s(function, invoke):
    name = function(
        """
        import os

        def handler(event, context):
            return {
                "arn": context.invoked_function_arn, "id": context.aws_request_id, "memory": context.memory_limit_in_mb,
                "left": context.get_remaining_time_in_millis(), "group": context.log_group_name,
                "stream": context.log_stream_name, "name": context.function_name,
                "task": os.environ["LAMBDA_TASK_ROOT"], "cwd": os.getcwd(), "mine": os.environ["MINE"],
                "type": os.environ.get("HOME"), "tmp": os.environ["TMPDIR"],
            }
        """,
        Timeout=7,
        Environment={"Variables": {"MINE": "yes"}},
    )
    reply = invoke(name)
    value = reply.value
    assert value["id"] == reply.raw["ResponseMetadata"]["RequestId"]
    assert value["arn"] == f"arn:aws:lambda:us-east-1:123456789012:function:{name}"
    assert value["memory"] == "128"
    assert 6000 < value["left"] <= 7000
    assert value["group"] == f"/aws/lambda/{name}"
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", value["stream"])
    assert value["task"] == value["cwd"]
    assert value["mine"] == "yes"


def test_an_exception_is_an_unhandled_function_error(function, invoke):
    name = function("def handler(event, context):\n    raise ValueError('no ' + event)\n")
    reply = invoke(name, "good")
    assert reply.error == "Unhandled"
    assert reply.raw["StatusCode"] == 200
    assert reply.value["errorType"] == "ValueError"
    assert reply.value["errorMessage"] == "no good"
    assert "app.py" in reply.value["stackTrace"][0]
    assert "[ERROR] ValueError: no good" in reply.log


def test_a_timeout_kills_the_whole_process_group(function, invoke):
    name = function(
        """
        import subprocess, sys, time

        def handler(event, context):
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
            print("child", child.pid)
            time.sleep(1000)
        """,
        Timeout=1,
    )
    reply = invoke(name)
    request_id = reply.raw["ResponseMetadata"]["RequestId"]
    assert reply.value == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": f"RequestId: {request_id} Error: Task timed out after 1.00 seconds",
    }
    assert "Status: timeout" in reply.report
    assert f"{request_id} Task timed out after 1.00 seconds" in reply.log
    child = re.search(r"child (\d+)", reply.log)[1]
    eventually(lambda: not _runs(child))


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("os._exit(3)", "Runtime exited with error: exit status 3"),
        ("os._exit(0)", "Runtime exited without providing a reason"),
        ("sys.exit(1)", "Runtime exited with error: exit status 1"),
        ("os.kill(os.getpid(), 11)", "Runtime exited with error: signal: segmentation fault"),
    ],
)
def test_a_dying_runtime_is_told_at_once(function, invoke, statement, text):
    name = function(f"import os, sys\ndef handler(event, context):\n    {statement}\n", Timeout=60)
    began = time.monotonic()
    reply = invoke(name)
    assert time.monotonic() - began < 10
    assert reply.error == "Unhandled"
    assert reply.value["errorType"] == "Runtime.ExitError"
    assert reply.value["errorMessage"].endswith(f"Error: {text}")


def test_the_memory_limit_kills(function, invoke):
    source = """
        import time

        def handler(event, context):
            kept = b"x" * (event << 20)
            time.sleep(30)
        """
    name = function(source, MemorySize=128, Timeout=60)
    reply = invoke(name, 300)
    assert reply.value["errorType"] == "Runtime.OutOfMemory"
    assert re.search(r"Error: Runtime exited with error: signal: killed, at \d+ MB$", reply.value["errorMessage"])
    assert "Max Memory Used: 128 MB" in reply.report


def test_memory_of_child_processes_counts(function, invoke):
    name = function(
        """
        import subprocess, sys

        def handler(event, context):
            code = "import time; kept = b'x' * (300 << 20); time.sleep(30)"
            subprocess.run([sys.executable, "-c", code])
        """,
        Timeout=60,
    )
    assert invoke(name).value["errorType"] == "Runtime.OutOfMemory"


@pytest.mark.parametrize(
    ("source", "error_type", "text"),
    [
        ("import nowhere\n", "Runtime.ImportModuleError", "Unable to import module 'app': No module named 'nowhere'"),
        ("x = 1\n", "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'app'"),
        ("def handler(:\n", "Runtime.UserCodeSyntaxError", None),
        ("raise OSError('bad day')\n", "OSError", "bad day"),
        ("import sys; sys.exit(4)\n", "Runtime.ExitError", None),
    ],
)
def test_an_init_error_is_told_to_the_invoker(function, invoke, source, error_type, text):
    name = function(source)
    for _ in range(2):
        reply = invoke(name)
        assert reply.error == "Unhandled"
        assert reply.value["errorType"] == error_type
        assert text is None or reply.value["errorMessage"] == text
        if error_type != "Runtime.ExitError":
            assert reply.value["requestId"] == reply.raw["ResponseMetadata"]["RequestId"]


def test_an_init_that_never_ends_times_out(function, invoke):
    name = function("import time\ntime.sleep(1000)\n", Timeout=1)
    reply = invoke(name)
    assert reply.value["errorType"] == "Sandbox.Timedout"
    assert reply.value["errorMessage"].endswith("Task timed out after 1.00 seconds")


def test_an_unknown_python_is_an_init_error_that_says_so(function, invoke):
    name = function("def handler(event, context): pass\n", Runtime="python3.9")
    reply = invoke(name)
    assert reply.value["errorType"] == "Runtime.InvalidEntrypoint"
    assert "python3.9" in reply.value["errorMessage"]


def test_payload_limits(function, lambda_client, invoke):
    name = function("def handler(event, context):\n    return len(event) if isinstance(event, str) else 'x' * event\n")
    fits = 6_291_556 - 2
    reply = lambda_client.invoke(FunctionName=name, Payload=b'"%b"' % (b"x" * fits))
    assert json.loads(reply["Payload"].read()) == fits
    too_large = b'"%b"' % (b"x" * (fits + 1))
    assert refused(lambda_client.invoke, FunctionName=name, Payload=too_large)[:2] == (413, "RequestTooLargeException")
    event = b'"%b"' % (b"x" * (1_048_576 - 1))
    status, code, _ = refused(lambda_client.invoke, FunctionName=name, Payload=event, InvocationType="Event")
    assert (status, code) == (413, "RequestTooLargeException")

    assert len(invoke(name, fits).value) == fits
    overflow = invoke(name, fits + 1)
    assert overflow.error == "Unhandled"
    assert overflow.value == {
        "errorType": "Function.ResponseSizeTooLarge",
        "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
    }
    assert invoke(name, 3).value == "xxx"


def test_refusals(function, lambda_client):
    name = function("def handler(event, context): pass\n")
    status, code, _ = refused(lambda_client.invoke, FunctionName=name, Payload=b"{not json")
    assert (status, code) == (400, "InvalidRequestContentException")
    status, code, response = refused(lambda_client.invoke, FunctionName="nobody")
    assert (status, code) == (404, "ResourceNotFoundException")
    arn = "arn:aws:lambda:us-east-1:123456789012:function:nobody"
    assert response["Error"]["Message"] == f"Function not found: {arn}"
    assert refused(lambda_client.invoke, FunctionName=name, Qualifier="7")[:2] == (404, "ResourceNotFoundException")


def test_dry_run_runs_nothing(cloud, function, lambda_client):
    name = function("def handler(event, context): pass\n")
    before = cloud.stats()["lambda"]["invocations"]
    assert lambda_client.invoke(FunctionName=name, InvocationType="DryRun")["StatusCode"] == 204
    assert cloud.stats()["lambda"]["invocations"] == before


def test_warm_environments_are_reused_last_in_first_out(cloud, function, invoke, lambda_client):
    name = function(
        """
        import os, time

        def handler(event, context):
            time.sleep(event)
            return [os.getpid(), os.environ["TMPDIR"]]
        """
    )
    before = cloud.stats()["lambda"]["cold_starts"]
    first = invoke(name, 0).value
    assert [invoke(name, 0).value for _ in range(20)] == [first] * 20
    assert cloud.stats()["lambda"]["cold_starts"] == before + 1

    threads = [threading.Thread(target=invoke, args=(name, 0.5)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cloud.stats()["lambda"]["cold_starts"] == before + 8
    last = invoke(name, 0).value
    assert [invoke(name, 0).value for _ in range(5)] == [last] * 5


def test_many_environments_at_once(cloud, function, lambda_client):
    name = function("import time\ndef handler(event, context):\n    time.sleep(1.0)\n    return event\n", Timeout=30)
    before = cloud.stats()["lambda"]["cold_starts"]
    values = []

    def call(number):
        reply = lambda_client.invoke(FunctionName=name, Payload=str(number).encode())
        values.append(json.loads(reply["Payload"].read()))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(values) == list(range(64))
    assert 32 <= cloud.stats()["lambda"]["cold_starts"] - before <= 64


def test_reserved_concurrency_throttles(cloud, function, invoke, lambda_client):
    name = function("import time\ndef handler(event, context):\n    print('on')\n    time.sleep(event)\n", Timeout=30)
    lambda_client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    before = cloud.stats()["lambda"]
    running = threading.Thread(target=invoke, args=(name, 1.5))
    running.start()
    eventually(lambda: cloud.stats()["lambda"]["invocations"] == before["invocations"] + 1)
    status, code, response = refused(lambda_client.invoke, FunctionName=name, Payload=b"0")
    running.join()
    assert (status, code) == (429, "TooManyRequestsException")
    assert response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert cloud.stats()["lambda"]["throttles"] == before["throttles"] + 1
    assert invoke(name, 0).error is None
    lambda_client.delete_function_concurrency(FunctionName=name)
    assert "ReservedConcurrentExecutions" not in lambda_client.get_function_concurrency(FunctionName=name)
    with pytest.raises(ClientError, match="below its minimum value"):
        lambda_client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=901)


def test_the_function_outlives_a_client_that_hangs_up(cloud, s3, function, lambda_client):
    """A lost reply does not undo the invocation: this is why commits have to be idempotent."""
    s3.create_bucket(Bucket="hang-up")
    name = function(
        """
        import time

        def handler(event, context):
            time.sleep(1)
            print("survived")
        """
    )
    impatient = client_of(cloud, "lambda", config=_impatient())
    with pytest.raises(Exception, match=r"timed out|timeout"):
        impatient.invoke(FunctionName=name)
    logs = client_of(cloud, "logs")
    eventually(lambda: logs.filter_log_events(logGroupName=f"/aws/lambda/{name}", filterPattern="survived")["events"])


def _impatient():
    from botocore.config import Config

    return Config(read_timeout=0.3, retries={"total_max_attempts": 1})


def test_an_update_lets_a_running_invocation_finish(cloud, function, invoke, lambda_client):
    name = function("import time\ndef handler(event, context):\n    time.sleep(1)\n    return 'old'\n")
    before = cloud.stats()["lambda"]["invocations"]
    values = []
    running = threading.Thread(target=lambda: values.append(invoke(name).value))
    running.start()
    eventually(lambda: cloud.stats()["lambda"]["invocations"] == before + 1)
    code = zipped({"app.py": "def handler(event, context):\n    return 'new'\n"})
    lambda_client.update_function_code(FunctionName=name, ZipFile=code)
    assert invoke(name).value == "new"
    running.join()
    assert values == ["old"]


def test_tmp_is_the_environment_s_own_and_goes_with_it(function, invoke, lambda_client):
    name = function(
        """
        import os, tempfile

        def handler(event, context):
            return [tempfile.mkstemp()[1], os.environ["TMPDIR"]]
        """
    )
    file, directory = invoke(name).value
    assert file.startswith(directory)
    assert os.path.exists(file)
    lambda_client.update_function_configuration(FunctionName=name, Timeout=4)
    eventually(lambda: not os.path.exists(directory))


def test_code_in_the_function_reaches_the_local_s3_and_cannot_see_site_packages(function, invoke):
    name = function(
        """
        import importlib.util, os, sys

        def handler(event, context):
            return [os.environ["AWS_ENDPOINT_URL_S3"], importlib.util.find_spec("boto3") is None, sys.flags.no_site]
        """
    )
    endpoint, hidden, without_site = invoke(name).value
    assert endpoint.startswith("http://127.0.0.1:")
    assert hidden
    assert without_site == 1
    host, port = endpoint.removeprefix("http://").split(":")
    socket.create_connection((host, int(port))).close()
