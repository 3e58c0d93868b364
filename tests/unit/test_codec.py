"""What is encoded comes back equal, large buffers are not copied on the way, and what is not authentic never opens."""

import copyreg
import dataclasses
import json
import os
import pickle
import struct
import threading

import numpy as np
import pytest
from blake3 import blake3

from lambda_worker import codec
from lambda_worker.codec import TamperedError
from lambda_worker.protocol import BlobRef, Frame, Outcome, ProtocolError

KEY = b"k" * 32


def round_trip(value):
    pickled, *buffers = codec.dumps(value)
    return codec.loads([bytes(pickled), *map(bytearray, buffers)])


@pytest.mark.parametrize("value", [None, 3, "ä", [1, {"a": (2, 3)}], {1, 2}, b"x" * 100_000, bytearray(b"y" * 100_000)])
def test_values_round_trip(value):
    again = round_trip(value)
    assert again == value
    assert type(again) is type(value)


def test_lambdas_and_closures_round_trip():
    factor = 3
    assert round_trip(lambda x: x * factor)(5) == 15


@pytest.mark.parametrize("shape", [(10,), (1000,), (300, 300)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_round_trip_and_can_be_written_to(shape, order):
    array = np.asarray(np.arange(np.prod(shape), dtype=float).reshape(shape), order=order)
    again = round_trip(array)
    np.testing.assert_array_equal(again, array)
    again[...] = -1
    assert array.min() == 0


def test_strided_and_object_arrays_round_trip():
    strided = np.arange(100_000)[::3]
    np.testing.assert_array_equal(round_trip(strided), strided)
    objects = np.array([{"a": 1}, None], dtype=object)
    assert round_trip(objects).tolist() == objects.tolist()


def test_large_buffers_are_not_copied():
    array = np.zeros(100_000)
    _, buffer = codec.dumps(array)
    array[0] = 7
    assert np.frombuffer(buffer)[0] == 7
    assert np.shares_memory(np.frombuffer(buffer), array)


def test_small_buffers_stay_in_the_pickle():
    assert len(codec.dumps(np.zeros(10))) == 1


def test_two_references_to_one_array_are_one_buffer():
    array = np.zeros(100_000)
    assert len(codec.dumps([array, array])) == 2
    first, second = round_trip([array, array])
    assert first is second


def test_arrays_lie_on_the_buffers_they_came_in():
    pickled, buffer = codec.dumps(np.zeros(10_000))
    own, others = bytearray(buffer), bytes(buffer)
    array = codec.loads([pickled, own])
    array[0] = 1
    assert np.frombuffer(own)[0] == 1
    array = codec.loads([pickled, others])
    assert np.shares_memory(array, np.frombuffer(others))
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


@pytest.mark.parametrize("make", [lambda: (one for one in ()), threading.Lock])
def test_what_cannot_be_pickled_raises(make):
    with pytest.raises((TypeError, pickle.PicklingError)):
        codec.dumps(make())


def test_digest_is_blake3_for_every_size_and_kind_of_buffer():
    for size in (0, 10, 3 * 1024 * 1024):
        data = os.urandom(size)
        assert codec.digest(data) == codec.digest(memoryview(bytearray(data))) == blake3(data).hexdigest()


def test_verify_tells_what_was_changed():
    data = b"content"
    ref = BlobRef(codec.digest(data), len(data))
    codec.verify(ref, data)
    for changed in (b"contenu", b"content!", b""):
        with pytest.raises(TamperedError, match=ref.digest):
            codec.verify(ref, changed)


# ---- exceptions


class TwoArgumentsError(Exception):
    """Wants more than its `args` hold."""

    def __init__(self, code, *, text):
        super().__init__(f"{code}: {text}")
        self.code = code


class KeywordOnlyError(Exception):
    def __init__(self, *, text):
        super().__init__()
        self.text = text


class HoldsGeneratorError(Exception):
    def __init__(self):
        super().__init__(iter(one for one in ()))


def error_round_trip(error):
    return codec.loads([bytes(part) for part in codec.dump_error(error)])


@pytest.mark.parametrize(
    ("error", "attribute", "value"),
    [
        (ValueError("x", 3), "args", ("x", 3)),
        (KeyError("k"), "args", ("k",)),
        (TwoArgumentsError(3, text="t"), "code", 3),
        (TwoArgumentsError(3, text="t"), "args", ("3: t",)),
        (KeywordOnlyError(text="t"), "text", "t"),
        (OSError(2, "gone", "file"), "filename", "file"),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "why"), "args", ("utf-8", b"x", 0, 1, "why")),
    ],
)
def test_exceptions_round_trip(error, attribute, value):
    again = error_round_trip(error)
    assert type(again) is type(error)
    assert getattr(again, attribute) == value


