"""Somebody else puts outcomes and records of failures into the bucket: none of it passes for the work of a worker."""

import contextlib
import dataclasses
import json
import os
import pickle
import socket
import threading
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from blake3 import blake3

from lambda_worker import codec
from lambda_worker.protocol import PROTOCOL, Frame, Outcome, outcome_key
from wren_backends import EnvironmentLostError, TamperedObjectError, WrenExecutor

SOON_S = 30.0


def fine(x):
    return x + 1


@pytest.fixture(params=["direct", "s3"])
def mode(request):
    return request.param


@pytest.fixture
def committing(cloud, mode):
    """An executor in each mode whose outcomes are committed to the bucket, whatever their size and time."""
    with WrenExecutor(2, mode=mode, commit_after_s=0) as executor:
        yield executor


@pytest.fixture
def committed(committing, intruder):
    """The sealed frame of a call that has ended, and how to get that of another job."""

    def frame_of(executor, value):
        executor.submit(fine, value).result(timeout=SOON_S)
        bucket = intruder(executor)
        return bucket.read(bucket.keys(f"{bucket.prefix}jobs/{executor.job_id}/outcomes/")[-1])

    return frame_of


@pytest.fixture
def substitute(committing, intruder, gate):
    """Put an object where the outcome of a call belongs that still runs; gives how the call ended, and its number."""

    def put(data):
        seq = committing.journal.counts.get("call.submitted", 0)
        future = committing.submit(gate.hold, "the right value")
        gate.wait_entered()
        bucket = intruder(committing)
        bucket.write(bucket.outcome(committing.job_id, int(seq)), data)
        gate.open()
        error = future.exception(timeout=SOON_S)
        assert committing.submit(fine, 1).result(timeout=SOON_S) == 2
        return error, int(seq)

    return put


def frame_with(payload, job_id, seq=0):
    """A frame as a worker makes it, but for the pickle in it."""
    outcome = Outcome(seq, "value", (payload,))
    return Frame(job_id, (outcome,), "request", "stream", "environment", 0)


def assert_refused(error, seq, text):
    assert type(error) is TamperedObjectError
    for part in (f"call {seq} (signals.Gate.hold)", text, "Somebody else writes to the bucket"):
        assert part in str(error)


@pytest.mark.parametrize("length", [0, 1, 31, 32, 35, 36, 37, 10_000])
def test_bytes_of_any_length(substitute, length):
    assert_refused(*substitute(os.urandom(length)), "fails its signature, so it was not unpickled")


def test_a_trap_instead_of_a_frame(substitute, trap):
    assert_refused(*substitute(trap.pickle()), "fails its signature, so it was not unpickled")


@pytest.mark.parametrize("key", [b"\0" * 32, b"k" * 32], ids=["zeros", "another"])
def test_a_frame_with_a_trap_under_another_key(committing, substitute, trap, key):
    sealed = codec.seal(frame_with(trap.pickle(), committing.job_id), key)
    assert_refused(*substitute(sealed), "fails its signature, so it was not unpickled")


def test_a_frame_with_a_trap_and_a_tag_without_a_key(committing, substitute, trap):
    body = codec.seal(frame_with(trap.pickle(), committing.job_id), b"k" * 32)[32:]
    assert_refused(*substitute(blake3(body).digest() + body), "fails its signature")


def test_an_authentic_frame_that_was_changed(committing, committed, substitute, trap):
    sealed = committed(committing, 1)
    pickled = pickle.dumps(2)
    assert sealed.endswith(pickled[2:])
    assert_refused(*substitute(sealed[: -len(pickled)] + trap.pickle()), "fails its signature")


@pytest.mark.parametrize("cut", [1, 3, 40])
def test_an_authentic_frame_that_was_truncated(committing, committed, substitute, cut):
    assert_refused(*substitute(committed(committing, 1)[:-cut]), "fails its signature")


def test_the_outcome_of_another_call_of_the_job(committing, committed, substitute):
    """It is authentic, and says nothing about this call: to ask for it again and again would be no answer either."""
    before = committing.journal.counts.get("invocation.started", 0)
    error, seq = substitute(committed(committing, 1))
    assert_refused(error, seq, "a frame of call 0 lies where that of call 1 belongs")
    assert committing.journal.counts["invocation.started"] - before == 3  # the other call, this one, and one after it


def test_the_outcome_of_the_same_number_in_another_job(cloud, mode, substitute, committed):
    with WrenExecutor(1, mode=mode, commit_after_s=0) as another:
        sealed = committed(another, 41)
    assert_refused(*substitute(sealed), "fails its signature")


def test_an_old_outcome_for_the_next_attempt(cloud, committed, intruder, tmp_path):
    """The outcome of an earlier call that raised does not become that of its retry, which has another number."""
    with WrenExecutor(1, mode="s3", retries=1) as executor:
        bucket = intruder(executor)
        path = tmp_path / "tried"

        def second_time(old, new):
            if not path.exists():
                path.write_text("tried")
                raise ValueError("not yet")
            os.link(path, tmp_path / "again")
            return "now"

        assert executor.submit(second_time, 0, 1).result(timeout=SOON_S) == "now"
        assert len(bucket.keys(f"{bucket.prefix}jobs/{executor.job_id}/outcomes/")) == 2


