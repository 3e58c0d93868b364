"""Whatever arrives, the decoders of both sides raise their own errors and no others."""

import json
import struct

import pytest
from blake3 import blake3
from hypothesis import example, given
from hypothesis import strategies as st
from shapes import ANY_JSON, changed

from lambda_worker import codec
from lambda_worker.codec import TamperedError
from lambda_worker.protocol import PROTOCOL, BlobRef, Event, Frame, Outcome, ProtocolError, Reply, WireCall
from wren_backends import WrenError, faults

KEY = b"k" * 32
BLOB = BlobRef("ab" * 32, 5, "j-1")
EVENT = Event(
    job_id="j-1",
    calls=(WireCall(0, 0, (b"a", BLOB)), WireCall(7, 1, (b"\x00\xff",), 99)),
    functions=((b"f",), (BLOB, b"")),
    bucket="bucket",
    prefix="p/q",
    modules=BLOB,
    initializer=(b"i",),
    worker_environment={"A": "1"},
).to_json()
OUTCOME = Outcome(4, "value", (b"pickle", BLOB, b"buffer"), caught=(("builtins", "UserWarning", "text", "f.py", 3),))
FAILED = Outcome(seq=5, kind="failed", reason="exited", detail="why")
APART = Outcome(6, "value", (b"index", b"one", b"other"), apart=True)
SEALED = codec.seal(Frame("j-1", (OUTCOME, FAILED, APART), "request", "stream", "environment", 2, 1, {"GET": 1}), KEY)
(_LENGTH,) = struct.unpack_from("<I", SEALED, 32)
HEADER, SEGMENTS = json.loads(SEALED[36 : 36 + _LENGTH]), SEALED[36 + _LENGTH :]

DEEP = "[" * 100_000


def signed(body):
    return blake3(body, key=KEY).digest() + body


def signed_header(text, segments=SEGMENTS):
    encoded = text.encode("utf-8", "surrogatepass")
    return signed(struct.pack("<I", len(encoded)) + encoded + segments)


# ---- events


@given(ANY_JSON | changed(EVENT))
def test_events(raw):
    try:
        event = Event.from_json(raw)
    except ProtocolError:
        return
    # What is let through is an event like any other.
    assert Event.from_json(json.loads(json.dumps(event.to_json()))).job_id == event.job_id


def test_the_good_event_is_good():
    assert Event.from_json(EVENT).to_json() == EVENT


# ---- replies


@given(
    ANY_JSON
    | changed({"protocol": PROTOCOL, "frame": "YQ=="})
    | changed({"protocol": PROTOCOL, "refused": "x", "detail": "y"})
)
def test_replies(raw):
    try:
        reply = Reply.from_json(raw)
    except ProtocolError:
        return
    assert (reply.frame is not None) + reply.committed + bool(reply.refused) == 1


LIMITS = {"memory_mb": 128, "timeout_s": 3, "keeps_log": True}


@given(st.binary(max_size=200) | ANY_JSON.map(lambda raw: json.dumps(raw).encode()))
@example(DEEP.encode())
@example(json.dumps({"errorType": "RefusedEventError", "errorMessage": DEEP}).encode())
@example(json.dumps({"errorType": "RefusedEventError", "errorMessage": "3"}).encode())
@example(json.dumps({"errorType": [], "errorMessage": {}}).encode())
def test_errors_of_functions(body):
    assert isinstance(faults.function_error(body, "call 0", "request", "job", **LIMITS), WrenError)
    refusal = faults.refusal_in_error(body)
    assert refusal is None or isinstance(faults.refusal(refusal, "call 0", "wren"), WrenError)


# ---- frames


@given(st.binary(max_size=200))
def test_random_bytes_are_no_frame(data):
    with pytest.raises(TamperedError):
        codec.unseal(data, KEY, "j-1")


@given(st.integers(0, len(SEALED) * 8 - 1), st.integers(0, len(SEALED)), st.binary(max_size=3))
def test_frames_that_were_changed_are_no_frames(bit, cut, more):
    flipped = bytearray(SEALED)
    flipped[bit // 8] ^= 1 << bit % 8
    for data in (flipped, SEALED[:cut] + more, more + SEALED[cut:]):
        if bytes(data) != SEALED:
            with pytest.raises(TamperedError):
                codec.unseal(data, KEY, "j-1")


def assert_opens_or_is_malformed(sealed):
    try:
        frame = codec.unseal(sealed, KEY, "j-1")
    except ProtocolError as error:
        return str(error)
    for outcome in frame.outcomes:
        assert isinstance(outcome.seq, int)
        assert isinstance(outcome.seconds + outcome.cpu_s, float)
        assert all(type(text) is str for text in (outcome.reason, outcome.detail, outcome.stdout, outcome.stderr))
        assert bool(outcome.payload) == (outcome.kind != "failed")
    assert isinstance(sum(frame.s3_requests.values()) + frame.rss_bytes + frame.events_before, int)
    return ""


@given(ANY_JSON | changed(HEADER))
def test_signed_headers_of_any_json(header):
    assert_opens_or_is_malformed(signed_header(json.dumps(header)))


@given(st.binary(max_size=100) | st.text(max_size=100).map(lambda text: struct.pack("<I", len(text)) + text.encode()))
@example(struct.pack("<I", 2**32 - 1) + b"{}")
@example(struct.pack("<I", len(DEEP)) + DEEP.encode())
@example(struct.pack("<I", 5001) + b"9" * 5001)
def test_signed_bodies_of_any_bytes(body):
    assert assert_opens_or_is_malformed(signed(body))


def test_the_good_header_is_good():
    assert signed_header(json.dumps(HEADER)) == SEALED
    assert assert_opens_or_is_malformed(SEALED) == ""
