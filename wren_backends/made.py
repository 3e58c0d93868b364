"""`MadeValues`: what a step of a dask graph made, as a process that attached to its job sees it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lambda_worker.objects import MissingObjectError, ObjectStore
from lambda_worker.protocol import BlobRef, Bytes, Part
from wren_backends.errors import StorageError
from wren_backends.parcels import Parcel, unpack


class MadeValues(Mapping[Any, Any]):
    """The values that one call of `wren_get` made for others, by dask key; each is fetched when it is asked for.

    It is no promise that they are there: a graph's client deletes what lies in S3 when the graph is done, unless it was
    told to keep it. `at_hand` has the keys of those that came with the outcome. Pickled, it takes along what can be
    had.

    Args:
        parcels: The values.
        store: Where the large ones lie; None if they cannot be had from here.
    """

    def __init__(self, parcels: Mapping[Any, Parcel], store: ObjectStore | None) -> None:
        self._parcels = dict(parcels)
        self._store = store

    @property
    def at_hand(self) -> frozenset[Any]:
        """Keys of the values that no request to S3 is needed for."""
        return frozenset(key for key, parcel in self._parcels.items() if not parcel.refs)

    def __getitem__(self, key: Any) -> Any:
        """A value; anew each time.

        Raises:
            KeyError: It was not made here.
            StorageError: It is gone from the bucket, or cannot be fetched.
            TamperedObjectError: It is not what was put there.
            SerializationError: It cannot be unpickled here.
        """
        parcel, what = self._parcels[key], f"the value of dask key {key!r}"
        try:
            return unpack(lambda: [self._part(part) for part in parcel.payload], what)
        except MissingObjectError as error:
            raise StorageError(
                f"{what} is gone from the bucket: a graph's intermediate values are deleted when it is done, unless "
                "it is computed with keep_intermediates=True"
            ) from error

    def _part(self, part: Part) -> Bytes:
        if not isinstance(part, BlobRef):
            return part
        if self._store is None:
            raise MissingObjectError(f"{part.key} was not there when this was pickled")
        return self._store.get_blob(part)

    def __contains__(self, key: object) -> bool:
        return key in self._parcels

    # The values need not be there, and may be large: nothing but asking for one fetches it.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __iter__(self) -> Iterator[Any]:
        return iter(self._parcels)

    def __len__(self) -> int:
        return len(self._parcels)

    def __repr__(self) -> str:
        sizes = (f"{key!r}: {parcel.size:,} bytes" for key, parcel in self._parcels.items())
        return f"<MadeValues {', '.join(sizes)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _of_payloads, ({key: self._complete(parcel) for key, parcel in self._parcels.items()},)

    def _complete(self, parcel: Parcel) -> tuple[Part, ...]:
        """The payload with all that can be had of it; access to the bucket does not travel."""
        try:
            return tuple(bytes(self._part(part)) for part in parcel.payload)
        except MissingObjectError:
            return parcel.payload


def _of_payloads(payloads: dict[Any, tuple[Part, ...]]) -> MadeValues:
    return MadeValues({key: Parcel(payload) for key, payload in payloads.items()}, None)
