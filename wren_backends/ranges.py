"""A set of whole numbers as ranges: calls end in about the order in which they were numbered."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable


class Ranges:
    """Numbers, kept as ranges.

    Args:
        pairs: First and last number of each range, in order and apart from each other.
    """

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()) -> None:
        found = list(pairs)
        self._firsts = [first for first, _ in found]
        self._lasts = [last for _, last in found]
        self.changes = 0
        """How many numbers were added that were not there."""

    def add(self, number: int) -> None:
        """Add a number."""
        at = bisect_right(self._firsts, number)
        if at and number <= self._lasts[at - 1]:
            return
        self.changes += 1
        follows = at > 0 and self._lasts[at - 1] == number - 1
        leads = at < len(self._firsts) and self._firsts[at] == number + 1
        if follows and leads:
            self._lasts[at - 1] = self._lasts.pop(at)
            del self._firsts[at]
        elif follows:
            self._lasts[at - 1] = number
        elif leads:
            self._firsts[at] = number
        else:
            self._firsts.insert(at, number)
            self._lasts.insert(at, number)

    def pairs(self, most: int) -> tuple[tuple[int, int], ...]:
        """The first `most` ranges, both ends included."""
        return tuple(zip(self._firsts[:most], self._lasts[:most], strict=True))

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._firsts, number)
        return at > 0 and number <= self._lasts[at - 1]

    def __bool__(self) -> bool:
        return bool(self._firsts)
