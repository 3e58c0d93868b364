"""Whatever goes wrong ends soon, in an error that names the call, the cause and the next step."""

import contextlib
import io
import os
import re
import signal
import sys
import threading
import time
import warnings
import zipfile

import boto3
import numpy as np
import pytest
from signals import mark, marks

from lambda_worker.protocol import FUNCTION_KEY_VARIABLE, IN_WORKER_VARIABLE
from wren_backends import (
    CallExitedError,
    ConfigError,
    DeploymentError,
    EnvironmentLostError,
    InvocationTimeoutError,
    OutOfMemoryError,
    ProtocolMismatchError,
    SerializationError,
    StorageError,
    TamperedObjectError,
    WrenExecutor,
)
from wren_backends.deploy.package import HANDLER, function_zip

SOON_S = 20.0
"""Generous: an error that is worth its name comes in a second or two, but the machine may be busy."""


@pytest.fixture(autouse=True)
def soon():
    """Every test here has to be over soon."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < 2 * SOON_S


def error_of(future):
    """How the call ended, once it did, which has to be soon."""
    error = future.exception(timeout=SOON_S)
    assert error is not None
    return error


def fine(x):
    return x + 1


def test_an_executor_inside_a_call_is_refused_at_once(executor):
    def nested():
        with WrenExecutor() as inner:
            return inner.submit(fine, 1).result()

    error = error_of(executor.submit(nested))
    assert type(error) is ConfigError
    assert "cannot be made inside a call" in str(error)
    assert "submit from the client" in str(error)


# ---- what cannot be pickled


def test_a_function_that_cannot_be_pickled(executor):
    lock = threading.Lock()

    def holds_a_lock():
        return lock

    error = error_of(executor.submit(holds_a_lock))
    assert type(error) is SerializationError
    assert "holds_a_lock" in str(error)
    assert "lock" in str(error)
    assert executor.submit(fine, 1).result() == 2


@pytest.mark.parametrize("make", [threading.Lock, lambda: (one for one in ()), sys._getframe])
def test_an_argument_that_cannot_be_pickled(executor, make):
    error = error_of(executor.submit(fine, make()))
    assert type(error) is SerializationError
    assert "the arguments of test_bad_input.fine" in str(error)
    assert "make them inside the function" in str(error)


def test_an_argument_whose_pickling_raises(executor):
    class Stubborn:
        def __reduce__(self):
            raise KeyError("stubborn")

    error = error_of(executor.submit(fine, Stubborn()))
    assert type(error) is SerializationError
    assert "stubborn" in str(error)


def test_a_result_that_cannot_be_pickled(any_mode_executor):
    error = error_of(any_mode_executor.submit(threading.Lock))
    assert type(error) is SerializationError
    assert "call 0" in str(error)
    assert "its result, of type _thread.lock, cannot be pickled" in str(error)
    assert any_mode_executor.submit(fine, 1).result() == 2


def test_an_exception_that_cannot_be_pickled_is_told_in_text(executor):
    class HoldsLockError(Exception):
        pass

    def fails():
        raise HoldsLockError(threading.Lock())

    error = error_of(executor.submit(fails))
    assert type(error) is SerializationError
    assert "call 0" in str(error)
    assert "in fails" in str(error)
    assert "HoldsLockError" in str(error)


def _only_there(value):
    if not os.environ.get(IN_WORKER_VARIABLE):
        raise ImportError("there is no such thing here")
    return value


class OnlyThere:
    def __reduce__(self):
        return _only_there, (3,)


class OnlyThereError(Exception):
    def __reduce__(self):
        return _only_there, (3,)


class TurnsToTextError(Exception):
    def __reduce__(self):
        return str, ("no exception any more",)


def raise_(kind):
    raise kind("boom")


def test_a_result_that_cannot_be_unpickled_here(executor):
    error = error_of(executor.submit(OnlyThere))
    assert type(error) is SerializationError
    assert "its result came back but could not be unpickled here" in str(error)
    assert "there is no such thing here" in str(error)


def test_an_exception_that_cannot_be_unpickled_here_keeps_its_traceback(executor):
    error = error_of(executor.submit(raise_, OnlyThereError))
    assert type(error) is SerializationError
    assert "in raise_" in str(error.__cause__)


def test_an_exception_that_comes_back_as_something_else(executor):
    error = error_of(executor.submit(raise_, TurnsToTextError))
    assert isinstance(error, Exception)
    assert executor.submit(fine, 1).result(timeout=SOON_S) == 2


def test_an_argument_that_cannot_be_unpickled_there(executor):
    class OnlyHere:
        def __reduce__(self):
            return _refuse, ()

    error = error_of(executor.submit(fine, OnlyHere()))
    assert type(error) is SerializationError
    assert "could not be unpickled in the worker" in str(error)
    assert "not in a worker" in str(error)


def _refuse():
    if os.environ.get(IN_WORKER_VARIABLE):
        raise ImportError("not in a worker")


# ---- showing what was printed and warned


class BrokenStream(io.StringIO):
    """Such as a terminal that cannot encode what is printed."""

    def write(self, text):
        raise UnicodeEncodeError("ascii", text, 0, 1, "ordinal not in range(128)")


def test_a_stream_that_cannot_show_the_text_does_not_cost_the_result(executor, monkeypatch):
    future = executor.submit(lambda: print("ä") or 5)
    monkeypatch.setattr(sys, "stdout", BrokenStream())
    assert future.result(timeout=SOON_S) == 5


def test_a_warning_that_is_an_error_here_ends_the_call_as_in_a_thread(executor):
    def warns():
        warnings.warn("careful", UserWarning, stacklevel=1)
        return 5

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        error = executor.submit(warns).exception(timeout=SOON_S)
    assert repr(error) == "UserWarning('careful')"
    assert "a filter of this process makes it an error" in error.__notes__[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert executor.submit(warns).result(timeout=SOON_S) == 5


def test_a_listener_that_raises_does_not_cost_the_result(cloud):
    def listener(happening):
        if happening.name == "invocation.finished":
            raise KeyError("in a listener")

    with WrenExecutor(2, on_event=listener) as executor:
        assert executor.submit(fine, 1).result(timeout=SOON_S) == 2


# ---- calls that end their process


@pytest.mark.parametrize(
    ("leave", "told"), [(sys.exit, "SystemExit(3)"), (lambda code: raise_(KeyboardInterrupt), "KeyboardInterrupt")]
)
def test_a_call_that_exits(any_mode_executor, leave, told):
    error = error_of(any_mode_executor.submit(leave, 3))
    assert type(error) is CallExitedError
    assert "call 0" in str(error)
    assert told in str(error)
    assert any_mode_executor.submit(fine, 1).result() == 2


def die(path):
    mark(path)
    os._exit(3)


def test_a_log_that_ends_with_the_program_is_not_offered(run_script, tmp_path):
    done = run_script(
        """
        import os
        from wren_backends import WrenExecutor

        with WrenExecutor(1, max_attempts=1) as executor:
            print(executor.submit(os._exit, 1).exception())
        """,
        XDG_STATE_HOME=str(tmp_path),  # where no word is of a local cloud, so it starts its own
    )
    assert re.search(r"a log that ends with this program: .*`wren local up`, run this again", done.stdout), done
    assert "--job" not in done.stdout


def test_a_call_that_kills_its_environment_is_tried_again_so_many_times(executor, tmp_path):
    tried = str(tmp_path / "tried")
    futures = [executor.submit(fine, number) for number in range(5)]
    bad = executor.submit(die, tried)
    futures += [executor.submit(fine, number) for number in range(5, 10)]
    error = error_of(bad)
    assert type(error) is EnvironmentLostError
    assert "call 5 (test_bad_input.die)" in str(error)
    assert f"call 5 (test_bad_input.die) of job {executor.job_id}, AWS request" in str(error)
    assert f"`wren logs --job {executor.job_id}`" in str(error)
    assert "attempt 3 of 3" in str(error)
    assert "log" in str(error)
    assert marks(tried) == 3
    assert [future.result() for future in futures] == list(range(1, 11))
    assert executor.submit(fine, 1).result() == 2


def test_max_attempts(cloud, tmp_path):
    tried = str(tmp_path / "tried")
    with WrenExecutor(2, max_attempts=1) as executor:
        assert type(error_of(executor.submit(die, tried))) is EnvironmentLostError
    assert marks(tried) == 1


def test_a_call_whose_environment_died_once_succeeds(executor, tmp_path):
    def dies_once(path):
        mark(path)
        if marks(path) == 1:
            os._exit(1)
        return "alive"

    assert executor.submit(dies_once, str(tmp_path / "tried")).result(timeout=SOON_S) == "alive"


def test_a_segmentation_fault(cloud):
    def faults():
        os.kill(os.getpid(), signal.SIGSEGV)

    with WrenExecutor(2, max_attempts=1) as executor:
        assert type(error_of(executor.submit(faults))) is EnvironmentLostError


def test_a_call_that_kills_its_environment_costs_its_fellow_travellers_nothing(cloud):
    def maybe_die(number):
        if number == 30:
            os._exit(1)
        return number

    with WrenExecutor(1, max_attempts=2) as executor:
        executor.submit(maybe_die, 0).result()  # from now on its duration is known, so that calls travel together
        futures = [executor.submit(maybe_die, number) for number in range(60)]
        assert type(error_of(futures[30])) is EnvironmentLostError
        assert [future.result() for future in futures if future is not futures[30]] == [
            number for number in range(60) if number != 30
        ]
        assert executor.journal.counts["invocation.split"] >= 1


# ---- limits


def test_the_memory_limit(cloud):
    def fills_memory():
        held = []
        for _ in range(60):
            held.append(b"x" * (50 << 20))
            time.sleep(0.02)  # memory is looked at every 50 ms
        return len(held)

    with WrenExecutor(2, memory_mb=512) as executor:
        error = error_of(executor.submit(fills_memory))
        assert type(error) is OutOfMemoryError
        assert "call 0" in str(error)
        assert "512 MB" in str(error)
        assert "WREN_MEMORY_MB" in str(error)
        assert executor.submit(fine, 1).result() == 2


def test_the_time_limit(cloud):
    with WrenExecutor(2, timeout_s=3) as executor:  # which is no time to import anything in
        assert executor.submit(abs, -2).result() == 2
        error = error_of(executor.submit(time.sleep, 600))
        assert type(error) is InvocationTimeoutError
        assert "call 1 (time.sleep)" in str(error)
        assert "time limit of 3 s" in str(error)
        assert "WREN_TIMEOUT_S" in str(error)
        assert executor.submit(abs, -2).result() == 2


# ---- the bucket


def blob_key(s3, executor, size):
    """Key of the one blob of so many bytes."""
    where = executor.connection
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=where.bucket, Prefix=f"{where.prefix}/blobs/")
    (key,) = [one["Key"] for page in pages for one in page.get("Contents", []) if one["Size"] == size]
    return key


@pytest.fixture
def s3(cloud):
    return client_of(cloud, "s3")


def client_of(cloud, service):
    return boto3.client(
        service,
        endpoint_url=cloud.endpoint_url,
        aws_access_key_id=cloud.access_key_id,
        aws_secret_access_key=cloud.secret_access_key,
        region_name=cloud.region,
    )


def test_a_blob_that_was_deleted_is_said_and_sent_again(cloud, s3):
    array = np.arange(300_001, dtype=np.uint8)
    with WrenExecutor(1, max_attempts=1) as executor:
        total = executor.submit(np.sum, array).result()
        s3.delete_object(Bucket=executor.connection.bucket, Key=blob_key(s3, executor, array.nbytes))
        executor.submit(os._exit, 1).exception()  # and with the environment its cache
        error = error_of(executor.submit(np.sum, array))
        assert type(error) is StorageError
        assert "call 2" in str(error)
        assert "Submit it again" in str(error)
        assert executor.submit(np.sum, array).result() == total


def test_a_blob_that_was_changed_is_not_used(cloud, s3):
    array = np.arange(300_002, dtype=np.uint8)
    with WrenExecutor(1, max_attempts=1) as executor:
        executor.submit(np.sum, array).result()
        key = blob_key(s3, executor, array.nbytes)
        s3.put_object(Bucket=executor.connection.bucket, Key=key, Body=b"\0" * array.nbytes)
        executor.submit(os._exit, 1).exception()
        error = error_of(executor.submit(np.sum, array))
        s3.delete_object(Bucket=executor.connection.bucket, Key=key)
        assert type(error) is TamperedObjectError
        assert "call 2" in str(error)
        assert "not unpickled" in str(error)


# ---- what is deployed, and as whom: as on AWS, with the local cloud behind AWS's own variables


@pytest.fixture
def aws(cloud, monkeypatch, s3):
    """Settings of a client on "AWS" with a bucket and a function; variables lead to the local cloud."""
    for name, value in cloud.environment().items():
        monkeypatch.setenv(name, value)
    with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou, s3.exceptions.BucketAlreadyExists):
        s3.create_bucket(Bucket="wren-tests")
    with WrenExecutor(2) as executor:  # makes a function that works
        function = executor.connection.function
    return {"cloud": "aws", "bucket": "wren-tests", "function": function, "max_workers": 2}


@pytest.fixture
def deploy(cloud, aws):
    """Create a function that differs from a good one in what is given; it is deleted after the test."""
    client = client_of(cloud, "lambda")
    good = client.get_function_configuration(FunctionName=aws["function"])
    made = []

    def create(name, code=None, **changes):
        settings = {
            "FunctionName": name,
            "Runtime": good["Runtime"],
            "Role": good["Role"],
            "Handler": HANDLER,
            "Code": {"ZipFile": code or function_zip()},
            "Layers": [layer["Arn"] for layer in good["Layers"]],
            "MemorySize": good["MemorySize"],
            "Timeout": 30,
            "Environment": {"Variables": {FUNCTION_KEY_VARIABLE: "ab" * 32}},
        }
        client.create_function(**{**settings, **changes})
        made.append(name)
        return {**aws, "function": name}

    yield create
    for name in made:
        with contextlib.suppress(client.exceptions.ResourceNotFoundException):
            client.delete_function(FunctionName=name)


def changed_zip(name, change):
    """The function's zip with one file changed."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(function_zip())) as old, zipfile.ZipFile(packed, "w") as new:
        for one in old.infolist():
            data = old.read(one)
            new.writestr(one, change(data.decode()).encode() if one.filename == name else data)
    return packed.getvalue()


