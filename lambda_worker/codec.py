"""Values, exceptions and frames to bytes and back; everything that pickles, hashes or signs is here.

Two rules hold throughout: nothing is unpickled before it has been authenticated (`unseal` for frames, `verify` for
blobs), and what comes back from a round trip is what an ordinary process pool would have given.
"""

from __future__ import annotations

import io
import json
import math
import pickle
import struct
import traceback
from collections.abc import Callable, Collection, Iterable
from typing import Any

import cloudpickle
from blake3 import blake3

from lambda_worker.parcels import Place, packing
from lambda_worker.protocol import BlobRef, Bytes, Frame, Outcome, ProtocolError
from lambda_worker.ranges import ranges_of

_IN_BAND_BYTES = 4096
"""Buffers below this stay inside the pickle: copying them is cheaper than naming them."""

_THREADED_HASH_BYTES = 1024 * 1024
"""From this size on hashing uses several threads (8.3 GB/s against 4.2 on two cores; below it they cost more)."""

_TAG_BYTES = 32
_HEADER = struct.Struct("<I")


class TamperedError(ProtocolError):
    """Bytes that fail their signature or hash: they are not what client or worker wrote, and were not unpickled."""


def digest(data: Bytes) -> str:
    """BLAKE3 of `data` as 64 hexadecimal digits; the name of the blob that holds it."""
    threads = blake3.AUTO if len(data) >= _THREADED_HASH_BYTES else 1
    return blake3(data, max_threads=threads).hexdigest()


def verify(ref: BlobRef, data: Bytes) -> None:
    """Check that `data` is what `ref` names.

    Raises:
        TamperedError: It is not.
    """
    if len(data) != ref.size or digest(data) != ref.digest:
        raise TamperedError(
            f"the object {ref.key} is not what was put there: its content ({len(data)} bytes) does not match the "
            "hash that names it, so it was not unpickled"
        )


def job_key(function_key: bytes, job_id: str) -> bytes:
    """The key that a job's frames are sealed with, 32 bytes.

    It is derived on both sides from the function's secret, so that it travels nowhere: neither in an event (which AWS
    copies into the bucket when an asynchronous invocation fails) nor in S3.
    """
    return blake3(job_id.encode(), key=function_key).digest()


def dumps(value: object) -> tuple[Bytes, ...]:
    """Pickle `value` (protocol 5) with its large buffers out of band and uncopied.

    The C pickler goes first, being several times cheaper; cloudpickle takes over where that fails or where it would
    only name something that the other side does not have (`__main__`).

    Raises:
        Exception: Whatever cloudpickle raises for a value that cannot be pickled.
    """
    buffers: list[pickle.PickleBuffer] = []
    before = packing.set(True)
    try:
        data = _plain_dumps(value, buffers)
        if data is None:
            buffers.clear()
            data = cloudpickle.dumps(value, protocol=5, buffer_callback=_collector(buffers))
    finally:
        packing.reset(before)
    return (data, *(buffer.raw() for buffer in buffers))


def _plain_dumps(value: object, buffers: list[pickle.PickleBuffer]) -> bytes | None:
    if cloudpickle.list_registry_pickle_by_value():
        return None
    try:
        data = pickle.dumps(value, protocol=5, buffer_callback=_collector(buffers))
    except Exception:  # noqa: BLE001  a user's __reduce__ may raise anything; cloudpickle decides what is an error
        return None
    return None if b"__main__" in data else data