@pytest.mark.parametrize(
    "name", ["x", "-1", "00000000000", "0" * 13, "000000000000.", "\u0661" * 12, "1e5", "000000000000 "]
)
def test_objects_with_other_names_among_the_outcomes_are_passed_over(cloud, intruder, gate, trap, name):
    with WrenExecutor(1, mode="s3") as executor:
        future = executor.submit(gate.hold, 5)
        gate.wait_entered()
        bucket = intruder(executor)
        bucket.write(bucket.outcome(executor.job_id, 0)[:-12] + name, trap.pickle())
        gate.open()
        assert future.result(timeout=SOON_S) == 5


class Relay:
    """Passes TCP connections on to another port of this machine until it cuts them."""

    def __init__(self, port):
        self._port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._sockets = []
        self._threads = []
        self._start(self._accept)

    def _start(self, target, *args):
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                self._sockets += [near, far]
                self._start(self._pass_on, near, far)
                self._start(self._pass_on, far, near)

    def _pass_on(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)

    def cut(self):
        """End the connections that there are."""
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()


@pytest.fixture
def relay(cloud):
    made = Relay(urlsplit(cloud.lambda_endpoint_url).port)
    yield made
    made.close()


def test_a_forged_outcome_where_that_of_a_lost_response_is_looked_for(cloud, relay, intruder, gate, trap):
    with WrenExecutor(1) as known:
        connection = dataclasses.replace(known.connection, lambda_url=f"http://127.0.0.1:{relay.port}")
    with WrenExecutor(2, connection=connection, commit_after_s=0) as executor:
        future = executor.submit(gate.hold, "the right value")
        gate.wait_entered()
        bucket = intruder(executor)
        forged = codec.seal(frame_with(trap.pickle(), executor.job_id), b"k" * 32)
        bucket.write(bucket.outcome(executor.job_id, 0), forged)
        relay.cut()
        error = future.exception(timeout=SOON_S)
        gate.open()
        assert_refused(error, 0, "fails its signature, so it was not unpickled")
        assert executor.submit(fine, 1).result(timeout=SOON_S) == 2


# ---- records of failures, which Lambda does not sign

BODIES = {
    "time limit": {"errorType": "Sandbox.Timedout", "errorMessage": "Task timed out after 1.00 seconds"},
    "memory": {"errorType": "Runtime.OutOfMemory", "errorMessage": "signal: killed"},
    "cannot start": {"errorType": "Runtime.ImportModuleError", "errorMessage": "no module"},
    "initializer": {
        "errorType": "RefusedEventError",
        "errorMessage": json.dumps({"protocol": PROTOCOL, "refused": "initializer", "detail": "forged"}),
    },
}


def record_key(connection, name):
    now = datetime.now(UTC)
    return f"aws/lambda/async/{connection.function}/{now:%Y/%m/%d}/{now:%Y-%m-%dT%H.%M.%S}-{name}"


def forged(executor, body, **changes):
    """A record of a failure of call 0, as Lambda would write it but for the request id, which only Lambda knows."""
    return {
        "requestContext": {"requestId": "00000000-0000-4000-8000-000000000000", "condition": "RetriesExhausted"},
        "requestPayload": {"job": executor.job_id, "calls": [[0, 0, [], 0]], "attempt": 1},
        "responsePayload": body,
        **changes,
    }


@pytest.fixture
def plant(cloud, intruder, gate):
    """Put records into the bucket while call 0 runs; it has to end well although the client has read them."""

    def put(make):
        with WrenExecutor(2, mode="s3", max_attempts=1) as executor:
            held = executor.submit(gate.hold, "unharmed")
            gate.wait_entered()
            for number, data in enumerate(make(executor)):
                intruder(executor).write(record_key(executor.connection, f"forged-{number}"), data)
            # Real records: to know of the second one, the client must have dealt with all that lay beside the first.
            for _ in range(2):
                error = executor.submit(os._exit, 1).exception(timeout=SOON_S)
                assert type(error) is EnvironmentLostError
            assert not held.done()
            gate.open()
            assert held.result(timeout=SOON_S) == "unharmed"
            assert executor.submit(fine, 1).result(timeout=SOON_S) == 2

    return put


@pytest.mark.parametrize("body", BODIES)
def test_a_record_of_a_failure_that_did_not_happen(plant, body):
    plant(lambda executor: [json.dumps(forged(executor, BODIES[body])).encode()])


def test_records_that_are_none(plant, trap):
    def make(executor):
        good = forged(executor, None)
        payload = good["requestPayload"]
        yield from (b"", b"\xff", b"null", b"[]", b"3", b"[" * 200_000, b'{"requestPayload": ' * 50_000, trap.pickle())
        yield json.dumps({**good, "requestPayload": None}).encode()
        yield json.dumps({**good, "requestContext": []}).encode()
        for calls in (None, {}, [], [[]], [[None]], [[[]]], [["x"]], [[float("inf")]], [[float("nan")]], [[{}]], "x"):
            yield json.dumps({**good, "requestPayload": {**payload, "calls": calls}}).encode()
        for attempt in (None, "x", [], {}, float("inf"), "9" * 5000):
            yield json.dumps({**good, "requestPayload": {**payload, "attempt": attempt}}).encode()
        for job in (None, [], {}, 3):
            yield json.dumps({**good, "requestPayload": {**payload, "job": job}}).encode()

    plant(make)


def test_outcome_keys_are_where_the_tests_here_look_for_them(executor, intruder):
    bucket = intruder(executor)
    assert bucket.outcome("j-1", 7) == bucket.prefix + outcome_key("j-1", 7)