def test_the_good_settings_work(aws):
    with WrenExecutor(**aws) as executor:
        assert not executor.connection.is_local
        assert executor.submit(fine, 1).result(timeout=SOON_S) == 2
        assert executor.submit(len, bytes(1_000_000)).result(timeout=SOON_S) == 1_000_000


def test_a_function_of_another_protocol(deploy, monkeypatch):
    code = changed_zip("lambda_worker/protocol.py", lambda text: text.replace("\nPROTOCOL = ", "\nPROTOCOL = 999 or "))
    settings = deploy("another-protocol", code)
    monkeypatch.setenv("WREN_FUNCTION", settings.pop("function"))
    with WrenExecutor(**settings) as executor:
        error = error_of(executor.submit(fine, 1))
    assert type(error) is ProtocolMismatchError
    for part in ("call 0 (test_bad_input.fine)", "999", "'another-protocol'", "wren deploy_lambda"):
        assert part in str(error)


def test_a_function_of_another_python(deploy):
    theirs = "python3.12" if sys.version_info[:2] != (3, 12) else "python3.13"
    settings = deploy("another-python", Runtime=theirs)
    with pytest.raises(ProtocolMismatchError) as caught:
        WrenExecutor(**settings)
    for part in (theirs, "python{}.{}".format(*sys.version_info), "'another-python'", "wren deploy_lambda"):
        assert part in str(caught.value)