def _collector(buffers: list[pickle.PickleBuffer]) -> Callable[[pickle.PickleBuffer], bool]:
    def collect(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < _IN_BAND_BYTES and not isinstance(raw.obj, Place):
            return True
        buffers.append(buffer)
        return False

    return collect


def loads(parts: Iterable[Bytes]) -> Any:
    """Unpickle a payload whose blobs have been fetched.

    Args:
        parts: The pickle, then its buffers; arrays on those that are read-only are read-only too.

    Raises:
        Exception: Whatever unpickling raises.
    """
    data, *buffers = parts
    return pickle.loads(data, buffers=buffers)


def dump_error(error: BaseException) -> tuple[Bytes, ...]:
    """Pickle an exception so that it certainly comes back.

    An exception whose `__init__` wants other arguments than its `args` is rebuilt without calling `__init__`, in an
    exception group too.

    Raises:
        Exception: It cannot be pickled in either way.
    """
    for candidate in (error, _Rebuilt(error)):
        try:
            payload = _dump_plain_error(candidate)
            loads(payload)
        except Exception as failure:  # noqa: BLE001  the user's class may raise anything here
            last = failure
        else:
            return payload
    raise last


def _dump_plain_error(value: object) -> tuple[Bytes, ...]:
    """Pickle as Python itself does: libraries such as tblib, which dask.distributed installs, change it process-wide.

    Theirs follows `__context__`, which may refer to itself, and loses what `__new__` wants.
    """
    buffers: list[pickle.PickleBuffer] = []
    file = io.BytesIO()
    known = cloudpickle.Pickler.dispatch_table

    class PlainPickler(cloudpickle.Pickler):  # type: ignore[misc]  # the table is only looked at in the class
        dispatch_table = {kind: known[kind] for kind in list(known) if not _is_error_class(kind)}  # noqa: RUF012

    PlainPickler(file, protocol=5, buffer_callback=_collector(buffers)).dump(value)
    return (file.getvalue(), *(buffer.raw() for buffer in buffers))


def _is_error_class(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


class _Rebuilt:
    """Pickles as a recipe that makes the exception anew from its class, `args` and `__dict__`."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        error = self._error
        if isinstance(error, BaseExceptionGroup):
            inner = [_Rebuilt(one) for one in error.exceptions]
            return _rebuild, (type(error), (error.message, inner), error.__dict__)
        return _rebuild, (type(error), error.args, error.__dict__)


def _rebuild(cls: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def format_error(error: BaseException, skip_frames: int) -> str:
    """The traceback as text, without the outermost `skip_frames` frames, which are the worker's own."""
    where = error.__traceback__
    for _ in range(skip_frames):
        where = where.tb_next if where and where.tb_next else where
    return "".join(traceback.format_exception(type(error), error, where))


def seal(frame: Frame, key: bytes) -> bytes:
    """Bytes of a frame: a keyed BLAKE3 tag, the length of a JSON header, the header, the inline parts."""
    segments: list[Bytes] = []
    header = {
        "job": frame.job_id,
        "request_id": frame.request_id,
        "log_stream": frame.log_stream,
        "environment": frame.environment_id,
        "events_before": frame.events_before,
        "rss": frame.rss_bytes,
        "s3": dict(frame.s3_requests),
        "reused": dict(frame.reused),
        "outcomes": [_outcome_to_json(outcome, segments) for outcome in frame.outcomes],
    }
    if frame.packages:
        header["packages"] = dict(frame.packages)
    encoded = json.dumps(header).encode()
    body = b"".join([_HEADER.pack(len(encoded)), encoded, *segments])
    return _tag(body, key) + body


def seal_stop_list(seqs: Collection[int], keys: Collection[bytes], job_id: str) -> bytes:
    """Bytes of a job's stop list: how many tags, a keyed BLAKE3 tag for each of `keys`, and JSON.

    The JSON has the `seq` of the calls as ranges. Each of a job's functions has a secret, and thus a key, of its own.
    """
    body = json.dumps({"stop": ranges_of(seqs), "job": job_id}).encode()
    return bytes([len(keys)]) + b"".join(_tag(body, key) for key in keys) + body


def unseal_stop_list(data: Bytes, key: bytes, job_id: str) -> list[tuple[int, int]]:
    """Authenticate and decode a stop list: ranges of `seq`, both ends included.

    Raises:
        TamperedError: It was not sealed with `key`, or it belongs to another job.
        ProtocolError: It was, but is malformed.
    """
    begin = 1 + _TAG_BYTES * (data[0] if data else 0)
    body = bytes(memoryview(data)[begin:])
    tags = [bytes(data[at : at + _TAG_BYTES]) for at in range(1, begin, _TAG_BYTES)]
    if _tag(body, key) not in tags:
        raise TamperedError("a stop list fails its signature")
    try:
        raw = json.loads(body)
        found, of = [(int(first), int(last)) for first, last in raw["stop"]], raw["job"]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ProtocolError(f"a signed stop list is malformed: {error!r}") from None
    if of != job_id:
        raise TamperedError(f"a stop list of job {of!r} lies where one of job {job_id!r} belongs")
    return found


def _authenticated(data: Bytes, key: bytes, what: str) -> memoryview:
    """What follows the tag, if the tag is right."""
    view = memoryview(data)
    if len(view) < _TAG_BYTES or blake3(view[_TAG_BYTES:], key=key).digest() != view[:_TAG_BYTES]:
        raise TamperedError(f"{what} fails its signature, so it was not unpickled")
    return view[_TAG_BYTES:]


def unseal(data: Bytes, key: bytes, job_id: str, first_seq: int | None = None) -> Frame:
    """Authenticate and decode a frame; its payloads stay pickled.

    Args:
        data: What was found.
        key: The job's key.
        job_id: The job that it has to belong to.
        first_seq: That which its first call has to have, after which a frame's object is named; None: any.

    Raises:
        TamperedError: It was not sealed with `key`, or it belongs to another job or to another call.
        ProtocolError: It was, but is malformed.
    """
    body = _authenticated(data, key, "a frame of outcomes")
    try:
        (length,) = _HEADER.unpack_from(body)
        header = json.loads(str(body[_HEADER.size : _HEADER.size + length], "utf-8"))
        reader = _Reader(body[_HEADER.size + length :])
        frame = Frame(
            job_id=header["job"],
            outcomes=tuple(_outcome_from_json(one, reader) for one in header["outcomes"]),
            request_id=str(header["request_id"]),
            log_stream=str(header["log_stream"]),
            environment_id=str(header["environment"]),
            events_before=_whole(header["events_before"]),
            rss_bytes=_whole(header["rss"]),
            s3_requests={str(verb): _whole(count) for verb, count in header["s3"].items()},
            packages={str(name): str(version) for name, version in header.get("packages", {}).items()},
            reused={str(what): _whole(amount) for what, amount in header.get("reused", {}).items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, struct.error) as error:
        raise ProtocolError(f"a signed frame is malformed: {error!r}") from None
    if frame.job_id != job_id:
        raise TamperedError(f"a frame of job {frame.job_id!r} lies where one of job {job_id!r} belongs")
    _check_first(frame, first_seq)
    return frame


def _check_first(frame: Frame, first_seq: int | None) -> None:
    """An authentic frame of the job says nothing about a call of which it has no outcome."""
    found = frame.outcomes[0].seq if frame.outcomes else None
    if first_seq is not None and found != first_seq:
        raise TamperedError(f"a frame of call {found} lies where that of call {first_seq} belongs")


def _tag(body: bytes, key: bytes) -> bytes:
    return blake3(body, key=key).digest()


class _Reader:
    """Hands out the segments behind a header, one after the other."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> memoryview:
        if size < 0 or self._at + size > len(self._data):
            raise ValueError("a segment reaches beyond the frame")
        self._at += size
        return self._data[self._at - size : self._at]


def _outcome_to_json(outcome: Outcome, segments: list[Bytes]) -> list[Any]:
    parts: list[Any] = []
    for part in outcome.payload:
        if isinstance(part, BlobRef):
            parts.append(part.to_json())
        else:
            parts.append(len(part))
            segments.append(part)
    return [
        outcome.seq,
        outcome.kind,
        parts,
        outcome.reason,
        outcome.detail,
        round(outcome.seconds, 6),
        round(outcome.cpu_s, 6),
        outcome.stdout,
        outcome.stderr,
        outcome.caught,
        outcome.apart,
    ]


def _outcome_from_json(raw: list[Any], reader: _Reader) -> Outcome:
    seq, kind, parts, reason, detail, seconds, cpu_s, stdout, stderr, caught, apart = raw
    if kind not in ("value", "error", "failed"):
        raise ValueError(f"unknown kind of outcome {kind!r}")
    payload = tuple(BlobRef.from_json(one) if isinstance(one, dict) else reader.take(_whole(one)) for one in parts)
    if (kind == "failed") == bool(payload):
        raise ValueError(f"an outcome of kind {kind!r} has {len(payload)} parts")
    return Outcome(
        seq=_whole(seq),
        kind=kind,
        payload=payload,
        reason=str(reason),
        detail=str(detail),
        seconds=_finite(seconds),
        cpu_s=_finite(cpu_s),
        stdout=str(stdout),
        stderr=str(stderr),
        caught=tuple((str(a), str(b), str(c), str(d), _whole(e)) for a, b, c, d, e in caught),
        apart=_flag(apart),
    )


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no whole number")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _finite(value: object) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{value!r} is no number of seconds")
    return float(value)
