"""The wire format: every type, object key and limit on which client and worker must agree.

An invocation carries one **event** (JSON, client to worker) and brings back one **reply** (JSON, worker to client).
Both hold **payloads**: a pickle and its out-of-band buffers (PEP 574), each **part** of which is either inline or a
**blob**, an object in S3 named by the BLAKE3 hash of its content. The outcomes of an event's calls travel together in
one sealed **frame** (see `codec.seal`), either in the reply or in S3.

Only the standard library is imported here.
"""

from __future__ import annotations

import base64
import binascii
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

PROTOCOL = 2
"""Version of everything in this file. Client and function refuse to work together when it differs."""

FUNCTION_KEY_VARIABLE = "WREN_FUNCTION_KEY"
"""Environment variable of the Lambda function with its secret, 64 hexadecimal digits, from which job keys derive."""

PRELOAD_VARIABLE = "WREN_PRELOAD"
"""Environment variable with a comma-separated list of modules that the handler imports while it initialises."""

PACKAGES_VARIABLE = "WREN_PACKAGES"
"""Environment variable that names the list of an archive of packages, `s3://BUCKET/KEY` with its BLAKE3 at the end;
empty: they are in a layer, or there are none."""

PACKAGES_FORMAT = 1
"""Version of that list: JSON with `pieces`, each `[BLAKE3, bytes, bytes unpacked]` of a zip beside it."""

IN_WORKER_VARIABLE = "WREN_IN_WORKER"
"""Set to "1" inside an execution environment, so that nested parallelism does not burst again."""

MODULES_FOLDER = "wren-modules-"
"""How the name of a folder begins that a worker unpacks the user's modules into."""

FRAME_BUDGET_BYTES = 4 * 1024 * 1024
"""Inline bytes of a frame in a reply: Base64 makes 4/3 of it, which leaves room in the 6 MB that Lambda allows a
synchronous response (AWS Lambda quotas, "invocation payload")."""

EVENT_BUDGET_BYTES: Mapping[str, int] = {"direct": 4 * 1024 * 1024, "s3": 700 * 1024}
"""Inline bytes of an event by mode: after Base64 they stay below the 6 MB of a synchronous invocation and the 1 MB of
an asynchronous one (AWS Lambda quotas, "invocation payload"; 1 MB since October 2025)."""

Mode = Literal["direct", "s3"]

_HASH = re.compile(r"[0-9a-f]{64}")
_JOB_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_BUCKET = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9])?")
_PREFIX = re.compile(r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9_.=@+-]+(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9_.=@+-]+)*")
_PREFIX_CHARS = 512
SENT_ANEW = 10**9
"""What a call's `seq` grows by when it is sent anew: what is committed under a `seq` stands for good, so a call that is
to have another outcome needs another one. The nine digits below stay the call's number."""

_MOST_SEQS = 10**12
_MOST_PACKAGES = 200


class ProtocolError(ValueError):
    """Bytes that are not what this protocol says; raised for anything malformed, hostile or from another version."""


def python_version() -> tuple[int, int]:
    """The interpreter's (major, minor): code pickled by value only runs on the same one."""
    return sys.version_info[:2]


def check_job_id(job_id: str) -> str:
    """Return `job_id` if it can safely be part of an object key.

    Raises:
        ProtocolError: It is not 1 to 63 of `a-z`, `0-9` and `-`, starting and ending with a letter or digit.
    """
    if not isinstance(job_id, str) or not _JOB_ID.fullmatch(job_id):
        raise ProtocolError(f"not a job id: {shown(job_id)} (1-63 characters of a-z, 0-9 and '-')")
    return job_id


def check_bucket(bucket: str) -> str:
    """Return `bucket` if it can be the name of an S3 bucket, by the laxer rules of old; S3 itself is stricter.

    Raises:
        ProtocolError: It is not 1 to 255 of letters, digits, `.`, `_` and `-`, starting and ending with one of the
            first two kinds (Amazon S3 user guide, "General purpose bucket naming rules").
    """
    if not isinstance(bucket, str) or not _BUCKET.fullmatch(bucket):
        raise ProtocolError(f"not a bucket: {shown(bucket)} (1-255 letters, digits, '.', '_' and '-')")
    return bucket


