"""What a call ended with, as a payload: inline as far as its frame has room, the rest as objects in S3."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

from lambda_worker import codec
from lambda_worker.cache import BlobCache
from lambda_worker.objects import DeniedError, ObjectStore, ObjectStoreError
from lambda_worker.parcels import Apart, in_one
from lambda_worker.protocol import BlobRef, Bytes, FailureReason, OutcomeKind, Part, Payload

T = TypeVar("T")

_TOGETHER_BYTES = 4 * 1024 * 1024
"""Parts of a value that together are no larger are put as one object: to copy so much takes a millisecond or two, and a
request some 15."""

_SIDE_BY_SIDE = 16
"""Requests to S3 at once: each waits some 15 ms, while a few fill what an environment has of network."""


class CallFailedError(Exception):
    """A call ended without a value or an exception of its own."""

    def __init__(self, reason: FailureReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Budget:
    """Inline bytes that a frame has left."""

    def __init__(self, limit: int) -> None:
        self.left = limit

    def take(self, size: int) -> bool:
        """Whether so many bytes more have room; then they are taken."""
        if size > self.left:
            return False
        self.left -= size
        return True


def _together(parts: tuple[Bytes, ...], inline_limit: int) -> tuple[Bytes, ...]:
    """A payload as one part, if several small parts of it would each become an object."""
    spilt, room = [], Budget(inline_limit)
    for part in parts:
        if not room.take(len(part)):
            spilt.append(len(part))
    return (in_one(parts),) if len(spilt) > 1 and sum(spilt) <= _TOGETHER_BYTES else parts


def dump_value(value: object) -> tuple[Bytes, ...]:
    """Pickle what a call returned; raises CallFailedError."""
    try:
        return codec.dumps(value)
    except BaseException as error:
        what = f"its result, of type {type(value).__module__}.{type(value).__qualname__}, cannot be pickled"
        raise CallFailedError("unpicklable_value", f"{what}: {type(error).__name__}: {error}") from error


def describe_error(
    error: BaseException, budget: Budget, job_id: str, store: ObjectStore
) -> tuple[OutcomeKind, Payload, str, str]:
    """What a call's exception is to its outcome: kind, payload, reason and detail."""
    text = codec.format_error(error, skip_frames=2)
    if isinstance(error, SystemExit | KeyboardInterrupt):
        # They mean "end this process", which must not reach the client's process by way of `Future.result`.
        return "failed", (), "exited", f"{type(error).__name__}({', '.join(map(repr, error.args))})\n{text}"
    try:
        return "error", spill(codec.dump_error(error), budget, job_id, store), "", text
    except ObjectStoreError as trouble:
        return "failed", (), storage_reason(trouble), str(trouble)
    except BaseException as trouble:  # noqa: BLE001  as above
        why = f"its exception cannot be pickled ({type(trouble).__name__}: {trouble})"
        return "failed", (), "unpicklable_error", f"{why}; it was:\n{text}"


def spill(payload: tuple[Bytes, ...], budget: Budget, job_id: str, store: ObjectStore) -> Payload:
    """Move the parts that do not fit the frame's budget into blobs of the job."""
    parts: list[Part] = []
    for part in payload:
        if budget.take(len(part)):
            parts.append(part)
            continue
        ref = BlobRef(codec.digest(part), len(part), job_id)
        store.put_blob(ref, part)
        parts.append(ref)
    return tuple(parts)


def pack_apart(value: Apart, budget: Budget, job_id: str, seq: int, store: ObjectStore, blobs: BlobCache) -> Payload:
    """Payloads of several values, behind a pickle that names them and says where each begins."""
    dumped = [(name, _together(dump_value(one), limit), limit) for name, one, limit in value.values]
    index = pickle.dumps((value.note, [(name, len(parts)) for name, parts, _ in dumped]))
    budget.take(len(index))
    packed: list[Part] = [index]
    large: dict[BlobRef, Bytes] = {}
    for _, parts, limit in dumped:
        room = Budget(limit)
        for part in parts:
            if len(part) <= budget.left and room.take(len(part)):
                budget.take(len(part))
                packed.append(part)
            else:
                ref = BlobRef(codec.digest(part), len(part), job_id, seq)
                packed.append(ref)
                large[ref] = part
    side_by_side(lambda ref: store.put_blob(ref, large[ref]), large)
    for ref, part in large.items():
        blobs.put(ref, part)
    return tuple(packed)


def side_by_side(work: Callable[[BlobRef], T], refs: Iterable[BlobRef]) -> list[T]:
    """What `work` makes of each of `refs`; raises what it raises."""
    waiting = list(refs)
    if len(waiting) < 2:
        return [work(ref) for ref in waiting]
    with ThreadPoolExecutor(min(_SIDE_BY_SIDE, len(waiting))) as pool:
        return list(pool.map(work, waiting))


def storage_reason(error: ObjectStoreError) -> Literal["storage", "denied"]:
    """How an outcome or a refusal names trouble with S3."""
    return "denied" if isinstance(error, DeniedError) else "storage"
