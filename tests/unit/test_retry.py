"""The policies hold their bounds and move in the right direction."""

from random import Random

import pytest

from wren_backends.retry import (
    BACKOFF_BASE_S,
    BACKOFF_CAP_S,
    POLL_FIRST_S,
    POLL_LAST_S,
    Durations,
    Throttling,
    Window,
    backoff_s,
    calls_to_carry,
    most_backups,
    poll_delay_s,
)


class Highest(Random):
    """Draws the upper end."""

    def uniform(self, a, b):
        return b


class Lowest(Random):
    """Draws the lower end."""

    def uniform(self, a, b):
        return a


def test_backoff_doubles_up_to_its_cap():
    delays = [backoff_s(attempt, Highest()) for attempt in range(1, 12)]
    assert delays[:3] == [BACKOFF_BASE_S * 2, BACKOFF_BASE_S * 4, BACKOFF_BASE_S * 8]
    assert delays == sorted(delays)
    assert delays[-1] == BACKOFF_CAP_S


def test_backoff_is_full_jitter():
    assert backoff_s(5, Lowest()) == 0


def test_backoff_of_a_huge_attempt_does_not_overflow():
    assert backoff_s(10**9, Highest()) == BACKOFF_CAP_S


def test_polls_grow_slower_up_to_a_limit():
    delays = [poll_delay_s(idle) for idle in range(50)]
    assert delays[0] == POLL_FIRST_S
    assert delays == sorted(delays)
    assert delays[-1] == poll_delay_s(10**9) == POLL_LAST_S


def test_window_begins_at_its_limit():
    assert Window(7).size == 7


def test_throttling_shrinks_the_window_to_a_share_of_what_was_in_flight():
    window = Window(1000)
    assert window.throttled(1, in_flight=100, next_start=101)
    assert window.size == 70


def test_one_overload_shrinks_the_window_once():
    window = Window(100)
    assert window.throttled(1, in_flight=100, next_start=101)
    assert not any(window.throttled(number, in_flight=100, next_start=101) for number in range(2, 101))
    assert window.size == 70
    assert window.throttled(101, in_flight=70, next_start=170)
    assert window.size == 49


def test_window_never_closes():
    window = Window(3)
    for number in range(20):
        window.throttled(number, in_flight=0, next_start=number)
    assert window.size == 1


def test_window_grows_back_to_its_limit_and_not_beyond():
    window = Window(20)
    window.throttled(1, in_flight=20, next_start=2)
    sizes = []
    for _ in range(200):
        window.succeeded(in_flight=window.size)
        sizes.append(window.size)
    assert sizes == sorted(sizes)
    assert sizes[0] in (14, 15)  # gently at first
    assert sizes[-1] == 20


def test_one_overload_is_one_pause_and_the_next_one_is_longer():
    throttling = Throttling(Highest())
    delay_s = throttling.pause_s(100.0)
    assert throttling.is_pausing(100.0)
    assert throttling.pause_s(100.0) is None
    assert not throttling.is_pausing(100.0 + delay_s)
    assert throttling.pause_s(100.0 + delay_s) == 2 * delay_s


def test_after_relief_pauses_are_short_again():
    throttling = Throttling(Highest())
    first_s = throttling.pause_s(100.0)
    throttling.pause_s(200.0)
    throttling.relieved()
    assert throttling.pause_s(300.0) == first_s


def test_a_call_starves_from_when_nothing_gets_through():
    throttling = Throttling(Highest())
    throttling.refused(100.0, is_alone=True)
    throttling.refused(110.0, is_alone=True)
    assert throttling.starved_s(130.0, queued_at=50.0) == 30.0


def test_a_call_starves_from_when_it_was_queued():
    throttling = Throttling(Highest())
    throttling.refused(100.0, is_alone=True)
    assert throttling.starved_s(130.0, queued_at=125.0) == 5.0


@pytest.mark.parametrize("relief", [lambda one: one.relieved(), lambda one: one.refused(120.0, is_alone=False)])
def test_no_call_starves_while_something_may_get_through(relief):
    throttling = Throttling(Highest())
    throttling.refused(100.0, is_alone=True)
    relief(throttling)
    assert throttling.since is None
    assert throttling.starved_s(130.0, queued_at=50.0) == 0.0


def test_window_does_not_grow_while_it_is_not_full():
    window = Window(20)
    window.throttled(1, in_flight=20, next_start=2)
    for _ in range(200):
        window.succeeded(in_flight=3)
    assert window.size == 14


def test_durations_learn_means_and_the_slowest_call():
    known = Durations()
    known.learn([0.25, 0.75], took_s=1.5)
    assert (known.mean_s, known.slowest_s, known.overhead_s, known.grown_to) == (0.5, 0.75, 0.5, 2)
    known.learn([1.5], took_s=1.5)
    assert known.slowest_s == 1.5
    assert 0.5 < known.mean_s < 1.5
    assert 0 < known.overhead_s < 0.5
    assert known.grown_to == 2


def test_a_long_call_is_forgotten_when_only_short_ones_follow():
    known = Durations()
    known.learn([1.0], took_s=1.0)
    for _ in range(60):
        known.learn([0.001], took_s=0.002)
    assert known.slowest_s < 0.002


def test_overhead_is_never_negative():
    known = Durations()
    known.learn([2.0], took_s=1.0)
    assert known.overhead_s == 0


SHORT = {"mean_s": 0.001, "slowest_s": 0.01, "overhead_s": 1.0}


@pytest.mark.parametrize(
    ("waiting", "free", "known", "expected"),
    [
        (3, 5, Durations(**SHORT, grown_to=64), 1),  # a slot for each
        (5, 5, Durations(**SHORT, grown_to=64), 1),
        (1000, 1, Durations(), 1),  # nothing is known
        (
            1000,
            1,
            Durations(mean_s=10.0, slowest_s=10.0, overhead_s=0.01, grown_to=64),
            1,
        ),  # long calls never wait behind others
        (1000, 1, Durations(**SHORT, grown_to=1), 2),  # at most doubled
        (1000, 1, Durations(**SHORT, grown_to=64), 128),
        (100, 1, Durations(**SHORT, grown_to=64), 25),  # an even share
        (10_000, 1, Durations(**SHORT, grown_to=10_000), 500),  # the limit
        (1000, 1, Durations(mean_s=0.01, slowest_s=2.0, overhead_s=1.0, grown_to=64), 1),  # one of them may be long
        (10_000, 1, Durations(mean_s=0.125, slowest_s=0.125, overhead_s=1.0, grown_to=64), 8),  # a round trip's worth
        (10_000, 1, Durations(mean_s=0.0, grown_to=64), 128),
    ],
)
def test_calls_to_carry(waiting, free, known, expected):
    assert calls_to_carry(waiting, free, window=4, limit=500, known=known) == expected


def test_calls_to_carry_is_always_within_its_bounds():
    rng = Random(1)
    for _ in range(2000):
        waiting, window, limit = rng.randint(1, 5000), rng.randint(1, 100), rng.randint(1, 300)
        known = Durations(rng.choice([None, 0.0, rng.random()]), rng.random(), rng.random() * 10, rng.randint(1, 300))
        carried = calls_to_carry(waiting, rng.randint(1, window), window, limit, known)
        assert 1 <= carried <= min(limit, waiting)


@pytest.mark.parametrize(("slots", "expected"), [(1, 2), (20, 2), (64, 6), (1000, 100)])
def test_most_backups(slots, expected):
    assert most_backups(slots) == expected
