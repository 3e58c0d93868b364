"""Whatever event arrives, the runner answers with a reply that the client can read, or refuses it by its own error."""

import json
import os
import sys
import tempfile

import cloudpickle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore
from shapes import ANY_JSON, changed

from lambda_worker import codec
from lambda_worker.objects import ObjectStore
from lambda_worker.protocol import BlobRef, Event, Reply, WireCall
from lambda_worker.runner import RefusedEventError, Runner

SECRET = b"s" * 32
KEY = codec.job_key(SECRET, "j-1")


def cloud(value):
    return (cloudpickle.dumps(value, protocol=5),)


def ref(data, job_id=None):
    return BlobRef(codec.digest(data), len(data), job_id)


ARGUMENTS = cloud(((2, 3), {}))
STORED = {name: cloud(value)[0] for name, value in {"function": pow, "arguments": ((2, 3), {})}.items()}
GOOD = Event(
    job_id="j-1",
    calls=(WireCall(0, 0, ARGUMENTS), WireCall(1, 1, (ref(STORED["arguments"]),))),
    functions=(cloud(pow), (ref(STORED["function"]),)),
    bucket="bucket",
    prefix="p/q",
    initializer=cloud((len, ((),))),
    worker_environment={"WREN_TEST_FUZZ": "1"},
)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run an event as a new environment would, on a bucket in memory, and read the reply as the client does."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def once(raw):
        memory = MemoryStore()
        store = ObjectStore(memory, "memory://bucket/prefix")
        for data in STORED.values():
            store.put_blob(ref(data), data)
        runner = Runner(SECRET, lambda bucket, prefix: ObjectStore(memory, f"{bucket}/{prefix}"), "log-stream")
        before = dict(os.environ), list(sys.path)
        try:
            reply = Reply.from_json(json.loads(json.dumps(runner.run(raw, "request"))))
        except RefusedEventError as refusal:
            reply = Reply.from_json(json.loads(str(refusal)))
            assert reply.refused
        assert (dict(os.environ), list(sys.path)) == before
        return reply

    return once


def kinds(reply):
    """How the calls of a reply with a frame ended."""
    return [outcome.kind for outcome in codec.unseal(reply.frame, KEY, "j-1").outcomes]


def test_the_good_event_runs(run):
    assert kinds(run(GOOD.to_json())) == ["value", "value"]


@given(ANY_JSON | changed(GOOD.to_json()))
def test_any_event(run, raw):
    reply = run(raw)
    assert reply.refused in ("", "protocol", "python", "event", "missing", "tampered", "initializer", "storage")


PARTS = st.binary(max_size=40) | st.sampled_from([ref(b"missing"), ref(STORED["function"]), ref(b"x", "j-2")])


@settings(max_examples=200)
@given(
    st.lists(PARTS, min_size=1, max_size=4), st.lists(PARTS, min_size=1, max_size=4), st.sampled_from([0, 1, 10**30])
)
def test_any_payload(run, function, arguments, shared_from_bytes):
    call = WireCall(0, 0, tuple(arguments), shared_from_bytes)
    event = Event("j-1", (call,), (tuple(function),), "bucket", "prefix")
    assert kinds(run(event.to_json())) in (["failed"], ["error"], ["value"])


@settings(max_examples=100)
@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda data: b"PK\3\4" + data))
def test_any_bundle(run, data):
    event = Event("j-1", (WireCall(0, 0, ARGUMENTS),), (cloud(pow),), "bucket", "prefix", modules=ref(data))
    assert run(event.to_json()).refused == "missing"
    STORED["bundle"] = data
    try:
        assert run(event.to_json()).refused == "event"
    finally:
        del STORED["bundle"]
