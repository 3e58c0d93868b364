"""Arguments and results on either side of every limit and of every depth, and calls with every kind of name."""

import numpy as np
import pytest

from lambda_worker import codec
from lambda_worker.protocol import EVENT_BUDGET_BYTES, FRAME_BUDGET_BYTES
from wren_backends import BrokenWrenExecutor, Config, SerializationError, WrenExecutor

SOON_S = 60.0
MB = 1024 * 1024
INLINE = Config().inline_limit_bytes
OVERHEAD = len(codec.dumps(((b"x" * INLINE,), {}))[0]) - INLINE
"""What a pickle of arguments is longer than the bytes in it."""

LIMITS = {
    "the pickle's own buffers": 4096,
    "inline limit": INLINE,
    "inline limit, with the pickle": INLINE - OVERHEAD,
    "what one call carries in s3": EVENT_BUDGET_BYTES["s3"] // 4,
    "what one event carries in s3": EVENT_BUDGET_BYTES["s3"],
    "an asynchronous payload, and a mapped blob": MB,
    "what a frame carries": FRAME_BUDGET_BYTES,
    "what a frame carries, with the pickle": FRAME_BUDGET_BYTES - OVERHEAD,
    "a synchronous payload": 6 * MB,
    "a part of an upload": 16 * MB,
}


def same(value):
    return value


@pytest.fixture(scope="module", params=["direct", "s3"])
def executor(request, cloud):
    with WrenExecutor(2, mode=request.param) as executor:
        yield executor


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("kind", [bytes, bytearray, lambda size: "x" * size, lambda size: np.zeros(size, np.uint8)])
def test_next_to_nothing(executor, size, kind):
    value = executor.submit(same, kind(size)).result(timeout=SOON_S)
    assert type(value) is type(kind(size))
    np.testing.assert_array_equal(value, kind(size))


@pytest.mark.parametrize("limit", LIMITS)
def test_either_side_of(executor, limit):
    sizes = [LIMITS[limit] + change for change in (-1, 0, 1)]
    futures = [(size, executor.submit(same, b"\xa5" * size)) for size in sizes]
    futures += [(size, executor.submit(same, np.full(size, 0xA5, np.uint8))) for size in sizes]
    for size, future in futures:
        assert bytes(future.result(timeout=SOON_S)) == b"\xa5" * size