def check_prefix(prefix: str) -> str:
    """Return `prefix` if all keys below it are what they seem: S3 and its clients treat `..`, `//` and the like unlike.

    Raises:
        ProtocolError: It is neither empty nor at most 512 of letters, digits, `_.=@+-` and single slashes inside, or a
            part of it is `.` or `..`.
    """
    if not isinstance(prefix, str) or (prefix and (len(prefix) > _PREFIX_CHARS or not _PREFIX.fullmatch(prefix))):
        raise ProtocolError(
            f"not a prefix: {shown(prefix)} (at most {_PREFIX_CHARS} letters, digits and _.=@+-, in parts with a slash "
            "between them, none of which is '.' or '..')"
        )
    return prefix


def shown(value: object) -> str:
    """`repr` for a message: it may be of any length, and hold anything."""
    text = ascii(value)
    return text if len(text) <= 100 else f"{text[:100]}... ({len(text)} characters)"


def number_of(seq: int) -> int:
    """Number of a call within its job, from 0, whether it was sent once or anew."""
    return seq % SENT_ANEW


def seq_when_sent_anew(seq: int) -> int | None:
    """The next `seq` of a call; None if it was sent anew so often that there is none."""
    return seq + SENT_ANEW if seq + SENT_ANEW < _MOST_SEQS else None


def outcome_key(job_id: str, seq: int) -> str:
    """Key (below the project's prefix) of the frame whose first call has this `seq`; keys sort as those do."""
    return f"{outcome_folder(job_id)}{seq:012d}"


def stop_key(job_id: str) -> str:
    """Key (below the project's prefix) of the list of calls that the client has given up."""
    return f"jobs/{check_job_id(job_id)}/stop"


def outcome_folder(job_id: str) -> str:
    """Key prefix of a job's frames: one flat folder, because not every S3 sorts keys across `/` alike."""
    return f"jobs/{check_job_id(job_id)}/outcomes/"


@dataclass(frozen=True, slots=True)
class BlobRef:
    """Names an immutable object by the hash of its content.

    Attributes:
        digest: BLAKE3 of the content, 64 lower-case hexadecimal digits.
        size: Length of the content in bytes.
        job_id: The job that made it, for data that is deleted with the job; None for what all jobs share.
        seq: Of the call that made it, for data that goes before its job does: no other call has a hand in it.
    """

    digest: str
    size: int
    job_id: str | None = None
    seq: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.digest, str) or not _HASH.fullmatch(self.digest):
            raise ProtocolError(f"not a BLAKE3 digest: {shown(self.digest)}")
        if not isinstance(self.size, int) or isinstance(self.size, bool) or self.size < 0:
            raise ProtocolError(f"not a size: {shown(self.size)}")
        if self.job_id is not None:
            check_job_id(self.job_id)
        if self.seq is not None and not (self.job_id and _is_int(self.seq) and 0 <= self.seq < _MOST_SEQS):
            raise ProtocolError(f"not the seq of a call of a job: {shown(self.seq)}")

    @property
    def key(self) -> str:
        """Object key below the project's prefix."""
        if not self.job_id:
            return f"blobs/{self.digest}"
        call = "" if self.seq is None else f"{self.seq:012d}-"
        return f"jobs/{self.job_id}/data/{call}{self.digest}"

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        found: dict[str, Any] = {"blob": self.digest, "size": self.size}
        if self.job_id:
            found["job"] = self.job_id
        if self.seq is not None:
            found["call"] = self.seq
        return found

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> BlobRef:
        """Inverse of `to_json`; raises ProtocolError."""
        return cls(_get(raw, "blob", str), _get(raw, "size", int), raw.get("job"), raw.get("call"))


Bytes = bytes | bytearray | memoryview
"""Anything that holds bytes; views are one-dimensional and of single bytes."""

Part = Bytes | BlobRef
"""A pickle or one of its buffers: inline bytes, or where they lie."""

Payload = tuple[Part, ...]
"""A value in transit: the pickle, then its out-of-band buffers in order."""


