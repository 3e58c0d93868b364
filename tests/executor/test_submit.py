"""Whatever a process pool can call can be called, and more: what is passed arrives, what is returned comes back."""

import concurrent.futures.process
import importlib
import pickle
import sys
import textwrap

import numpy as np
import pytest
from signals import mark, marks

from wren_backends import WrenExecutor

INLINE = 128 * 1024


def add(a, b=0):
    return a + b


class Counter:
    def __init__(self, start):
        self.value = start

    def plus(self, step):
        return self.value + step

    def __call__(self, step):
        return self.value * step

    @classmethod
    def make(cls, value):
        return cls(value).value

    @staticmethod
    def negate(value):
        return -value


def echo(*args, **kwargs):
    return args, kwargs


# ---- what can be called


def test_functions(any_mode_executor):
    assert any_mode_executor.submit(add, 1, b=2).result() == 3


def test_lambdas_and_closures(executor):
    base = [10]
    assert executor.submit(lambda x: x + base[0], 5).result() == 15


def test_methods_and_callable_objects(executor):
    calls = [(Counter(3).plus, 4), (Counter(3), 4), (Counter.make, 9), (Counter.negate, 2)]
    futures = [executor.submit(function, argument) for function, argument in calls]
    assert [future.result() for future in futures] == [7, 12, 9, -2]


def test_builtins_and_library_functions(executor):
    assert executor.submit(pow, 2, 10).result() == 1024
    assert executor.submit(np.sum, [1, 2, 3]).result() == 6


def test_recursive_local_function(executor):
    def factorial(n):
        return 1 if n < 2 else n * factorial(n - 1)

    assert executor.submit(factorial, 10).result() == 3628800


def test_keywords_named_as_our_own_parameters(executor):
    assert executor.submit(echo, 1, fn=2, self=3).result() == ((1,), {"fn": 2, "self": 3})


def test_submit_without_a_function_is_a_type_error(executor):
    with pytest.raises(TypeError):
        executor.submit()
    with pytest.raises(TypeError):
        executor.submit(fn=add)


def test_functions_and_classes_of_main(run_script):
    done = run_script(
        """
        import dataclasses
        import wren_backends

        FACTOR = 7

        @dataclasses.dataclass
        class Point:
            x: int

        class OwnError(Exception):
            pass

        def scale(point):
            return Point(point.x * FACTOR)

        def fails():
            raise OwnError("mine")

        if __name__ == "__main__":
            with wren_backends.WrenExecutor(2) as executor:
                point = executor.submit(scale, Point(6)).result()
                assert type(point) is Point, type(point)
                print(point)
                try:
                    executor.submit(fails).result()
                except OwnError as error:
                    print("OwnError", error)
        """
    )
    assert (done.returncode, done.stdout) == (0, "Point(x=42)\nOwnError mine\n"), done.stderr