@pytest.mark.parametrize("mode", ["direct", "s3"])
@pytest.mark.parametrize("limit", [0, 1, 100 * MB])
def test_inline_limits_of_any_size(cloud, mode, limit):
    """The budgets hold even if the limit would let everything travel inline."""
    with WrenExecutor(2, mode=mode, inline_limit_bytes=limit) as executor:
        budget = EVENT_BUDGET_BYTES[mode]
        sizes = [0, 1, budget // 4 - OVERHEAD, budget // 4 - OVERHEAD + 1, budget - 1, budget + 1, 2 * budget]
        for size in sizes:
            assert executor.submit(len, bytes(size)).result(timeout=SOON_S) == size
        many = [bytes([number]) * (budget // 50) for number in range(100)]
        assert executor.submit(same, many).result(timeout=SOON_S) == many
        assert list(executor.map(len, many)) == [budget // 50] * 100


def test_the_inline_limit_is_where_it_is_said_to_be(cloud):
    with WrenExecutor(1, inline_limit_bytes=50_000) as executor:
        executor.submit(len, b"\1" * (50_000 - OVERHEAD)).result(timeout=SOON_S)
        assert "blob.uploaded" not in executor.journal.counts
        executor.submit(len, b"\1" * (50_001 - OVERHEAD)).result(timeout=SOON_S)
        assert executor.journal.counts["blob.uploaded"] == 1


def test_results_that_fill_a_frame_together(executor):
    """Each fits; what does not fit any more travels beside the frame."""
    parts = executor.submit(lambda: [np.full(MB, number, np.uint8) for number in range(9)]).result(timeout=SOON_S)
    assert [int(part[-1]) for part in parts] == list(range(9))


def add_one(array):
    array += 1
    return array


GIGABYTE = pytest.param(1024, 8192, marks=[pytest.mark.long, pytest.mark.timeout(600)])
"""About a minute on two cores: `make test-long`."""


@pytest.mark.parametrize(("megabytes", "memory_mb"), [(64, 3000), GIGABYTE])
def test_a_large_argument_and_a_large_result(cloud, any_mode, megabytes, memory_mb):
    with WrenExecutor(1, mode=any_mode, memory_mb=memory_mb) as executor:
        array = np.arange(megabytes * MB, dtype=np.uint8)
        again = executor.submit(add_one, array).result(timeout=500)
        assert again.nbytes == megabytes * MB
        np.testing.assert_array_equal(again[:300], np.arange(1, 301).astype(np.uint8))
        assert again[-1] == 0
        assert array[0] == 0


def test_an_initializer_that_fails_at_length(cloud, any_mode):
    def fails():
        raise ValueError("x" * 7_000_000)

    with WrenExecutor(1, fails, mode=any_mode) as executor:
        error = executor.submit(same, 1).exception(timeout=SOON_S)
    assert type(error) is BrokenWrenExecutor
    assert "ValueError" in str(error)
    assert len(str(error)) < 1_000_000


# ---- depth


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def depth_of(value):
    depth = 0
    while value:
        value, depth = value[0], depth + 1
    return depth


def test_deep_values(tried_in_any_mode):
    assert tried_in_any_mode.result(depth_of, nested(300)) == 300
    assert depth_of(tried_in_any_mode.result(nested, 300)) == 300


def test_values_too_deep_to_be_pickled(tried_in_any_mode):
    sent = tried_in_any_mode.error(depth_of, nested(100_000))
    made = tried_in_any_mode.error(nested, 100_000)
    assert type(sent) is type(made) is SerializationError
    assert "nested too deeply" in str(sent)
    assert "its result, of type builtins.list, cannot be pickled" in str(made)


def test_a_function_that_never_ends_calling_itself(tried_in_any_mode):
    def recurses():
        return recurses() + 1

    error = tried_in_any_mode.error(recurses)
    assert type(error) is RecursionError
    assert "repeated" in str(error.__cause__)


def test_values_that_hold_themselves(tried_in_any_mode):
    value = {"list": []}
    value["list"].append(value)
    found = tried_in_any_mode.result(same, value)
    assert found["list"][0] is found


# ---- names


class Named:
    """A callable with whatever names."""

    def __init__(self, **names):
        self._names = names

    def __call__(self):
        return 5

    def __getattribute__(self, name):
        if name in ("__qualname__", "__name__", "__module__"):
            found = object.__getattribute__(self, "_names").get(name, "usual")
            if isinstance(found, Exception):
                raise found
            return found
        return object.__getattribute__(self, name)

    def __repr__(self):
        raise RuntimeError("no text")

    __str__ = __repr__


NAMES = {
    "raises": RuntimeError("no name"),
    "lines": "a\nb\r\n\0c",
    "surrogate": "\ud800",
    "number": 5,
    "list": [],
    "none": None,
    "empty": "",
    "very long": "x" * 1_000_000,
    "path": "../../etc/passwd",
    "braces": "{0}%s%(x)d",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("attribute", ["__qualname__", "__name__"])
def test_names_of_any_kind(tried, caplog, attribute, name):
    caplog.set_level("DEBUG", "wren_backends")
    named = Named(**{attribute: NAMES[name]})
    assert tried.result(named) == 5
    error = tried.error(lambda function: function() / 0, named)
    assert error.__notes__[0].startswith("raised in call ")
    assert all(len(record.getMessage()) < 2000 and "\n" not in record.getMessage() for record in caplog.records)


def test_a_name_that_does_not_fit_into_a_message_is_cut(tried):
    def fails():
        raise ValueError

    fails.__qualname__ = "f\n" * 10_000
    note = tried.error(fails).__notes__[0]
    assert "f\\nf\\n" in note
    assert len(note) < 1500
    assert "\n" not in note


def test_a_callable_that_is_large_and_slow(tried_in_any_mode):
    class Heavy:
        def __init__(self):
            self.table = np.arange(500_000)

        def __call__(self, number):
            return int(np.sort(self.table[::-1])[number]) + sum(range(300_000))

    heavy = Heavy()
    assert [tried_in_any_mode.result(heavy, number) for number in range(3)] == [
        sum(range(300_000)) + number for number in range(3)
    ]


def test_ten_thousand_tiny_calls_with_long_names(executor):
    def negative(number):
        return -number

    negative.__qualname__ = "x" * 10_000
    assert list(executor.map(negative, range(10_000), timeout=100)) == [-number for number in range(10_000)]
