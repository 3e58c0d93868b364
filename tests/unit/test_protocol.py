"""The wire types come back as they went, and whatever else arrives is a ProtocolError."""

import json
import sys

import pytest

from lambda_worker.protocol import (
    PROTOCOL,
    BlobRef,
    Event,
    ProtocolError,
    Reply,
    WireCall,
    check_job_id,
    inline_size,
    number_of,
    outcome_folder,
    outcome_key,
    payload_from_json,
    payload_size,
    payload_to_json,
    seq_when_sent_anew,
)

DIGEST = "0123456789abcdef" * 4
BLOB = BlobRef(DIGEST, 5)
JOB_BLOB = BlobRef(DIGEST, 5, "j-1")


def an_event(**changes):
    settings = {
        "job_id": "j-1",
        "calls": (WireCall(0, 0, (b"a", BLOB)), WireCall(7, 1, (b"\x00\xff",), 99)),
        "functions": ((b"f",), (JOB_BLOB, b"")),
        "bucket": "b",
        "prefix": "p/q",
        "mode": "s3",
        "attempt": 2,
        "commit_after_s": 1.5,
        "modules": BLOB,
        "initializer": (b"i",),
        "worker_environment": {"A": "1"},
        "forward_output": False,
    }
    return Event(**{**settings, **changes})


@pytest.mark.parametrize("event", [an_event(), an_event(modules=None, initializer=None, mode="direct")])
def test_event_round_trip(event):
    assert Event.from_json(json.loads(json.dumps(event.to_json()))) == event


@pytest.mark.parametrize(
    "reply",
    [Reply(frame=b"\x00\x01"), Reply(frame=b""), Reply(committed=True), Reply(refused="python", detail="no")],
)
def test_reply_round_trip(reply):
    assert Reply.from_json(json.loads(json.dumps(reply.to_json()))) == reply


def test_payload_round_trip_and_sizes():
    payload = (b"abc", BLOB, b"", JOB_BLOB)
    assert payload_from_json(json.loads(json.dumps(payload_to_json(payload)))) == payload
    assert inline_size(payload) == 3
    assert payload_size(payload) == 13


def test_keys_sort_as_numbers_do_and_lie_in_one_folder():
    keys = [outcome_key("j-1", seq) for seq in (0, 9, 10, 99_999, 10**11)]
    assert keys == sorted(keys)
    assert {key.rpartition("/")[0] + "/" for key in keys} == {outcome_folder("j-1")}


def test_blobs_lie_with_their_job_or_with_all():
    assert BLOB.key == f"blobs/{DIGEST}"
    assert JOB_BLOB.key == f"jobs/j-1/data/{DIGEST}"


@pytest.mark.parametrize("job_id", ["", "a/b", "..", "A", "-a", "a-", "a" * 64, "a\n", None, 3, "ä"])
def test_a_job_id_cannot_leave_its_folder(job_id):
    with pytest.raises(ProtocolError):
        check_job_id(job_id)


@pytest.mark.parametrize(
    "arguments",
    [("../x", 5), (DIGEST.upper(), 5), (DIGEST + "\n", 5), (DIGEST, -1), (DIGEST, True), (DIGEST, 1.0), (3, 5)],
)
def test_a_blob_is_named_by_a_hash(arguments):
    with pytest.raises(ProtocolError):
        BlobRef(*arguments)


def test_a_blob_of_a_bad_job_is_refused():
    with pytest.raises(ProtocolError):
        BlobRef(DIGEST, 5, "../..")


JUNK = [None, True, -1, 1.5, "", "x", [], {}, [[]], {"blob": "x"}, [None], 10**400, float("inf"), float("nan"), "ä"]


@pytest.mark.parametrize("field", sorted(an_event().to_json()))
def test_junk_in_a_field_of_an_event_is_at_worst_a_protocol_error(field):
    good = an_event().to_json()
    for junk in JUNK:
        try:
            Event.from_json({**good, field: junk})
        except ProtocolError:
            continue
        except Exception as error:
            pytest.fail(f"{field}={junk!r}: {error!r}")


@pytest.mark.parametrize("field", ["python", "job", "mode", "attempt", "bucket", "prefix", "commit_after_s", "calls"])
def test_a_field_that_is_missing_is_refused(field):
    raw = an_event().to_json()
    del raw[field]
    with pytest.raises(ProtocolError, match=field):
        Event.from_json(raw)


@pytest.mark.parametrize("version", [PROTOCOL + 1, PROTOCOL - 1, None, "1"])
def test_another_version_is_refused_by_number(version):
    with pytest.raises(ProtocolError, match=f"speaks protocol {version!r}"):
        Event.from_json({**an_event().to_json(), "protocol": version})
    with pytest.raises(ProtocolError, match=f"speaks protocol {version!r}"):
        Reply.from_json({**Reply(committed=True).to_json(), "protocol": version})


@pytest.mark.parametrize(
    "call",
    [
        None,
        [],
        [0, 0, ["YQ=="]],
        [-1, 0, ["YQ=="], 0],
        ["0", 0, ["YQ=="], 0],
        [0, 2, ["YQ=="], 0],
        [0, -1, ["YQ=="], 0],
        [True, 0, ["YQ=="], 0],
        [10**12, 0, ["YQ=="], 0],
        [0, 0, [], 0],
        [0, 0, "YQ==", 0],
        [0, 0, ["not base64!"], 0],
        [0, 0, ["YQ="], 0],
        [0, 0, [3], 0],
        [0, 0, [{"blob": DIGEST}], 0],
        [0, 0, [{"blob": DIGEST, "size": 5, "job": "../x"}], 0],
    ],
)
def test_a_malformed_call_is_refused(call):
    with pytest.raises(ProtocolError):
        Event.from_json({**an_event().to_json(), "calls": [call]})


def test_a_call_that_is_sent_anew_keeps_its_number_until_there_is_no_room_for_more():
    seqs = [7]
    while (seq := seq_when_sent_anew(seqs[-1])) is not None:
        seqs.append(seq)
    assert len(set(seqs)) == 1000
    assert {number_of(seq) for seq in seqs} == {7}
    assert all(BlobRef(DIGEST, 1, "j-1", seq).key for seq in seqs)
    keys = [outcome_key("j-1", seq) for seq in seqs]
    assert keys == sorted(keys)


@pytest.mark.parametrize("raw", [None, [], "x", 3])
def test_what_is_no_object_is_refused(raw):
    with pytest.raises(ProtocolError):
        Event.from_json(raw)
    with pytest.raises(ProtocolError):
        Reply.from_json(raw)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"frame": "YQ==", "committed": True},
        {"committed": 1},
        {"committed": True, "refused": "x"},
        {"frame": 3},
        {"frame": "%"},
        {"frame": "ä"},
    ],
)
def test_a_reply_holds_exactly_one_thing(content):
    with pytest.raises(ProtocolError):
        Reply.from_json({"protocol": PROTOCOL, **content})


def test_only_the_standard_library_is_needed(run_plain):
    assert run_plain("import sys, lambda_worker.protocol; print(*sys.modules)").isdisjoint(
        {"cloudpickle", "obstore", "blake3", "numpy", "boto3", "wren_backends"}
    )


def test_the_worker_never_imports_the_client_or_boto3(run_plain):
    names = run_plain("import sys, lambda_worker.handler; print(*sys.modules)")
    assert "obstore" in names
    assert names.isdisjoint({"wren_backends", "boto3", "botocore", "httptools", "numpy"})


@pytest.fixture
def run_plain():
    import subprocess

    def run(source):
        return set(subprocess.check_output([sys.executable, "-c", source], text=True).split())

    return run
