"""Whatever a function's configuration or a worker's outcome holds, the client raises its own errors and no others."""

import http.server
import json
import sys
import threading
from concurrent.futures import Future

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from shapes import ANY_JSON, HOSTILE_TEXT, changed

from lambda_worker.protocol import FUNCTION_KEY_VARIABLE, Frame, Outcome
from wren_backends import Config, SerializationError, WrenError
from wren_backends.calls import Call, Function
from wren_backends.connection import Connection, connect, used
from wren_backends.resolver import Resolver

# ---- what Lambda says of the function

RUNTIME = "python{}.{}".format(*sys.version_info)
DESCRIBED = {
    "FunctionName": "wren",
    "FunctionArn": "arn:aws:lambda:us-east-1:123456789012:function:wren",
    "Runtime": RUNTIME,
    "MemorySize": 128,
    "Timeout": 3,
    "Environment": {"Variables": {FUNCTION_KEY_VARIABLE: "ab" * 32}},
}


@pytest.fixture(scope="module")
def service():
    """AWS as far as `connect` asks it, over HTTP; it answers what the test puts into `body`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(self.server.body)))
            self.end_headers()
            self.wfile.write(self.server.body)

        def do_HEAD(self):
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def config(service, monkeypatch):
    """A configuration that leads to the service; another one for each call, since connections are remembered."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{service.server_address[1]}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    return lambda: Config(cloud="aws", region="us-east-1", bucket="bucket", prefix=f"p{len(used())}")


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(changed(DESCRIBED, times=1).map(json.dumps) | ANY_JSON.map(json.dumps) | st.text(max_size=50))
@example(json.dumps({**DESCRIBED, "Environment": {"Error": {"ErrorCode": "AccessDeniedException"}}}))
@example(json.dumps({**DESCRIBED, "Environment": {"Variables": {FUNCTION_KEY_VARIABLE: "ab " * 32}}}))
@example("[" * 100_000)
def test_the_configuration_of_a_function(service, config, body):
    service.body = body.encode("utf-8", "surrogatepass")
    try:
        found = connect(config())
    except WrenError:
        return
    assert isinstance(found, Connection)
    assert (len(found.function_key), found.memory_mb > 0, found.timeout_s > 0) == (32, True, True)


def test_the_good_configuration_is_good(service, config):
    service.body = json.dumps(DESCRIBED).encode()
    found = connect(config())
    assert (found.function_key, found.memory_mb, found.timeout_s) == (b"\xab" * 32, 128, 3)


# ---- what a worker says of a call

FRAME = Frame("j-1", (), "request", "stream", "environment", 0)
FUNCTION = Function("f", "key", (b"pickle",))
TEXT = st.text(max_size=20) | st.sampled_from(HOSTILE_TEXT)
CAUGHT = st.tuples(
    st.sampled_from(["builtins", "os", "warnings", "no.such", ""]) | TEXT,
    st.sampled_from(["UserWarning", "Warning", "BytesWarning", "path", "__doc__", "UnicodeWarning"]) | TEXT,
    TEXT,
    TEXT,
    st.integers(),
)


@settings(max_examples=200)
@given(
    st.sampled_from(["value", "error", "failed"]),
    st.lists(st.binary(max_size=30), min_size=1, max_size=3),
    TEXT,
    TEXT,
    st.lists(CAUGHT, max_size=3).map(tuple),
)
@example("value", [b"cos\n_exit\n(I3\ntR."[:9]], "", "", ())  # the beginning of a pickle
@example("error", [b"I3\n."], "", "", ())  # what is raised has to be an exception
@example("value", [b"csys\nexit\n(I3\ntR."], "", "", ())
@pytest.mark.filterwarnings("ignore")
def test_outcomes_of_any_content(kind, parts, text, reason, caught):
    outcome = Outcome(0, kind, tuple(parts), reason, text, stdout=text, stderr=text, caught=caught)
    future = Future()
    future.set_running_or_notify_cancel()
    resolver = Resolver()
    resolver.resolve(Call(0, future, FUNCTION, "f", "f", (b"pickle",)), outcome, parts, FRAME)
    resolver.stop()
    resolver.run()
    assert future.done()
    error = future.exception()
    assert isinstance(error, WrenError if kind == "failed" else SerializationError | None)