def test_an_exception_that_cannot_be_pickled_raises():
    with pytest.raises(TypeError):
        codec.dump_error(HoldsGeneratorError())


def test_formatted_error_leaves_out_the_workers_frames():
    def user():
        raise ValueError("boom")

    def worker():
        user()

    with pytest.raises(ValueError, match="boom") as caught:
        worker()
    text = codec.format_error(caught.value, skip_frames=2)
    assert "in user" in text
    assert "in worker" not in text
    assert text.endswith("ValueError: boom\n")
    assert "boom" in codec.format_error(caught.value, skip_frames=99)


# ---- frames

OUTCOME = Outcome(
    seq=4,
    kind="value",
    payload=(b"pickle", BlobRef("ab" * 32, 9, "j-1"), b"buffer"),
    seconds=0.25,
    cpu_s=0.125,
    stdout="ä\n",
    stderr="e",
    caught=(("builtins", "UserWarning", "text", "file.py", 3),),
)
FAILED = Outcome(seq=5, kind="failed", reason="exited", detail="why")
APART = Outcome(seq=6, kind="value", payload=(b"index", b"one", b"other"), apart=True)
FRAME = Frame("j-1", (OUTCOME, FAILED, APART), "request", "stream", "environment", 2, 1000, {"GET": 1})


def plain(frame):
    """The frame with its payload's views as bytes, for comparison."""
    outcomes = tuple(
        dataclasses.replace(
            one, payload=tuple(part if isinstance(part, BlobRef) else bytes(part) for part in one.payload)
        )
        for one in frame.outcomes
    )
    return dataclasses.replace(frame, outcomes=outcomes)


def test_frames_round_trip():
    assert plain(codec.unseal(codec.seal(FRAME, KEY), KEY, "j-1")) == FRAME


def test_every_changed_byte_is_noticed():
    sealed = codec.seal(FRAME, KEY)
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        with pytest.raises(TamperedError):
            codec.unseal(changed, KEY, "j-1")


def test_every_truncation_is_noticed():
    sealed = codec.seal(FRAME, KEY)
    for length in range(len(sealed)):
        with pytest.raises(TamperedError):
            codec.unseal(sealed[:length], KEY, "j-1")
    with pytest.raises(TamperedError):
        codec.unseal(sealed + b"x", KEY, "j-1")


def test_a_frame_of_another_job_is_refused():
    with pytest.raises(TamperedError, match=r"'j-1'.*'j-2'"):
        codec.unseal(codec.seal(FRAME, KEY), KEY, "j-2")


def test_job_keys_differ_by_job_and_by_function():
    keys = {codec.job_key(secret, job) for secret in (b"a" * 32, b"b" * 32) for job in ("j-1", "j-2")}
    assert len(keys) == 4
    with pytest.raises(TamperedError):
        codec.unseal(codec.seal(FRAME, codec.job_key(b"a" * 32, "j-1")), codec.job_key(b"a" * 32, "j-2"), "j-1")


def signed(body):
    return blake3(body, key=KEY).digest() + body


def signed_header(header, rest=b""):
    encoded = json.dumps(header).encode()
    return signed(struct.pack("<I", len(encoded)) + encoded + rest)


HEADER = {
    "job": "j-1",
    "request_id": "r",
    "log_stream": "s",
    "environment": "e",
    "events_before": 0,
    "rss": 0,
    "s3": {},
    "outcomes": [[0, "value", [1], "", "", 0, 0, "", "", [], False]],
}


