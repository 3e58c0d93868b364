"""What is found of a job that another process made, in words."""

from datetime import UTC, datetime
from types import SimpleNamespace

from wren_backends import EnvironmentLostError, ThrottledError
from wren_backends.failures import Failure
from wren_backends.reading import failure_error

FUNCTION = SimpleNamespace(function="wren", memory_mb=512, timeout_s=30, keeps_log=True)


def a_failure(condition):
    return Failure("a-job", (7,), 1, b"null", "request", condition, datetime.now(UTC))


def test_an_event_that_was_never_run_is_not_a_death():
    error = failure_error(a_failure("EventAgeExceeded"), "call 7", FUNCTION)
    assert type(error) is ThrottledError
    assert "call 7" in str(error)


def test_an_event_that_was_run_in_vain_is_one():
    assert type(failure_error(a_failure("RetriesExhausted"), "call 7", FUNCTION)) is EnvironmentLostError
