"""One execution environment that is abused and has to serve on; it ends with its test."""

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


def _abused(mode):
    # Another memory than that of other tests' functions: no other test gets an environment that was abused here.
    with WrenExecutor(1, mode=mode, max_attempts=1, memory_mb=1500) as executor:
        one = Abused(executor)
        try:
            one.result(abs, -1)
            begun = one.environments()
            yield one
            one.assert_fit()
            assert one.environments() == begun
        finally:
            executor.submit(os._exit, 1).exception(timeout=SOON_S)
