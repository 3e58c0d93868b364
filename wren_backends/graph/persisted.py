"""Values that `dask.persist` leaves in S3: they stand in a collection's graph in place of the values themselves."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from dask.typing import Key

from lambda_worker.objects import MissingObjectError
from lambda_worker.parcels import packing
from lambda_worker.protocol import BlobRef
from wren_backends.errors import StorageError
from wren_backends.executor import WrenExecutor
from wren_backends.parcels import Parcel


class Persisted:
    """A value in S3, or a small one in the client that was never opened; it lives for as long as this object.

    dask takes it for a future of its own (`dask._task_spec._is_dask_future`).

    Args:
        key: Its dask key.
        parcel: The value.
        recipe: A graph that makes it again, should it be lost.
        executor: Whose job's it is.
    """

    __dask_future__ = True

    def __init__(self, key: Key, parcel: Parcel, recipe: Mapping[Key, Any], executor: WrenExecutor) -> None:
        self.key = key
        self.parcel = parcel
        self.recipe = recipe
        self.place = place_of(executor)
        self._executor = executor
        _known[key] = self

    def result(self) -> Any:
        """The value, in this process, as a future of distributed's has it.

        Raises:
            StorageError: It is gone, or cannot be fetched.
            SerializationError: It cannot be unpickled here.
        """
        try:
            (value,) = self._executor.open_parcels([self.parcel])
        except MissingObjectError as error:
            raise StorageError(f"what was persisted as {self.key!r} is gone: {error}. Persist it again") from error
        except RuntimeError as error:
            if "after shutdown" not in str(error):  # the standard library's words, as of any executor
                raise
            raise StorageError(
                f"what was persisted as {self.key!r} cannot be fetched: its executor was shut down. Persist it again"
            ) from error
        return value

    def __dask_tokenize__(self) -> tuple[str, Key]:
        return "wren-persisted", self.key

    def __reduce__(self) -> tuple[Any, ...]:
        """Among the arguments of a call it is the value, without passing this process; in another pickle it is too."""
        return self.parcel.__reduce__() if packing.get() else (_itself, (self.result(),))

    def __copy__(self) -> Persisted:
        return self

    def __deepcopy__(self, _: object) -> Persisted:
        return self

    def __repr__(self) -> str:
        return f"<Persisted {self.key!r}, {self.parcel.size:,} bytes>"


def _itself(value: Any) -> Any:
    return value


_known: weakref.WeakValueDictionary[Key, Persisted] = weakref.WeakValueDictionary()
_owners: dict[int, weakref.finalize[Any, Any]] = {}
_holders: Counter[BlobRef] = Counter()
_numbers = itertools.count()
_lock = threading.RLock()  # garbage may be collected, and finalizers run, while it is held


def find(key: Key) -> Persisted | None:
    """What was persisted under a key and still is."""
    return _known.get(key)


def place_of(executor: WrenExecutor) -> tuple[Any, ...]:
    """What two executors have in common that may read each other's values."""
    connection = executor.connection
    return connection.s3_url, connection.region, connection.bucket, connection.prefix


def own(parcel: Parcel, refs: Collection[BlobRef], executor: WrenExecutor) -> None:
    """Have objects deleted when all parcels that name them are let go of, and before the interpreter ends.

    Two values that one call made are the same object if they are equal.
    """
    if refs:
        with _lock:
            _holders.update(refs)
            number = next(_numbers)
            _owners[number] = weakref.finalize(parcel, _disown, number, tuple(refs), executor)


def _disown(number: int, refs: Collection[BlobRef], executor: WrenExecutor) -> None:
    with _lock:
        _owners.pop(number, None)
        _holders.subtract(refs)
        unheld = [ref for ref in refs if _holders[ref] <= 0]
        for ref in unheld:
            del _holders[ref]
    executor.discard(unheld)


def _let_go() -> None:
    for one in list(_owners.values()):
        one()


# Callbacks run in the reverse order of their registration: before the dispatcher's, which ends the threads.
threading._register_atexit(_let_go)  # type: ignore[attr-defined]
