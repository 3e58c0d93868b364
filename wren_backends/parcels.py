"""Values that the client has not opened: what a call that keeps its values apart brings back, ready to be handed on.

See `lambda_worker/parcels.py` for what they are. Whoever holds a parcel may put it among the arguments of calls, where
the value itself will be.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lambda_worker import codec
from lambda_worker.objects import MissingObjectError, ObjectStoreError
from lambda_worker.parcels import Place, open_parcel, packing
from lambda_worker.protocol import BlobRef, Bytes, Outcome, Part, Payload, inline_size, number_of, payload_size
from wren_backends.errors import SerializationError, StorageError, TamperedObjectError

_NAMED_BYTES = 4096
"""Pickles below this are copied into that of the arguments; what is larger takes a place of its own beside it."""


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Parcel:
    """A value as it travels; it unpickles as the value itself.

    Attributes:
        payload: Its pickle and buffers, inline or in S3.
        needs_modules: Whether it was made by a call that had the user's modules, which unpickling it may need.
    """

    payload: Payload
    needs_modules: bool = False

    @property
    def size(self) -> int:
        """Bytes of the whole value."""
        return payload_size(self.payload)

    @property
    def inline_size(self) -> int:
        """Bytes of it that the client holds."""
        return inline_size(self.payload)

    @property
    def refs(self) -> list[BlobRef]:
        """Its parts that are in S3."""
        return [part for part in self.payload if isinstance(part, BlobRef)]

    @property
    def own_refs(self) -> list[BlobRef]:
        """Those of them that one call made for this value and no other."""
        return [ref for ref in self.refs if ref.seq is not None]

    def __reduce__(self) -> tuple[Any, ...]:
        if not packing.get():
            raise SerializationError(
                "a value that was left in S3 can be among the arguments of calls, and in no other pickle: compute it "
                "with scheduler=wren_get, or call its result(), and pickle that"
            )
        data, *buffers = self.payload
        return open_parcel, (_in_pickle(data), *(pickle.PickleBuffer(Place(part)) for part in buffers))


def _in_pickle(data: Part) -> object:
    if isinstance(data, BlobRef) or len(data) >= _NAMED_BYTES:
        return pickle.PickleBuffer(Place(data))
    return bytes(data)


@dataclass(frozen=True, eq=False, slots=True)
class Landed:
    """What a call brings back whose function returned `Apart`.

    Attributes:
        note: Its note.
        parcels: Its values by name.
        environment: Name of the execution environment that made them.
    """

    note: Any
    parcels: Mapping[Any, Parcel]
    environment: str


def unpack(fetch: Callable[[], list[Bytes]], what: str) -> Any:
    """Unpickle a value.

    Args:
        fetch: Gets the content of its payload.
        what: How a message names it.

    Raises:
        MissingObjectError: A part of it is gone.
        StorageError: It cannot be fetched, or was tampered with.
        SerializationError: It cannot be unpickled here.
    """
    try:
        data, *buffers = fetch()
    except MissingObjectError:
        raise
    except codec.TamperedError as error:
        raise TamperedObjectError(f"{what}: {error}. Somebody else writes to the bucket") from error
    except ObjectStoreError as error:
        raise StorageError(f"{what} cannot be fetched: {error}. Check bucket and credentials") from error
    try:
        return codec.loads([data, *map(bytearray, buffers)])  # arrays have to be writable
    except Exception as error:
        raise SerializationError(
            f"{what} came back but could not be unpickled here ({type(error).__name__}: {error}). "
            "Its class has to be importable in this process"
        ) from error


def land(index: Any, outcome: Outcome, environment: str, *, needs_modules: bool) -> Landed:
    """Tell the parcels in an outcome apart; what they hold inline is copied, so that its frame can go.

    Args:
        index: The first part of the outcome's payload, unpickled.
        outcome: The outcome.
        environment: Where it was made.
        needs_modules: See `Parcel`.

    Raises:
        SerializationError: The function did not return `Apart`.
    """
    parcels, at = {}, 1
    try:
        note, counts = index
        for name, count in counts:
            parts = outcome.payload[at : at + count]
            payload = tuple(part if isinstance(part, BlobRef) else bytes(part) for part in parts)
            parcels[name] = Parcel(payload, needs_modules)
            at += count
    except (TypeError, ValueError) as error:
        raise SerializationError(
            f"the function of call {number_of(outcome.seq)} did not return values apart: {error}"
        ) from error
    return Landed(note, parcels, environment)