def test_a_function_that_is_not_one_of_ours(deploy):
    with pytest.raises(DeploymentError, match=r"'not-ours'.*wren deploy_lambda"):
        WrenExecutor(**deploy("not-ours", Environment={"Variables": {}}))


def test_a_function_that_cannot_start(deploy):
    code = changed_zip("lambda_worker/runner.py", lambda text: "import no_such_module")
    with WrenExecutor(**deploy("cannot-start", code)) as executor:
        error = error_of(executor.submit(fine, 1))
    assert type(error) is DeploymentError
    for part in ("call 0 (test_bad_input.fine)", "no_such_module", "wren deploy_lambda"):
        assert part in str(error)


def test_a_function_that_does_not_exist(aws):
    with pytest.raises(DeploymentError, match=r"'no-such-function'.*wren setup"):
        WrenExecutor(**{**aws, "function": "no-such-function"})


def test_a_function_that_was_deleted_meanwhile(deploy, cloud):
    settings = deploy("deleted-meanwhile")
    with WrenExecutor(**settings) as executor:
        client_of(cloud, "lambda").delete_function(FunctionName="deleted-meanwhile")
        error = error_of(executor.submit(fine, 1))
    assert type(error) is DeploymentError
    for part in ("call 0", "'deleted-meanwhile'", "wren deploy_lambda"):
        assert part in str(error)


