"""Bounds what of intermediate values passes through the client, where small ones are cheaper than objects in S3."""

from __future__ import annotations

_MOST_BYTES = 32 * 1024 * 1024
_LARGEST_BYTES = 32 * 1024
"""A PUT costs as much as a quarter of a second of a small function, and 15 ms. So many bytes twice through the client's
network take less than that at 50 Mbit/s."""

_SPREAD_BYTES = 1024 * 1024
_LEAST_BYTES = 512
_SHARE = 1024
"""What is promised at a time: so, a few thousand calls may be under way before even small values find no room."""

_SLACK = 2.0


class InlineBudget:
    """How many bytes the client holds, and may yet hold, of values that it does not open.

    Args:
        inline_limit_bytes: `Config.inline_limit_bytes`.
    """

    def __init__(self, inline_limit_bytes: int) -> None:
        self._largest = min(inline_limit_bytes, _LARGEST_BYTES)
        self._left = _MOST_BYTES

    def promise(self, users: int, expected: float | None = None) -> int:
        """How many bytes of a value may come to the client; they are set aside.

        Args:
            users: How many tasks need it.
            expected: Bytes that it is expected to have at most; None: nobody knows.

        Whatever is promised, the sum never goes beyond 32 MiB, and all that is sent on of one value not beyond 1 MiB,
        but for values so small that it would not pay to name them.
        """
        limit = min(self._largest, self._left // _SHARE, max(_LEAST_BYTES, _SPREAD_BYTES // max(1, users)))
        if expected is not None:
            limit = min(limit, max(_LEAST_BYTES, int(_SLACK * expected)))
        self._left -= limit
        return limit

    def settle(self, promised: int, held: int) -> None:
        """A value has come, or will not come; `held` bytes of it are here."""
        self._left += promised - held

    def free(self, held: int) -> None:
        """A value is needed no more."""
        self._left += held