@dataclass(frozen=True, slots=True)
class WireCall:
    """One call as the worker sees it.

    Attributes:
        seq: Number of the call within its job, from 0, and `SENT_ANEW` for each time that it was sent anew.
        function: Index into `Event.functions`.
        arguments: Payload of `(args, kwargs)`.
        shared_from_bytes: Buffers in blobs of at least this size are handed to the call read-only, straight from the
            worker's cache; smaller ones as copies that it may write to. 0: all of them are copied.
    """

    seq: int
    function: int
    arguments: Payload
    shared_from_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """What one invocation asks for.

    Attributes:
        job_id: The job, which also salts the key that frames are sealed with.
        calls: The calls, run in this order; never empty.
        functions: Payloads of the functions they call.
        bucket: S3 bucket.
        prefix: Key prefix of the project in that bucket, without slashes at its ends.
        mode: `direct` (the frame is wanted in the reply) or `s3` (it is committed to S3).
        attempt: 1 for the first attempt at these calls.
        commit_after_s: In `direct`, commit to S3 before replying once the event has taken this long.
        modules: Blob with the user's own modules, a zip, if the calls need any.
        initializer: Payload of `(initializer, initargs)`, run once per execution environment and job.
        worker_environment: Environment variables to set while the calls run.
        forward_output: Whether printed text and warnings are sent back.
        echo_output: Whether each line that is printed is marked in the function's log, for a client that shows it live.
        packages: Versions of the client's packages that the worker is to hold its own against; empty: it need not.
        sent_s: When it was sent, seconds since 1970 by the client's clock.
        python: The client's (major, minor).
        protocol: The client's `PROTOCOL`.
    """

    job_id: str
    calls: tuple[WireCall, ...]
    functions: tuple[Payload, ...]
    bucket: str
    prefix: str
    mode: Mode = "direct"
    attempt: int = 1
    commit_after_s: float = 10.0
    modules: BlobRef | None = None
    initializer: Payload | None = None
    worker_environment: Mapping[str, str] = field(default_factory=dict)
    forward_output: bool = True
    echo_output: bool = False
    packages: Mapping[str, str] = field(default_factory=dict)
    sent_s: float = 0.0
    python: tuple[int, int] = field(default_factory=python_version)
    protocol: int = PROTOCOL

    def blobs(self) -> list[BlobRef]:
        """Every blob that it names, in no order, perhaps more than once."""
        payloads = [*self.functions, *(call.arguments for call in self.calls), self.initializer or ()]
        found = [part for payload in payloads for part in payload if isinstance(part, BlobRef)]
        return [*found, self.modules] if self.modules else found

    def to_json(self) -> dict[str, Any]:
        """JSON form, ready for `json.dumps`; what is optional is left out where it says nothing."""
        optional = {"echo_output": self.echo_output, "packages": dict(self.packages)}
        return {
            **{name: value for name, value in optional.items() if value},
            "protocol": self.protocol,
            "python": list(self.python),
            "job": self.job_id,
            "mode": self.mode,
            "attempt": self.attempt,
            "bucket": self.bucket,
            "prefix": self.prefix,
            "commit_after_s": self.commit_after_s,
            "modules": self.modules.to_json() if self.modules else None,
            "initializer": payload_to_json(self.initializer) if self.initializer else None,
            "environment": dict(self.worker_environment),
            "forward_output": self.forward_output,
            "sent_s": self.sent_s,
            "functions": [payload_to_json(payload) for payload in self.functions],
            "calls": [
                [call.seq, call.function, payload_to_json(call.arguments), call.shared_from_bytes]
                for call in self.calls
            ],
        }

    @classmethod
    def from_json(cls, raw: object) -> Event:
        """Decode what arrived, trusting nothing about its shape.

        Raises:
            ProtocolError: It is not an event of this version of the protocol.
        """
        event = _mapping(raw, "the event")
        if event.get("protocol") != PROTOCOL:
            raise ProtocolError(f"the event speaks protocol {shown(event.get('protocol'))}, this function {PROTOCOL}")
        functions = tuple(payload_from_json(one) for one in _get(event, "functions", list))
        calls = tuple(_call_from_json(one, len(functions)) for one in _get(event, "calls", list))
        if not calls:
            raise ProtocolError("the event has no calls")
        mode = _get(event, "mode", str)
        if mode not in ("direct", "s3"):
            raise ProtocolError(f"unknown mode {shown(mode)}")
        modules = event.get("modules")
        initializer = event.get("initializer")
        return cls(
            job_id=check_job_id(_get(event, "job", str)),
            calls=calls,
            functions=functions,
            bucket=check_bucket(_get(event, "bucket", str)),
            prefix=check_prefix(_get(event, "prefix", str)),
            mode=mode,
            attempt=_get(event, "attempt", int),
            commit_after_s=_seconds(_get(event, "commit_after_s", (int, float))),
            modules=BlobRef.from_json(_mapping(modules, "modules")) if modules else None,
            initializer=payload_from_json(initializer) if initializer else None,
            worker_environment=_strings(_get(event, "environment", dict)),
            forward_output=_get(event, "forward_output", bool),
            echo_output=event.get("echo_output") is True,
            packages=_packages(event.get("packages", {})),
            sent_s=_seconds(_get(event, "sent_s", (int, float))),
            python=_pair(_get(event, "python", list)),
        )