# ---- the user's own modules


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write modules that only this process can import; they are forgotten after the test."""
    known = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        importlib.invalidate_caches()

    yield write
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_own_package_with_a_class_a_neighbour_and_a_data_file(own, executor):
    own("own_package_s/__init__.py", "")
    own("own_package_s/data.txt", "from the file")
    own("own_neighbour_s.py", "def shout(text): return text.upper()")
    own(
        "own_package_s/code.py",
        """
        from pathlib import Path
        import own_neighbour_s

        class Holder:
            def __init__(self, value):
                self.value = value

        def read(holder):
            text = Path(__file__).with_name("data.txt").read_text()
            return Holder(own_neighbour_s.shout(text) + holder.value)
        """,
    )
    code = importlib.import_module("own_package_s.code")
    made = executor.submit(code.read, code.Holder("!")).result()
    assert type(made) is code.Holder
    assert made.value == "FROM THE FILE!"


def test_an_argument_alone_brings_its_module(own, executor):
    own("own_argument_s.py", "class Holder:\n    value = 3\n")
    holder = importlib.import_module("own_argument_s").Holder()
    assert executor.submit(lambda x: x.value, holder).result() == 3


def test_edits_are_seen_by_a_new_executor(own, cloud):
    own("own_edited_s.py", "def f(): return 'before'")
    module = importlib.import_module("own_edited_s")
    with WrenExecutor(2) as executor:
        assert executor.submit(module.f).result() == "before"
    own("own_edited_s.py", "def f(): return 'after the edit'")
    with WrenExecutor(2) as executor:
        assert executor.submit(module.f).result() == "after the edit"


# ---- large things and arrays


@pytest.mark.parametrize("size", [INLINE - 5000, INLINE + 5000, 5 * 1024 * 1024])
def test_arguments_and_results_on_either_side_of_the_inline_limit(any_mode_executor, size):
    data = np.random.default_rng(1).bytes(size)
    assert any_mode_executor.submit(lambda x: x[::-1], data).result() == data[::-1]


def test_many_large_arguments_in_one_call(executor):
    arrays = [np.full(30_000, number) for number in range(60)]  # each below the inline limit, 14 MB in all
    assert executor.submit(lambda *all_of: [int(one[-1]) for one in all_of], *arrays).result() == list(range(60))


def test_a_large_closure(executor):
    table = np.arange(500_000)
    assert executor.submit(lambda: int(table.sum())).result() == int(table.sum())


def test_empty_things(executor):
    for value in ([], b"", np.zeros(0), None, ""):
        assert pickle.dumps(executor.submit(lambda x: x, value).result()) == pickle.dumps(value)


@pytest.mark.parametrize("items", [10, 1000, 100_000])
def test_arrays_can_be_written_to_on_both_sides(any_mode_executor, items):
    def writes(array):
        array[0] = 7
        return array

    array = np.zeros(items)
    again = any_mode_executor.submit(writes, array).result()
    assert (array[0], again[0]) == (0, 7)
    again[-1] = 1
    assert again[-1] == 1


@pytest.mark.parametrize("items", [1000, 100_000])
def test_an_array_changed_between_two_submits_is_seen_changed(executor, items):
    array = np.zeros(items)
    futures = []
    for number in range(4):
        array[:] = number
        futures.append(executor.submit(np.max, array))
    array[:] = -1
    assert [future.result() for future in futures] == [0, 1, 2, 3]


def test_a_writable_memory_mapped_argument_is_warned_of_where_it_is_passed(executor, tmp_path):
    data = np.memmap(tmp_path / "data.mm", dtype=float, shape=(8,), mode="w+")
    with pytest.warns(UserWarning, match=r"argument 2 of test_submit\.add .* Return the values") as caught:
        assert executor.submit(add, 1, data).result().sum() == 8
    assert [one.filename for one in caught] == [__file__]
    with pytest.warns(UserWarning, match=r"argument 1 of test_submit\.add"):
        assert next(executor.map(add, [data])).sum() == 0


def test_calls_of_functions_that_differ_in_an_array_alone_are_not_mixed_up(cloud):
    """Calls travel together by function, and such functions have the same pickle but for a buffer."""

    class Holder:
        def __init__(self, number):
            self.array = np.full(2000, number)

        def __call__(self):
            return int(self.array[0])

    with WrenExecutor(1) as executor:
        executor.submit(Holder(-1)).result()  # from now on its duration is known, so that calls travel together
        futures = [executor.submit(Holder(number)) for number in range(40)]
        assert [future.result() for future in futures] == list(range(40))


# ---- errors


class OwnError(Exception):
    def __init__(self, code, *, text):
        super().__init__(code)
        self.text = text


def raise_own_error():
    raise OwnError(3, text="why")


def test_an_exception_comes_back_as_itself(any_mode_executor):
    future = any_mode_executor.submit(raise_own_error)
    error = future.exception()
    assert type(error) is OwnError
    assert (error.args, error.text) == ((3,), "why")


def test_its_cause_is_the_remote_traceback_as_of_a_process_pool(executor):
    error = executor.submit(raise_own_error).exception()
    cause = error.__cause__
    assert type(cause) is concurrent.futures.process._RemoteTraceback
    assert "in raise_own_error" in cause.tb
    assert str(cause).startswith('\n"""\nTraceback (most recent call last):')
    assert "lambda_worker" not in cause.tb


def test_a_note_names_call_request_and_log_stream(any_mode_executor):
    any_mode_executor.submit(add, 1).result()
    error = any_mode_executor.submit(raise_own_error).exception()
    (note,) = error.__notes__
    assert "call 1 (" in note
    assert "raise_own_error" in note
    assert any_mode_executor.job_id in note
    assert "AWS request" in note
    assert "[$LATEST]" in note  # Lambda's log streams look so


def test_chained_exceptions_are_told_in_the_cause(executor):
    def chained():
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error

    error = executor.submit(chained).exception()
    assert "first" in str(error.__cause__)
    assert "direct cause" in str(error.__cause__)


def test_text_and_warnings_of_a_call_are_shown_here(executor, capsys):
    def speaks():
        import warnings

        print("printed there")
        warnings.warn("warned there", UserWarning, stacklevel=1)

    with pytest.warns(UserWarning, match="warned there"):
        executor.submit(speaks).result()
    assert capsys.readouterr().out == "printed there\n"


def test_log_messages_of_a_call_arrive_as_those_of_a_process_pool(executor, capsys):
    def logs():
        import logging

        logging.getLogger("own").warning("by a logger")
        logging.getLogger("own").info("not shown")
        logging.warning("by the root")

    for _ in range(2):
        executor.submit(logs).result()
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err == "by a logger\nWARNING:root:by the root\n"


def test_text_stays_there_if_it_is_not_wanted(cloud, capsys):
    with WrenExecutor(2, forward_output=False) as executor:
        executor.submit(lambda: print("printed there")).result()
    assert capsys.readouterr().out == ""


def test_retries_of_a_call_that_raises(cloud, tmp_path):
    def third_time(path):
        mark(path)
        if marks(path) < 3:
            raise ValueError("not yet")
        return "now"

    with WrenExecutor(2, retries=2) as executor:
        assert executor.submit(third_time, str(tmp_path / "tried")).result() == "now"
    with WrenExecutor(2, retries=1) as executor, pytest.raises(ValueError, match="not yet"):
        executor.submit(third_time, str(tmp_path / "tried again")).result()
