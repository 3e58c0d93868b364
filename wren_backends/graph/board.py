"""Where a graph stands: which tasks are done, under way, ready or waiting, and which values nobody needs any more."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Set

from dask.typing import Key

from wren_backends.graph.plan import Plan


class Board:
    """The state of one graph. It knows keys, never values.

    Args:
        plan: The graph.
        urgency: For each task how much it is to be preferred; 0 where nothing is said.

    Attributes:
        available: Keys whose values can be had, with their sizes in bytes.
    """

    def __init__(self, plan: Plan, urgency: Mapping[Key, float]) -> None:
        self._plan = plan
        self._urgency = urgency
        self.available: dict[Key, int] = dict.fromkeys(plan.data, 0)
        self._waits: dict[Key, set[Key]] = {}
        self._users: dict[Key, set[Key]] = {}
        self._under_way: set[Key] = set()
        self._unfinished: set[Key] = set()
        self._ready: list[tuple[float, int, Key]] = []
        for key in plan.work:
            self._add(key)

    def _add(self, key: Key) -> None:
        self._unfinished.add(key)
        for one in self._plan.needs[key]:
            self._users.setdefault(one, set()).add(key)
        self._waits[key] = {one for one in self._plan.needs[key] if one not in self.available}
        if not self._waits[key]:
            self._push(key)

    def _push(self, key: Key) -> None:
        # No two tasks have the same rank, so that keys, which need not have an order, are never compared.
        heapq.heappush(self._ready, (-self._urgency.get(key, 0.0), self._plan.rank[key], key))

    def pop(self) -> Key | None:
        """The task that goes next, if one is ready; to be claimed, or it is not seen again."""
        while self._ready:
            *_, key = heapq.heappop(self._ready)
            if self.is_free(key) and not self._waits[key]:
                return key
        return None

    @property
    def is_done(self) -> bool:
        """Whether no task is left."""
        return not self._unfinished

    def is_free(self, key: Key) -> bool:
        """Whether it is a task that is neither done nor under way."""
        return key in self._unfinished and key not in self._under_way

    def users(self, key: Key) -> Set[Key]:
        """Tasks that need the value and are not done."""
        return self._users.get(key, frozenset())

    def rank(self, key: Key) -> int:
        """Place of a task in dask's order."""
        return self._plan.rank[key]

    def needs(self, key: Key) -> tuple[Key, ...]:
        """Keys that a task depends on."""
        return self._plan.needs[key]

    def waits_for(self, key: Key) -> Set[Key]:
        """Those of them that are not available."""
        return self._waits[key]

    def claim(self, keys: Iterable[Key]) -> None:
        """These tasks are under way from now on."""
        self._under_way.update(keys)

    def release(self, keys: Iterable[Key]) -> None:
        """These tasks are under way no more, and not done either."""
        for key in keys:
            self._under_way.discard(key)
            if key in self._unfinished and not self._waits[key]:
                self._push(key)

    def finish(self, keys: Iterable[Key], made: Mapping[Key, int]) -> list[Key]:
        """These tasks are done.

        Args:
            keys: The tasks.
            made: Those of their values that can be had, with their sizes in bytes.

        Returns:
            The keys whose values nobody needs any more.
        """
        done, touched = list(keys), dict[Key, None]()
        for key in done:
            self._under_way.discard(key)
            self._unfinished.discard(key)
            for one in self._plan.needs[key]:
                self._users[one].discard(key)
                touched[one] = None
            touched[key] = None
        for key, size in made.items():
            self._have(key, size)
        # A task that is to be done again may need what was of no use outside when these were sent.
        self.lose([key for key in done if key not in self.available and (self.users(key) or key in self._plan.home)])
        unneeded = [key for key in touched if self._is_unneeded(key)]
        for key in unneeded:
            del self.available[key]
        return unneeded

    def _have(self, key: Key, size: int) -> None:
        self.available[key] = size
        for user in self.users(key):
            self._waits[user].discard(key)
            if not self._waits[user] and self.is_free(user):
                self._push(user)

    def _is_unneeded(self, key: Key) -> bool:
        return key in self.available and not self.users(key) and key not in self._plan.home

    def lose(self, keys: Iterable[Key]) -> list[Key]:
        """These values are gone: the tasks that made them, and what those need, are to be done again.

        Args:
            keys: Of values that were available, or of tasks that are done.

        Returns:
            The tasks that are to be done again.
        """
        lost = list(keys)
        for key in lost:
            self.available.pop(key, None)
        again: dict[Key, None] = {}
        doubtful = list(lost)
        while doubtful:
            key = doubtful.pop()
            if key in self._plan.data:
                self.available.setdefault(key, 0)
            elif key not in self.available and key not in self._unfinished and key not in again:
                again[key] = None
                doubtful += self._plan.needs[key]
        for key in again:
            self._add(key)
        for key in [*again, *lost]:
            if key not in self.available:
                for user in self.users(key):
                    self._waits[user].add(key)
        return list(again)
