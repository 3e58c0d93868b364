"""One execution environment that is abused and has to serve on; it ends with its test."""

import contextlib
import functools
import os

import numpy as np
import pytest

from wren_backends import WrenExecutor

SOON_S = 60.0


def ordinary(number, array, *, text):
    """A call such as others make: arrays, text, what it prints, an import and a nested function."""
    import colorsys
    import decimal

    print(text)
    halves = [colorsys.rgb_to_hsv(0.5, 0.5, 0.5)[2], float(decimal.Decimal("0.5"))]
    return {"sum": int(array.sum()) + number, "text": text.upper(), "halves": halves, "sorted": sorted("cab")}


class Abused:
    """An executor with one environment.

    Args:
        executor: The executor; it takes one call at a time.
    """

    def __init__(self, executor):
        self.executor = executor
        self.submit = executor.submit

    def result(self, fn, /, *args, **kwargs):
        return self.submit(fn, *args, **kwargs).result(timeout=SOON_S)

    def error(self, fn, /, *args, **kwargs):
        error = self.submit(fn, *args, **kwargs).exception(timeout=SOON_S)
        assert error is not None
        return error

    def environments(self):
        """How many there have been."""
        return self.executor.journal.counts.get("environment.cold_started", 0)

    def assert_fit(self):
        """Ordinary calls are right, with small arguments and with large ones, and raise what they raise."""
        for size in (10, 300_000):
            value = self.result(ordinary, 3, np.ones(size, np.uint8), text="hallo")
            assert value == {"sum": size + 3, "text": "HALLO", "halves": [0.5, 0.5], "sorted": ["a", "b", "c"]}
        assert type(self.error(divmod, 1, 0)) is ZeroDivisionError


@pytest.fixture(params=["direct", "s3"])
def any_mode(request):
    return request.param


@pytest.fixture
def abused(cloud):
    """In mode `direct`; after the test, whatever it did, ordinary calls in the same environment are right."""
    yield from _abused("direct")


@pytest.fixture
def abused_in_any_mode(cloud, any_mode):
    """As `abused`, in each mode."""
    yield from _abused(any_mode)


@pytest.fixture(scope="module")
def kept(cloud):
    """Gives an executor by mode, the same for all tests of a file."""
    with contextlib.ExitStack() as stack:
        yield functools.cache(lambda mode: stack.enter_context(_executor(mode, memory_mb=1510)))


@pytest.fixture
def tried(kept):
    """As `abused`, for calls that do nothing to their environment that lasts: the next test has the same one."""
    yield from _tried(kept("direct"), "direct")


@pytest.fixture
def tried_in_any_mode(kept, any_mode):
    """As `tried`, in each mode."""
    yield from _tried(kept(any_mode), any_mode)


def _abused(mode):
    with _executor(mode, memory_mb=1500) as executor:
        try:
            yield from _tried(executor, mode)
        finally:
            executor.submit(os._exit, 1).exception(timeout=SOON_S)


def _tried(executor, mode):
    one = Abused(executor)
    one.result(abs, -1)
    begun = one.environments()
    yield one
    one.assert_fit()
    # In `s3` an outcome may be here before its environment is free, and the next call needs another one.
    assert mode == "s3" or one.environments() == begun


def _executor(mode, memory_mb):
    """Another memory than that of other tests' functions: none of them gets an environment that was abused here."""
    return WrenExecutor(1, mode=mode, max_attempts=1, memory_mb=memory_mb + (mode == "s3"))
