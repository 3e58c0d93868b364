"""How long tasks take and what they make: what was measured of their kind in this process, and a guess until then."""

from __future__ import annotations

from typing import Any

from dask.typing import Key

from wren_backends.graph.plan import kind_of

LIGHT_S = 0.001
"""Tasks that take no longer than this run wherever their inputs are."""

WORTH_S = 0.025
"""What an invocation of its own costs beside its work, about: 10 to 20 ms for a warm Invoke within a region, 15 ms for
a small PUT or GET. Tasks that together take no longer are better off in one invocation, even one after the other."""

_BYTES_A_SECOND = 60e6
"""What one Lambda environment is taken to get from S3, in bytes a second: a guess, which nobody has measured here."""

_UNKNOWN_S = 1.0
_LIGHT_GUESS_S = 50e-6
_LIGHT_FUNCTIONS = frozenset(
    # indexing and the like: operator, dask.array.core's getters, dask.delayed and dask.utils
    {"getitem", "getter", "getter_nofancy", "getter_inline", "getattr", "itemgetter", "identity", "_identity_cast"}
    | {"list", "tuple", "dict", "single_key", "finalize_array"}
)
_WEIGHT = 0.3
_REMEMBERED_KINDS = 4096


class Costs:
    """Mean durations and large sizes by kind; the newest count most."""

    def __init__(self) -> None:
        self._means_s: dict[str, float] = {}
        self._sizes: dict[str, float] = {}

    def learn(self, key: Key, node: Any, seconds: float) -> None:
        """A task took so long in a worker."""
        kind = kind_of(key, node)
        before = self._means_s.get(kind)
        self._means_s[kind] = seconds if before is None else before + _WEIGHT * (seconds - before)
        if len(self._means_s) > _REMEMBERED_KINDS:
            del self._means_s[next(iter(self._means_s))]

    def learn_size(self, key: Key, node: Any, size: int) -> None:
        """A task's value has so many bytes."""
        kind = kind_of(key, node)
        before = self._sizes.get(kind, 0.0)
        self._sizes[kind] = max(size, before + _WEIGHT * (size - before))
        if len(self._sizes) > _REMEMBERED_KINDS:
            del self._sizes[next(iter(self._sizes))]

    def size_of(self, key: Key, node: Any) -> float | None:
        """How many bytes a task's value is expected to have at most; None if nothing is known of its kind."""
        return self._sizes.get(kind_of(key, node))

    def knows(self, key: Key, node: Any) -> bool:
        """Whether something was measured of a task's kind, or the first guess is as good."""
        return kind_of(key, node) in self._means_s or cuts(node)

    def of(self, key: Key, node: Any) -> float:
        """How long a task is expected to take, in seconds, without fetching what it needs."""
        known = self._means_s.get(kind_of(key, node))
        if known is not None:
            return known
        return _LIGHT_GUESS_S if cuts(node) else _UNKNOWN_S

    @staticmethod
    def of_fetching(size: int) -> float:
        """How long it takes to get so many bytes from S3, in seconds."""
        return size / _BYTES_A_SECOND


def cuts(node: Any) -> bool:
    """Whether a task takes a piece of a value, by its function: whatever that takes, to move the whole takes longer."""
    return getattr(getattr(node, "func", None), "__name__", "") in _LIGHT_FUNCTIONS