@pytest.mark.parametrize("mode", ["direct", "s3"])
def test_a_bucket_that_does_not_exist(aws, mode):
    settings = {**aws, "bucket": f"no-such-bucket-{mode}", "mode": mode}
    argument = bytes(1_000_000)  # a small one needs no bucket in `direct`
    try:
        with WrenExecutor(**settings) as executor:
            error = error_of(executor.submit(len, argument))
            assert "call 0" in str(error)
    except StorageError as refused_at_once:
        error = refused_at_once
    assert isinstance(error, StorageError)
    assert settings["bucket"] in str(error)
    assert "bucket" in str(error).replace(settings["bucket"], "")


def test_no_credentials(aws, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(
        ConfigError, match=r"no AWS credentials.*bucket 'wren-tests' \(argument\).*aws configure.*WREN_CLOUD=local"
    ):
        WrenExecutor(**{**aws, "prefix": "no-credentials"})


def test_wrong_credentials(aws, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises((ConfigError, DeploymentError), match="Secret Access Key"):
        WrenExecutor(**{**aws, "prefix": "wrong-credentials"})


def test_no_region(aws, monkeypatch):
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(ConfigError, match=r"no AWS region \(AWS_REGION is set, but boto3 does not read it\): set"):
        WrenExecutor(**{**aws, "prefix": "no-region"})
    monkeypatch.delenv("AWS_REGION")
    with pytest.raises(ConfigError, match=r"no AWS region: set WREN_REGION or (\w+)") as caught:
        WrenExecutor(**{**aws, "prefix": "no-region"})
    monkeypatch.setenv(re.search(r"AWS_\w+_REGION", str(caught.value))[0], "us-east-1")
    with WrenExecutor(**{**aws, "prefix": "no-region"}) as executor:  # what the message says helps
        assert executor.connection.region == "us-east-1"


@pytest.mark.parametrize(
    ("region", "said"),
    [("us-east1", "no AWS region 'us-east1': is it 'us-east-1'?"), ("mars", "no AWS region 'mars': set WREN_REGION")],
)
def test_a_region_that_does_not_exist_is_told_by_its_name(aws, monkeypatch, region, said):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=re.escape(said)):
        WrenExecutor(**{**aws, "prefix": "no-such-region", "region": region})


def test_what_is_no_name_of_a_region(aws):
    with pytest.raises(ConfigError, match=r"no AWS region 'us east 1': is it 'us-east-1'\?"):
        WrenExecutor(**{**aws, "prefix": "no-name-of-a-region", "region": "us east 1"})


def test_another_region_than_the_servers_is_no_matter_of_the_credentials(aws):
    with pytest.raises(ConfigError, match=r"is not region 'eu-west-1' .*: set WREN_REGION") as caught:
        WrenExecutor(**{**aws, "prefix": "another-region", "region": "eu-west-1"})
    assert "aws configure" not in str(caught.value)


def test_no_bucket(aws):
    with pytest.raises(ConfigError, match=r"needs a bucket: .*WREN_BUCKET.*`wren setup`"):
        WrenExecutor(cloud="aws")


def test_nobody_answers(aws, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(DeploymentError, match=r"Lambda cannot be reached.*network"):
        WrenExecutor(**{**aws, "prefix": "nobody-answers"})
