"""Numbers as ranges, both ends included: how stop lists, logs and the command line say which calls they mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def ranges_of(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """The ranges that hold just these numbers, in order."""
    found: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][1] + 1:
            found[-1] = found[-1][0], number
        else:
            found.append((number, number))
    return found


def texts(ranges: Iterable[tuple[int, int]]) -> list[str]:
    """How messages write them: `["1", "3-5"]`."""
    return [str(first) if first == last else f"{first}-{last}" for first, last in ranges]


def from_texts(written: Iterable[str]) -> tuple[tuple[int, int], ...]:
    """What `texts` has written; raises ValueError for what cannot be numbers."""
    pairs: list[Sequence[str]] = [part.partition("-")[::2] for part in written if part]
    return tuple((int(first or 0), int(last or first or 0)) for first, last in pairs)
