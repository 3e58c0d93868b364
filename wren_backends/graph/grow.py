"""Decides which tasks run in one call: chains, what is light, and small fan-ins; a pure function of the board.

A **step** is what one call runs: tasks, one after the other. It begins with a task that is ready and takes in

- what follows it alone: the next task of a chain, whose other inputs are there already. Nothing could run beside it,
  and it would only have to fetch what was just made;
- light tasks, all of whose inputs are in the step or there: cutting a value into pieces where it was made, so that each
  of those who need a piece fetches no more than that;
- a task that gathers, with all that it still waits for, if together they take no longer than a call of their own costs;
- further tasks that are ready, if all of them together take no longer than that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Set
from dataclasses import dataclass

from dask.typing import Key

from wren_backends.graph.board import Board
from wren_backends.graph.costs import LIGHT_S, WORTH_S, Costs

_LEAST_S = 25e-6
"""The least that a task is taken to need, so that not too many are looked at for one step."""

_MOST_TASKS = 2000

_MOST_BESIDE = 128
"""Tasks of one step that have nothing to do with each other: what each needs and makes travels with the others'."""


@dataclass(frozen=True)
class Limits:
    """What a step may be.

    Attributes:
        longest_s: It is expected to take no longer, in seconds.
        cost: How long a task is expected to take, in seconds, without fetching what it needs.
        alike: Whether two tasks may be in the same step.
        alone: Whether a task has to be in a step of its own.
        cuts: Whether a task takes a piece of a value, which is best done where the value is.
    """

    longest_s: float
    cost: Callable[[Key], float]
    alike: Callable[[Key, Key], bool] = lambda one, other: True
    alone: Callable[[Key], bool] = lambda key: False
    cuts: Callable[[Key], bool] = lambda key: False


def grow(board: Board, first: Key, limits: Limits) -> list[Key]:
    """The tasks of the step that begins with `first`, in an order in which they can run."""
    return _Step(board, first, limits).grow()


class _Step:
    def __init__(self, board: Board, first: Key, limits: Limits) -> None:
        self._board = board
        self._first = first
        self._limits = limits
        self._inside: dict[Key, None] = {}
        self._new: deque[Key] = deque()
        self._total_s = 0.0
        self._take([first])

    def grow(self) -> list[Key]:
        if not self._limits.alone(self._first):
            self._follow_all()
            self._fill_up()
        return list(self._inside)

    def _follow_all(self) -> None:
        while self._new and len(self._inside) < _MOST_TASKS:
            self._follow(self._new.popleft())

    def _fill_up(self) -> None:
        """Take in what would go next, as long as a call of its own would cost more than to wait for it here."""
        for _ in range(_MOST_BESIDE):
            if self._total_s >= WORTH_S or (other := self._board.pop()) is None:
                return
            if other in self._inside:
                continue
            if not self._may_take(other) or self._total_s + max(self._cost(other), _LEAST_S) > WORTH_S:
                self._board.release([other])
                return
            self._take([other])
            self._follow_all()

    def _take(self, keys: list[Key]) -> None:
        for key in keys:
            self._total_s += self._cost(key)
            self._inside[key] = None
            self._new.append(key)

    def _follow(self, key: Key) -> None:
        """Take in users of a task's value, as far as it is worth it."""
        users = self._board.users(key)
        for user in sorted(users, key=self._board.rank):
            if not self._may_take(user):
                continue
            waits = self._board.waits_for(user)
            if (len(waits) - len(self._inside) + 1) * _LEAST_S > WORTH_S:
                continue  # it lacks too much, without looking at what
            lacking = [one for one in waits if one not in self._inside]
            if not lacking:
                if self._belongs_here(user, users) and self._total_s + self._cost(user) <= self._limits.longest_s:
                    self._take([user])
            elif (len(lacking) + 1) * _LEAST_S <= WORTH_S:
                found = self._gathered(user)
                if found is not None:
                    self._take(found)

    def _belongs_here(self, user: Key, users: Set[Key]) -> bool:
        return len(users) == 1 or self._limits.cuts(user) or self._cost(user) <= LIGHT_S

    def _gathered(self, key: Key) -> list[Key] | None:
        """A task and all that it waits for, in order; None if that is too much for one step."""
        found: dict[Key, None] = {}
        spare_s = WORTH_S - self._total_s
        stack = [(key, False)]
        while stack:
            one, ready = stack.pop()
            if one in found or one in self._inside:
                continue
            if ready:
                found[one] = None
                continue
            spare_s -= max(self._cost(one), _LEAST_S)
            if spare_s < 0 or not self._may_take(one):
                return None
            stack.append((one, True))
            stack += [(need, False) for need in self._board.waits_for(one)]
        return list(found)

    def _may_take(self, key: Key) -> bool:
        free = key not in self._inside and self._board.is_free(key)
        return free and not self._limits.alone(key) and self._limits.alike(self._first, key)

    def _cost(self, key: Key) -> float:
        """What a task costs here: it has to fetch what is made elsewhere."""
        fetched = sum(self._board.available.get(one, 0) for one in self._board.needs(key) if one not in self._inside)
        return self._limits.cost(key) + Costs.of_fetching(fetched)
