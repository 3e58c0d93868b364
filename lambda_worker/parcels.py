"""Values that travel on without their client opening them: how a worker hands several out, and opens those it is given.

A **parcel** is the payload of a value that the client has not unpickled. It comes from an outcome, which its seal makes
trustworthy, and goes into the arguments of further calls as it is: small parts inline, large ones as the names of
objects in S3. So a value of any size costs the client a name, and only who needs the value fetches it.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from typing import Any

from lambda_worker.protocol import Bytes, Part

packing: ContextVar[bool] = ContextVar("packing", default=False)
"""Whether a payload is being made, as `codec.dumps` does: in any other pickle a `Place` would stay empty."""


class Place(bytearray):
    """An empty buffer that stands in a pickle where `part` belongs; whoever makes a payload puts the part there.

    Args:
        part: The bytes, or where they lie.
    """

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part = part


def open_parcel(data: Bytes, *buffers: Bytes) -> Any:
    """Unpickle a parcel: what it is pickled as calls this in the worker."""
    return pickle.loads(data, buffers=buffers)


class _InBand:
    """Pickles as the value that `parts` are the payload of, with its buffers in the pickle itself."""

    def __init__(self, parts: Sequence[Bytes]) -> None:
        self._parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        data, *buffers = self._parts
        return open_parcel, (bytes(data), *map(pickle.PickleBuffer, buffers))


def in_one(parts: Sequence[Bytes]) -> bytes:
    """A payload of one part that stands for the same value: one object in S3, for a copy at either end."""
    return pickle.dumps(_InBand(parts), protocol=5)


class Apart:
    """What a function returns whose values are to be parcels, each for itself, instead of one value for the client.

    Args:
        values: The values' names, they, and for each how many bytes of it may travel with the outcome; the rest goes to
            S3. Names are small, and each is there once.
        note: A small object that the client does open.
    """

    def __init__(self, values: Iterable[tuple[object, object, int]], note: object = None) -> None:
        self.values = list(values)
        self.note = note