RefusalReason = Literal[
    "protocol",
    "python",
    "packages",
    "event",
    "missing",
    "tampered",
    "initializer",
    "storage",
    "denied",
    "configuration",
]
"""Why a worker gives no outcomes. With `storage` S3 was away for too long, which may pass; with `denied` it refused."""

OutcomeKind = Literal["value", "error", "failed"]

FailureReason = Literal[
    "unpicklable_value",
    "unpicklable_error",
    "unloadable",
    "missing_blob",
    "tampered_blob",
    "exited",
    "time_limit",
    "stopped",
    "storage",
    "denied",
]
"""Why a call has neither a value nor an exception of its own."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one call ended.

    Attributes:
        seq: That of the call.
        kind: `value`, `error` (the user's exception) or `failed` (neither could be had).
        payload: The pickled value, or the pickled exception; empty when `failed`.
        reason: For `failed`: why.
        detail: For `failed`: a sentence for the user. For an error: the formatted remote traceback.
        seconds: Wall time of the call in the worker.
        cpu_s: CPU time of the worker's process during the call.
        stdout: What the call printed, bounded.
        stderr: What it printed to standard error, bounded.
        caught: Warnings it raised: (category module, category name, message, file name, line).
        apart: Whether the payload is that of several values apart, behind an index (see `parcels.Apart`).
    """

    seq: int
    kind: OutcomeKind
    payload: Payload = ()
    reason: str = ""
    detail: str = ""
    seconds: float = 0.0
    cpu_s: float = 0.0
    stdout: str = ""
    stderr: str = ""
    caught: tuple[tuple[str, str, str, str, int], ...] = ()
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """The outcomes of one invocation and where they were made.

    Attributes:
        job_id: The job; part of what is sealed, so that a frame cannot be passed off as another job's.
        outcomes: One for each call of the event, in its order.
        request_id: AWS request id of the invocation.
        log_stream: CloudWatch log stream of the execution environment.
        environment_id: Random name of the execution environment, new at each cold start.
        events_before: Events that this environment had served before; 0 says cold start.
        rss_bytes: Peak resident memory of the worker's process so far.
        s3_requests: Requests to S3 that this event cost the worker before it sealed the frame, by verb.
        packages: Versions of the worker's packages, of those that the event named and that are there.
        reused: What this event needed of S3 and the environment had at hand: `blobs`, and their `bytes`.
    """

    job_id: str
    outcomes: tuple[Outcome, ...]
    request_id: str
    log_stream: str
    environment_id: str
    events_before: int
    rss_bytes: int = 0
    s3_requests: Mapping[str, int] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    reused: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """The JSON that a worker returns to Lambda; exactly one of `frame`, `committed` and `refused` is set.

    Attributes:
        frame: A sealed frame.
        committed: Whether the frame was committed to S3 and is to be read there.
        refused: Why nothing was run.
        detail: With `refused`: a sentence for the user.
    """

    frame: bytes | None = None
    committed: bool = False
    refused: str = ""
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        found: dict[str, Any] = {"protocol": PROTOCOL}
        if self.frame is not None:
            found["frame"] = base64.b64encode(self.frame).decode("ascii")
        if self.committed:
            found["committed"] = True
        if self.refused:
            found |= {"refused": self.refused, "detail": self.detail}
        return found

    @classmethod
    def from_json(cls, raw: object) -> Reply:
        """Decode a reply; raises ProtocolError."""
        reply = _mapping(raw, "the reply")
        if reply.get("protocol") != PROTOCOL:
            raise ProtocolError(f"the function speaks protocol {shown(reply.get('protocol'))}, this client {PROTOCOL}")
        frame = reply.get("frame")
        found = cls(
            frame=_unbase64(frame) if frame is not None else None,
            committed=reply.get("committed") is True,
            refused=str(reply.get("refused", "")),
            detail=str(reply.get("detail", "")),
        )
        if (found.frame is not None) + found.committed + bool(found.refused) != 1:
            raise ProtocolError("the reply has to hold one of frame, committed and refused")
        return found


