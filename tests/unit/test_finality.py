"""Which ends of attempts are ends of calls, for somebody who is not the job's client."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from lambda_worker.protocol import SENT_ANEW, Frame, Outcome
from wren_backends import Config, EnvironmentLostError, InvocationTimeoutError, OutOfMemoryError
from wren_backends.failures import Failure
from wren_backends.finality import Ending, failure_may_pass, is_settled, outcome_may_change
from wren_backends.record import JobRecord, ReadRecord

RECORD = JobRecord.of_this_process("j-1", ["wren"], Config(mode="s3", max_attempts=3))
AT = datetime(2026, 1, 1, tzinfo=UTC)
BEFORE, AFTER = AT - timedelta(seconds=1), AT + timedelta(seconds=1)


async def nothing():
    pass


def an_ending(seq=0, attempt=1):
    return Ending(seq, attempt, AT, nothing)


@pytest.mark.parametrize(
    ("found", "read_after_s", "settled"),
    [
        (ReadRecord(), 0, True),  # of mode direct
        (ReadRecord(replace(RECORD, closed=AFTER), modified=AFTER), 0, True),
        (ReadRecord(RECORD, modified=BEFORE), 10, False),  # it may not have come to it
        (ReadRecord(RECORD, modified=BEFORE), 31, True),
        (ReadRecord(RECORD, modified=AFTER), 31, False),  # it lives
    ],
)
def test_an_end_is_settled_once_the_client_is_done_or_silent(found, read_after_s, settled):
    assert is_settled(an_ending(), found, AT.timestamp() + read_after_s, 3600.0) is settled


def test_less_patience_is_less_benefit_of_the_doubt():
    found = ReadRecord(RECORD, modified=BEFORE)
    assert is_settled(an_ending(), found, AT.timestamp() + 1, 0.0)


def test_the_newest_end_counts():
    oldest_first = [
        an_ending(),
        an_ending(attempt=2),
        Ending.committed(0, AT, nothing),
        an_ending(SENT_ANEW),
        Ending.committed(SENT_ANEW, AT, nothing),
    ]
    for older, newer in pairwise(oldest_first):
        assert older.is_older_than(newer)
        assert not newer.is_older_than(older)


@pytest.mark.parametrize(
    ("outcome", "calls", "settings", "may_change"),
    [
        (Outcome(0, "error", (b"",), retries=1), 1, {}, True),
        (Outcome(0, "error", (b"",)), 1, {}, False),
        (Outcome(0, "failed", reason="missing_blob"), 1, {}, True),
        (Outcome(0, "failed", reason="storage"), 1, {}, True),
        (Outcome(0, "failed", reason="storage"), 1, {"max_attempts": 1}, False),
        (Outcome(0, "failed", reason="time_limit"), 1, {}, False),
        (Outcome(0, "failed", reason="time_limit"), 2, {}, True),
        (Outcome(0, "failed", reason="time_limit"), 2, {"max_attempts": 1}, False),
        (Outcome(0, "failed", reason="time_limit"), 1, {"retry_exhausted": True}, True),
        (Outcome(0, "failed", reason="exited"), 1, {"retry_exhausted": True}, False),
    ],
)
def test_outcomes_after_which_a_call_may_be_sent_anew(outcome, calls, settings, may_change):
    frame = Frame("j-1", (outcome,) * calls, "request", "stream", "environment", 0)
    assert outcome_may_change(outcome, frame, replace(RECORD, **settings)) is may_change


LOST, TIMED_OUT, OUT_OF_MEMORY = (
    EnvironmentLostError("it died"),
    InvocationTimeoutError("late"),
    OutOfMemoryError("full"),
)


@pytest.mark.parametrize(
    ("error", "calls", "attempt", "settings", "may_pass"),
    [
        (LOST, 1, 1, {}, True),
        (LOST, 1, 3, {}, False),
        (LOST, 1, 3, {"backups": True}, True),
        (TIMED_OUT, 1, 1, {}, False),
        (TIMED_OUT, 2, 1, {}, True),
        (TIMED_OUT, 1, 1, {"retry_exhausted": True}, True),
        (TIMED_OUT, 1, 3, {"retry_exhausted": True}, False),
        (OUT_OF_MEMORY, 1, 1, {}, False),
        (OUT_OF_MEMORY, 1, 3, {"retry_memory_mb": 4096}, True),
        (TIMED_OUT, 1, 1, {"retry_memory_mb": 4096}, False),
    ],
)
def test_failures_after_which_a_call_may_be_sent_again(error, calls, attempt, settings, may_pass):
    failure = Failure(tuple(range(calls)), attempt, b"null", "request", "RetriesExhausted", AT)
    assert failure_may_pass(failure, error, replace(RECORD, **settings)) is may_pass
