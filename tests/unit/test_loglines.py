"""Lines of the function's log that say what it is about, and lines that only look like them."""

import pytest

from lambda_worker import loglines
from lambda_worker.ranges import from_texts, ranges_of, texts


def test_a_line_says_which_calls_an_invocation_has():
    line = loglines.begun_line("j-1", "r-1", 2, [7, 3, 4, 5, 3])
    assert line.endswith(" calls=3-5,7")
    begun = loglines.read(line)
    assert (begun.job_id, begun.request_id, begun.attempt, begun.calls) == ("j-1", "r-1", 2, ((3, 5), (7, 7)))


@pytest.mark.parametrize("calls", ["1-2-3", "-", "--", "5-"])
def test_what_a_call_prints_breaks_nobody_who_reads(calls):
    loglines.read(f"invocation.begun job=j-1 request=r-1 attempt=1 calls={calls}")


@pytest.mark.parametrize("numbers", [[], [0], [2, 1], [5, 5, 6, 8], range(100)])
def test_ranges_hold_just_the_numbers(numbers):
    ranges = ranges_of(numbers)
    assert [one for first, last in ranges for one in range(first, last + 1)] == sorted(set(numbers))
    assert from_texts(texts(ranges)) == tuple(ranges)
