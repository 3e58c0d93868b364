"""Policies as pure functions and small state machines: what to re-send, when, how much at once. No clock, no I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

BACKOFF_BASE_S = 0.1
BACKOFF_CAP_S = 20.0

POLL_FIRST_S = 0.05
POLL_LAST_S = 2.0


def backoff_s(attempt: int, rng: Random) -> float:
    """How long to wait before re-sending for the `attempt`-th time (from 1): "full jitter".

    Source: AWS Architecture Blog, "Exponential Backoff And Jitter" (2015).
    """
    return rng.uniform(0, min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2 ** min(attempt, 16)))


def poll_delay_s(idle_polls: int) -> float:
    """How long to wait before the next LIST after `idle_polls` polls in a row that found nothing."""
    return min(POLL_LAST_S, POLL_FIRST_S * 1.5 ** min(idle_polls, 32))


class Window:
    """How many invocations may be in flight: additive increase, multiplicative decrease, as TCP does.

    A throttled invocation shrinks the window to 0.7 of what was in flight (CUBIC's factor, RFC 9438), at most once per
    round of invocations, because one overload answers to many; each success while it is full lets it grow again.

    Args:
        limit: The largest it may be; at least 1.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._size = float(limit)
        self._deaf_until = 0

    @property
    def size(self) -> int:
        """Invocations that may be in flight now; at least 1."""
        return max(1, int(self._size))

    def throttled(self, started: int, in_flight: int, next_start: int) -> bool:
        """Lambda refused invocation number `started`; returns whether the window shrank.

        Args:
            started: Number of the refused invocation.
            in_flight: How many were in flight.
            next_start: Number that the next invocation will have: those before it belong to the same overload.
        """
        if started < self._deaf_until:
            return False
        self._size = max(1.0, min(self._size, in_flight) * 0.7)
        self._deaf_until = next_start
        return True

    def succeeded(self) -> None:
        """An invocation was accepted and ran."""
        if self._size < self.limit:
            self._size = min(float(self.limit), self._size + max(1.0, self._size) ** -0.5)


@dataclass
class Durations:
    """What is known of how long one function's calls take, in seconds.

    Attributes:
        mean_s: Exponentially weighted mean of calls' wall time in the worker; None before the first is known.
        overhead_s: The same of what an invocation took beyond its calls: what carrying several together saves.
        grown_to: Calls that an invocation has carried so far; a size is at most doubled at a time.
    """

    mean_s: float | None = None
    overhead_s: float = 0.0
    grown_to: int = 1

    _WEIGHT = 0.3

    def learn(self, calls: int, calls_s: float, invocation_s: float) -> None:
        """An invocation carried `calls` calls that ran `calls_s` in all and was back after `invocation_s`."""
        each, overhead = calls_s / calls, max(0.0, invocation_s - calls_s)
        if self.mean_s is None:
            self.mean_s, self.overhead_s = each, overhead
        else:
            self.mean_s += self._WEIGHT * (each - self.mean_s)
            self.overhead_s += self._WEIGHT * (overhead - self.overhead_s)
        self.grown_to = max(self.grown_to, calls)


def calls_to_carry(waiting: int, free: int, window: int, limit: int, known: Durations) -> int:
    """How many waiting calls the next invocation carries.

    One each while there are slots for all, and while nothing is known about their duration. Otherwise as many as cost
    together about what their own round trips would (so that none waits behind others for longer than it would have
    waited for its slot), at most twice as many as ever before, and at most an even share of what waits.

    Args:
        waiting: Calls that wait.
        free: Invocations that may be started now.
        window: Invocations that may be in flight in all.
        limit: The most that one invocation may carry.
        known: Durations of this function's calls.
    """
    if waiting <= free or known.mean_s is None:
        return 1
    cheap = limit if known.mean_s <= 0 else known.overhead_s / known.mean_s
    share = math.ceil(waiting / max(1, min(window, 2 * free)))
    return max(1, min(int(cheap), share, 2 * known.grown_to, limit))
