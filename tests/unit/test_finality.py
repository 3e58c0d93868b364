"""Which ends of attempts are ends of calls, for somebody who is not the job's client."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lambda_worker.protocol import SENT_ANEW
from wren_backends import Config
from wren_backends.finality import Ending, Pulse
from wren_backends.ranges import Ranges
from wren_backends.record import JobRecord, ReadRecord

RECORD = JobRecord.of_this_process("j-1", ["wren"], Config(mode="s3"))


async def nothing():
    pass


def written(seconds_ago):
    return ReadRecord(RECORD, modified=datetime.now(UTC) - timedelta(seconds=seconds_ago))


def test_the_newest_end_counts():
    oldest_first = [
        Ending(0, 1, nothing),
        Ending(0, 2, nothing),
        Ending.committed(0, nothing),
        Ending(SENT_ANEW, 1, nothing),
        Ending.committed(SENT_ANEW, nothing),
    ]
    for older, newer in pairwise(oldest_first):
        assert older.is_older_than(newer)
        assert not newer.is_older_than(older)


def test_a_client_is_alive_while_its_record_changes():
    pulse, first, second = Pulse(60.0), written(5), written(1)
    pulse.feel(first, 1000.0)
    assert [pulse.is_silent(at) for at in (1000.0, 1059.0, 1060.0)] == [False, False, True]
    pulse.feel(first, 1050.0)
    assert pulse.is_silent(1060.0)
    pulse.feel(second, 1050.0)
    assert [pulse.is_silent(at) for at in (1060.0, 1110.0)] == [False, True]


def test_what_was_written_long_ago_needs_no_waiting_but_a_clock_may_be_off_by_minutes():
    for seconds_ago, silent in ((3600, True), (300, False), (-300, False)):
        pulse = Pulse(60.0)
        pulse.feel(written(seconds_ago), 1000.0)
        assert pulse.is_silent(1000.0) is silent


def test_an_old_record_that_changes_is_a_sign_of_life():
    pulse = Pulse(60.0)
    pulse.feel(written(3600), 1000.0)
    pulse.feel(written(3599), 1001.0)
    assert not pulse.is_silent(1002.0)


def test_without_a_record_nobody_is_alive():
    pulse = Pulse(60.0)
    pulse.feel(ReadRecord(), 1000.0)
    assert pulse.is_silent(1000.0)


@given(st.lists(st.integers(0, 40)))
def test_ranges_are_the_set_of_what_was_added(numbers):
    ranges = Ranges()
    for number in numbers:
        ranges.add(number)
    pairs = ranges.pairs(100)
    assert {one for first, last in pairs for one in range(first, last + 1)} == set(numbers)
    assert all(last + 1 < first for (_, last), (first, _) in pairwise(pairs))
    assert [one for one in range(-1, 42) if one in ranges] == sorted(set(numbers))
    assert ranges.changes == len(set(numbers))
    assert bool(ranges) is bool(numbers)
    assert Ranges(pairs).pairs(100) == pairs
    assert ranges.pairs(1) == pairs[:1]
