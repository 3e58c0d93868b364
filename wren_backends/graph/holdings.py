"""What the client has of a graph's values: the data it was given, and parcels that it has not opened."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from dask.typing import Key

from lambda_worker.objects import MissingObjectError
from lambda_worker.protocol import BlobRef
from wren_backends.errors import StorageError
from wren_backends.executor import WrenExecutor
from wren_backends.graph.inline import InlineBudget
from wren_backends.graph.persisted import Persisted, place_of
from wren_backends.parcels import Parcel


class LostPersistedError(Exception):
    """Persisted values are gone from the bucket; their recipes are needed.

    Args:
        lost: They.
    """

    def __init__(self, lost: list[Persisted]) -> None:
        super().__init__(lost)
        self.lost = lost


class GoneError(StorageError):
    """The value of a key, which is wanted here, is gone from the bucket.

    Args:
        key: The key.
    """

    def __init__(self, key: Key) -> None:
        super().__init__(f"the value of dask key {key!r} is gone from the bucket: somebody deletes objects there")
        self.key = key


class Holdings:
    """The values of one graph, by key.

    Args:
        executor: Pickles data, and fetches what is opened.

    Attributes:
        inline: Bounds the bytes that are held.
        made: Objects that calls of this graph put for others.
    """

    def __init__(self, executor: WrenExecutor) -> None:
        self._executor = executor
        self.inline = InlineBudget(executor.config.inline_limit_bytes)
        self.made: dict[BlobRef, None] = {}
        self._parcels: dict[Key, Parcel] = {}
        self._values: dict[Key, Any] = {}
        self._counted: set[Key] = set()

    def give(self, key: Key, value: Any) -> None:
        """Take in a value that is in the client, or one that was persisted where this executor can read it."""
        if isinstance(value, Persisted):
            self._parcels[key] = value.parcel
        else:
            self._values[key] = value

    def unreadable(self, persisted: Iterable[Persisted], *, looking: bool) -> list[Persisted]:
        """Those that were persisted where this executor cannot read, and those that are gone from the bucket.

        Args:
            persisted: What was persisted.
            looking: Look into the bucket even if none was persisted elsewhere.

        Raises:
            StorageError: S3 could not be asked.
        """
        place = place_of(self._executor)
        near = [one for one in persisted if one.place == place]
        found = [one for one in persisted if one.place != place]
        if looking or found:
            gone = self._executor.missing({ref for one in near for ref in one.parcel.refs})
            found += [one for one in near if not gone.isdisjoint(one.parcel.refs)]
        return found

    def land(self, key: Key, parcel: Parcel, promised: int | None) -> None:
        """Take in what a call brought back.

        Args:
            key: Its key.
            parcel: It.
            promised: The bytes that were set aside for it, if any were.
        """
        self._parcels[key] = parcel
        self.made.update(dict.fromkeys(parcel.own_refs))
        if promised is not None:
            self.inline.settle(promised, parcel.inline_size)
            self._counted.add(key)

    def __contains__(self, key: Key) -> bool:
        return key in self._values or key in self._parcels

    def size(self, key: Key) -> int:
        """Bytes that whoever needs the value has to fetch."""
        return sum(ref.size for ref in self._parcels[key].refs) if key in self._parcels else 0

    def parcel(self, key: Key) -> Parcel:
        """The value as it travels; the client's own is pickled once."""
        found = self._parcels.get(key)
        if found is None:
            found = self._parcels[key] = self._executor.parcel(self._values[key], f"the value of dask key {key!r}")
        return found

    def source(self, key: Key) -> tuple[bool, Any]:
        """Whether the value is in the client, and it or its parcel."""
        return (True, self._values[key]) if key in self._values else (False, self._parcels[key])

    def forget(self, key: Key) -> None:
        """Nobody needs the value any more."""
        self._values.pop(key, None)
        self.forget_parcel(key)

    def forget_parcel(self, key: Key) -> None:
        """What stands for the value is of no use any more."""
        parcel = self._parcels.pop(key, None)
        if parcel is not None and key in self._counted:
            self._counted.discard(key)
            self.inline.free(parcel.inline_size)

    def lost(self, parcels: Mapping[Key, Parcel]) -> list[Key] | None:
        """Which of the values that a call was sent with are gone from the bucket.

        Returns:
            Their keys; None if nothing is missing now, but others have taken the place of some since.

        Raises:
            StorageError: S3 could not be asked.
        """
        current = {key: parcel for key, parcel in parcels.items() if self._parcels.get(key) is parcel}
        found = self._gone(current)
        return found if found or len(current) == len(parcels) else None

    def lost_beside(self, key: Key, others: Iterable[Key]) -> list[Key]:
        """A key whose value was found to be gone, and those of others whose values are, too.

        Raises:
            StorageError: S3 could not be asked.
        """
        parcels = {one: self._parcels[one] for one in others if one in self._parcels and one not in self._values}
        return list(dict.fromkeys([key, *self._gone(parcels)]))

    def _gone(self, parcels: Mapping[Key, Parcel]) -> list[Key]:
        gone = self._executor.missing({ref for parcel in parcels.values() for ref in parcel.refs})
        return [key for key, parcel in parcels.items() if not gone.isdisjoint(parcel.refs)]

    def open(self, keys: Collection[Key]) -> dict[Key, Any]:
        """Values, in this process.

        Raises:
            GoneError: One is gone.
        """
        found = {key: self._values[key] for key in keys if key in self._values}
        rest = [key for key in keys if key not in found]
        values = self._executor.open_parcels(self._parcels[key] for key in rest)
        for key in rest:
            try:
                found[key] = next(values)
            except MissingObjectError:
                raise GoneError(key) from None
        return found

    def discard(self, spared: Iterable[BlobRef]) -> None:
        """Have what calls put for others deleted."""
        kept = set(spared)
        self._executor.discard([ref for ref in self.made if ref not in kept])
