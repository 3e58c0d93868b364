"""Policies as pure functions and small state machines: what to re-send, when, how much at once. No clock, no I/O."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
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

    def succeeded(self, in_flight: int) -> None:
        """An invocation was accepted and ran, with `in_flight` at once, itself included."""
        if self._size < self.limit and in_flight >= self.size:
            self._size = min(float(self.limit), self._size + max(1.0, self._size) ** -0.5)


class Throttling:
    """What refusals for lack of concurrency ask for: pauses for everything, and an end where nothing gets through.

    Args:
        rng: Source of jitter.

    Attributes:
        since: Clock time from which on nothing has got through, in seconds; None while something may.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._rounds = 0
        self._paused_until = 0.0
        self.since: float | None = None

    def relieved(self) -> None:
        """Something got through, or there is nothing that could: whatever comes next has a budget of its own."""
        self._rounds, self.since = 0, None

    def refused(self, now: float, *, is_alone: bool) -> None:
        """An invocation was refused; others in flight, if there are any, may well be what takes the concurrency."""
        if not is_alone:
            self.since = None
        elif self.since is None:
            self.since = now

    def starved_s(self, now: float, queued_at: float) -> float:
        """For how long a call has seen nothing get through: not from before it was queued."""
        return 0.0 if self.since is None else now - max(self.since, queued_at)

    def is_pausing(self, now: float) -> bool:
        """Whether nothing is to be sent now."""
        return now < self._paused_until

    def pause_s(self, now: float) -> float | None:
        """For how long everything is to wait, in seconds; None in a pause, as one overload refuses many."""
        if self.is_pausing(now):
            return None
        self._rounds += 1
        delay_s = backoff_s(self._rounds, self._rng)
        self._paused_until = now + delay_s
        return delay_s


@dataclass
class Durations:
    """What is known of how long one kind of calls takes, in seconds.

    Attributes:
        mean_s: Weighted mean of calls' wall time in the worker; None before the first is known.
        slowest_s: The longest call of late. A mean alone would let a long call hide among short ones.
        overhead_s: Weighted mean of what an invocation took beyond its calls: what carrying several together saves.
        grown_to: Calls that an invocation has carried so far; a size is at most doubled at a time.
        started: Invocations that were started.
        ended: Invocations that brought outcomes.
        trips_s: Wall time of the latest of those.
    """

    mean_s: float | None = None
    slowest_s: float = 0.0
    overhead_s: float = 0.0
    grown_to: int = 1
    started: int = 0
    ended: int = 0
    trips_s: deque[float] = field(default_factory=lambda: deque(maxlen=1000))
    _median_s: float | None = None

    _WEIGHT = 0.3
    _FORGET = 0.8

    def learn(self, seconds: Collection[float], took_s: float) -> None:
        """An invocation whose calls took `seconds` each was back after `took_s`."""
        mean, overhead = sum(seconds) / len(seconds), max(0.0, took_s - sum(seconds))
        if self.mean_s is None:
            self.mean_s, self.overhead_s = mean, overhead
        else:
            self.mean_s += self._WEIGHT * (mean - self.mean_s)
            self.overhead_s += self._WEIGHT * (overhead - self.overhead_s)
        self.slowest_s = max(*seconds, self._FORGET * self.slowest_s)
        self.grown_to = max(self.grown_to, len(seconds))
        self.ended += 1
        self.trips_s.append(took_s)
        self._median_s = None

    def is_straggler(self, running_s: float) -> bool:
        """Whether an invocation that has been running for `running_s` deserves a backup attempt.

        It does when at least ten of its kind were started, half of them have ended, and it has been running for three
        times their median. Source: the rule of Cubed's `should_launch_backup` (cubed/runtime/backup.py), which has it
        from MapReduce's backup tasks (Dean and Ghemawat, OSDI 2004).
        """
        if self.started < 10 or self.ended < math.ceil(self.started / 2):
            return False
        if self._median_s is None:
            self._median_s = statistics.median(self.trips_s)
        return running_s > 3.0 * self._median_s


def most_backups(slots: int) -> int:
    """How many backup attempts may be in flight at once.

    A tenth of the slots, which is LATE's SpeculativeCap (Zaharia et al., "Improving MapReduce Performance in
    Heterogeneous Environments", OSDI 2008): where everything is slow, everything looks like a straggler, and attempts
    beside would make it slower. Two in any case, so that one that is slow itself leaves room for another.

    Args:
        slots: Invocations that may be in flight in all.
    """
    return max(2, slots // 10)


def calls_to_carry(waiting: int, free: int, window: int, limit: int, known: Durations) -> int:
    """How many waiting calls the next invocation carries.

    One each while there are slots for all, and while nothing is known about their duration. Otherwise as many as take,
    with a slow one among them, about as long as a round trip costs (so that none waits behind others for longer than it
    would have waited for its slot), at most twice as many as ever before, and at most an even share of what waits.

    Args:
        waiting: Calls that wait.
        free: Invocations that may be started now.
        window: Invocations that may be in flight in all.
        limit: The most that one invocation may carry.
        known: Durations of this kind of calls.
    """
    if waiting <= free or known.mean_s is None:
        return 1
    spare_s = known.overhead_s - known.slowest_s
    if spare_s < 0:
        return 1
    cheap = 1 + int(min(limit, spare_s / known.mean_s)) if known.mean_s > 0 else limit
    share = math.ceil(waiting / window)
    return max(1, min(cheap, share, 2 * known.grown_to, limit))
