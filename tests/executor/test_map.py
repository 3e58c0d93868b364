"""`map` is the standard library's: its order, its errors, its limits."""

import concurrent.futures
import itertools
import threading

import pytest
from signals import marks

from wren_backends import SerializationError


def square(x):
    return x * x


def test_results_come_in_the_order_of_the_items(any_mode_executor):
    assert list(any_mode_executor.map(square, range(50))) == [x * x for x in range(50)]


def test_order_holds_when_later_items_are_done_first(executor, gate):
    results = executor.map(lambda x: gate.hold("first") if x == 0 else x, range(2))
    gate.wait_entered()
    gate.open()
    assert list(results) == ["first", 1]


def test_several_iterables_end_with_the_shortest(executor):
    assert list(executor.map(pow, [2, 3, 4], itertools.count(1))) == [2, 9, 64]


def test_nothing_to_do(executor):
    assert list(executor.map(square, [])) == []
    assert list(executor.map(square, [], chunksize=3)) == []
    assert list(executor.map(square, [], buffersize=3)) == []


@pytest.mark.parametrize("chunksize", [1, 3, 7, 100])
def test_chunks_change_nothing_about_the_results(executor, chunksize):
    assert list(executor.map(pow, range(10), [2] * 10, chunksize=chunksize)) == [x * x for x in range(10)]


def test_a_chunk_is_one_call(executor):
    list(executor.map(square, range(10), chunksize=4))
    assert executor.journal.counts["call.submitted"] == 3


@pytest.mark.parametrize("chunksize", [0, -1])
def test_a_chunk_has_at_least_one_item(executor, chunksize):
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(square, [1], chunksize=chunksize)


def test_the_items_are_read_at_once(executor):
    read = []

    def items():
        for number in range(5):
            read.append(number)
            yield number

    results = executor.map(square, items())
    assert read == [0, 1, 2, 3, 4]
    list(results)


@pytest.mark.parametrize("chunksize", [1, 2])
def test_buffersize_limits_what_is_submitted_ahead(executor, chunksize):
    read = []

    def items():
        for number in itertools.count():
            read.append(number)
            yield number

    results = executor.map(square, items(), buffersize=3, chunksize=chunksize)
    assert len(read) == 3 * chunksize
    assert list(itertools.islice(results, 4)) == [0, 1, 4, 9]
    assert len(read) <= (3 + 4) * chunksize


@pytest.mark.parametrize(
    ("buffersize", "kind"), [(0, ValueError), (-1, ValueError), ("3", TypeError), (1.0, TypeError)]
)
def test_buffersize_is_checked(executor, buffersize, kind):
    with pytest.raises(kind, match="buffersize"):
        executor.map(square, [1], buffersize=buffersize)


@pytest.mark.parametrize("more", [{}, {"chunksize": 2}, {"buffersize": 2}])
def test_an_exception_is_raised_at_its_place(executor, more):
    results = executor.map(lambda x: 1 // x, [1, 1, 0, 1], **more)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        list(results)


@pytest.mark.parametrize("more", [{}, {"buffersize": 2}])
def test_timeout(executor, gate, more):
    results = executor.map(gate.hold, range(1), timeout=0.1, **more)
    with pytest.raises(concurrent.futures.TimeoutError):
        next(results)
    gate.open()


def test_no_timeout_when_there_is_time(executor):
    assert list(executor.map(square, range(5), timeout=60)) == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("more", [{}, {"chunksize": 2}, {"buffersize": 2}])
def test_a_function_that_cannot_be_pickled_is_the_iterators_error(executor, more):
    lock = threading.Lock()
    results = executor.map(lambda x: lock, [1], **more)
    with pytest.raises(SerializationError, match="pickle"):
        next(results)


def test_an_iterable_that_raises(executor):
    def items():
        yield 1
        raise KeyError("in the iterable")

    with pytest.raises(KeyError, match="in the iterable"):
        list(executor.map(square, items()))


def test_results_that_are_given_up_cancel_what_waits(executor, gate):
    results = executor.map(lambda number: number if number == 0 else gate.hold(), range(20))
    assert next(results) == 0
    gate.wait_entered(2)
    results.close()
    gate.open()
    executor.shutdown()
    assert marks(gate.entered) < 19


def test_the_function_is_pickled_once(executor):
    class CountsPicklings:
        picklings = 0

        def __call__(self, x):
            return x

        def __getstate__(self):
            CountsPicklings.picklings += 1
            return {}

    assert list(executor.map(CountsPicklings(), range(20))) == list(range(20))
    assert CountsPicklings.picklings <= 2  # plain pickle may try first


def test_after_shutdown(cloud, executor):
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.map(square, [1])


def test_small_calls_travel_together(executor):
    assert list(executor.map(square, range(2000))) == [x * x for x in range(2000)]
    counts = executor.journal.counts
    assert counts["call.finished"] == 2000
    assert counts["invocation.started"] < 1000