def payload_to_json(payload: Payload) -> list[Any]:
    """JSON form of a payload: a string for an inline part, an object for a blob."""
    return [part.to_json() if isinstance(part, BlobRef) else base64.b64encode(part).decode("ascii") for part in payload]


def payload_from_json(raw: object) -> Payload:
    """Inverse of `payload_to_json`; raises ProtocolError."""
    if not isinstance(raw, list) or not raw:
        raise ProtocolError("a payload is a list with at least one part")
    return tuple(BlobRef.from_json(one) if isinstance(one, dict) else _unbase64(one) for one in raw)


def payload_size(payload: Payload) -> int:
    """Bytes of the whole payload, inline and in blobs."""
    return sum(part.size if isinstance(part, BlobRef) else len(part) for part in payload)


def inline_size(payload: Payload) -> int:
    """Bytes of a payload's inline parts."""
    return sum(0 if isinstance(part, BlobRef) else len(part) for part in payload)


def _call_from_json(raw: object, functions: int) -> WireCall:
    if not isinstance(raw, list) or len(raw) != 4:
        raise ProtocolError("a call is a list of four")
    seq, function, arguments, shared_from_bytes = raw
    if not all(_is_int(one) for one in (seq, function, shared_from_bytes)) or not 0 <= seq < _MOST_SEQS:
        raise ProtocolError("a call is numbered from 0, in 12 digits")
    if not 0 <= function < functions:
        raise ProtocolError("a call names a function that the event does not have")
    return WireCall(seq, function, payload_from_json(arguments), shared_from_bytes)


def _mapping(raw: object, what: str) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        raise ProtocolError(f"{what} has to be a JSON object, not {type(raw).__name__}")
    return raw


def _get(raw: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    value = raw.get(name)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ProtocolError(f"{name!r} is missing or of the wrong type")
    return value


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _strings(raw: Mapping[Any, Any]) -> dict[str, str]:
    for name, value in raw.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ProtocolError("environment variables have to be strings")
        if not name or "=" in name or "\0" in name + value or not _is_encodable(name + value):
            raise ProtocolError(f"not an environment variable: {shown(name)}")
    return dict(raw)


def _packages(raw: object) -> dict[str, str]:
    packages = _mapping(raw, "'packages'")
    if len(packages) > _MOST_PACKAGES or not all(isinstance(one, str) for pair in packages.items() for one in pair):
        raise ProtocolError(f"'packages' has to name at most {_MOST_PACKAGES} versions")
    return dict(packages)


def _is_encodable(text: str) -> bool:
    """Whether it can be an environment variable: as `os.environ` does, bytes may travel as lone surrogates."""
    try:
        text.encode(sys.getfilesystemencoding(), "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _seconds(raw: float) -> float:
    try:
        return float(raw)
    except OverflowError:
        raise ProtocolError("a number of seconds is too large") from None


def _pair(raw: Sequence[Any]) -> tuple[int, int]:
    if len(raw) != 2 or not all(_is_int(one) for one in raw):
        raise ProtocolError("'python' has to be [major, minor]")
    return raw[0], raw[1]


def _unbase64(raw: object) -> bytes:
    if not isinstance(raw, str):
        raise ProtocolError("an inline part has to be a Base64 string")
    try:
        return binascii.a2b_base64(raw, strict_mode=True) if raw else b""
    except (ValueError, binascii.Error) as error:
        raise ProtocolError(f"not Base64: {error}") from None