def test_the_header_used_below_is_a_good_one():
    assert codec.unseal(signed_header(HEADER, b"x"), KEY, "j-1").outcomes[0].payload[0] == b"x"


@pytest.mark.parametrize(
    "header",
    [
        None,
        [],
        {},
        3,
        {**HEADER, "outcomes": 3},
        {**HEADER, "outcomes": [[]]},
        {**HEADER, "outcomes": [None]},
        {**HEADER, "outcomes": [[0, "surprise", [1], "", "", 0, 0, "", "", [], False]]},
        {**HEADER, "outcomes": [[0, "value", [2], "", "", 0, 0, "", "", [], False]]},
        {**HEADER, "outcomes": [[0, "value", [-1], "", "", 0, 0, "", "", [], False]]},
        {**HEADER, "outcomes": [[0, "value", ["1"], "", "", 0, 0, "", "", [], False]]},
        {**HEADER, "outcomes": [[0, "value", [{"blob": "../x", "size": 1}], "", "", 0, 0, "", "", [], False]]},
        {**HEADER, "outcomes": [[0, "value", [1], "", "", 0, 0, "", "", [["too", "few"]], False]]},
        {**HEADER, "outcomes": [[0, "value", [1], "", "", 0, 0, "", "", [], 1]]},
        {**HEADER, "s3": 3},
        {**HEADER, "s3": {"GET": "many"}},
        {**HEADER, "s3": {"GET": float("inf")}},
    ],
)
def test_a_signed_but_malformed_header_is_a_protocol_error(header):
    with pytest.raises(ProtocolError) as caught:
        codec.unseal(signed_header(header, b"x"), KEY, "j-1")
    assert not isinstance(caught.value, TamperedError)


@pytest.mark.parametrize("body", [b"\x00\x00\x00\x00", b"\xff\xff\xff\xff{}", b"\x02\x00\x00\x00\xff\xff"])
def test_a_signed_body_without_a_header_is_a_protocol_error(body):
    with pytest.raises(ProtocolError):
        codec.unseal(signed(body), KEY, "j-1")


def test_nothing_is_unpickled_by_opening_a_frame():
    trap = pickle.dumps(Trap())
    frame = dataclasses.replace(FRAME, outcomes=(Outcome(0, "value", (trap,)),))
    assert bytes(codec.unseal(codec.seal(frame, KEY), KEY, "j-1").outcomes[0].payload[0]) == trap
    with pytest.raises(RuntimeError, match="unpickled"):
        pickle.loads(trap)


class Trap:
    def __reduce__(self):
        return _spring, ()


def _spring():
    raise RuntimeError("unpickled")


def test_errors_come_back_whatever_a_library_has_done_to_pickling(monkeypatch):
    def reduce(error):
        return type(error), (error.__context__,)

    monkeypatch.setitem(copyreg.dispatch_table, ValueError, reduce)
    error = ValueError("cycle")
    error.me = error
    found = codec.loads(codec.dump_error(error))
    assert found.args == ("cycle",)
    assert found.me is found


# ---- stop lists


def test_each_of_a_jobs_functions_can_open_its_stop_list():
    keys = [codec.job_key(secret, "j-1") for secret in (b"a" * 32, b"b" * 32)]
    sealed = codec.seal_stop_list([3, 1, 2, 7], keys, "j-1")
    for key in keys:
        assert codec.unseal_stop_list(sealed, key, "j-1") == [(1, 3), (7, 7)]
    with pytest.raises(TamperedError, match="signature"):
        codec.unseal_stop_list(sealed, KEY, "j-1")
    with pytest.raises(TamperedError, match="job"):
        codec.unseal_stop_list(codec.seal_stop_list([1], keys, "j-2"), keys[0], "j-1")


def test_a_stop_list_that_was_changed_is_refused():
    sealed = codec.seal_stop_list([3], [KEY], "j-1")
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        with pytest.raises(TamperedError):
            codec.unseal_stop_list(changed, KEY, "j-1")
        with pytest.raises(TamperedError):
            codec.unseal_stop_list(sealed[:at], KEY, "j-1")
