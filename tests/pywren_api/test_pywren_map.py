"""PyWren's `map`, `call_async` and `reduce`, and what one asks their futures."""

import os
import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest

import wren_backends.pywren as pywren
from wren_backends import ConfigError, EnvironmentLostError, SerializationError, WrenExecutor

SOON_S = 30.0


def test_results_come_in_the_order_of_the_items(pywren_executor):
    futures = pywren_executor.map(lambda x: x + 7, np.arange(20))
    assert [future.result() for future in futures] == list(range(7, 27))
    assert pywren.get_all_results(futures) == list(range(7, 27))
    assert [future.call_id for future in futures] == [f"{number:05d}" for number in range(20)]
    assert len({future.callset_id for future in futures}) == 1


def test_any_iterable_will_do_and_none_gives_none(pywren_executor):
    assert pywren.get_all_results(pywren_executor.map(abs, (-n for n in range(3)))) == [0, 1, 2]
    assert pywren_executor.map(abs, []) == []
    assert pywren.wait([]) == ([], [])
    assert pywren.wait([], return_when=pywren.ANY_COMPLETED) == ([], [])
    assert pywren.get_all_results([]) == []


def test_what_a_call_raises_is_raised_here(pywren_executor):
    good, bad = pywren_executor.map(lambda n: 1 / n, [1, 0])
    with pytest.raises(ZeroDivisionError) as caught:
        bad.result()
    assert "in <lambda>" in str(caught.value.__cause__)
    assert not {"_wren_timed"} & set(vars(caught.value))
    assert bad.result(throw_except=False) is None
    assert type(bad.exception()) is ZeroDivisionError
    assert (bad.errored(), bad.succeeded(), bad.done(), bad.cancelled()) == (True, False, True, False)
    assert good.exception() is None
    assert (good.errored(), good.succeeded(), good.running()) == (False, True, False)
    with pytest.raises(ZeroDivisionError):
        pywren.get_all_results([good, bad])


def test_an_environment_that_dies_ends_the_call(cloud):
    """PyWren waited for its outcome for ever."""
    with pywren.default_executor(max_workers=1, max_attempts=1) as executor:
        future = executor.call_async(os._exit, 3)
        assert isinstance(future.exception(timeout=SOON_S), EnvironmentLostError)
        assert future.run_status["exception"]
        assert future.run_status["exception_args"]


def test_waiting_has_an_end(pywren_executor, gate):
    held, quick = pywren_executor.map(lambda n: gate.hold(n) if n else n, [1, 0])
    assert pywren.wait([held, quick], pywren.ANY_COMPLETED) == ([quick], [held])
    gate.wait_entered()
    assert held.running()
    assert held.result(check_only=True) is False
    assert (held.run_status, held.invoke_status) == (None, None)
    for ask in (held.result, held.exception):
        with pytest.raises(TimeoutError):
            ask(timeout=0.01)
    assert pywren.wait([held, quick], pywren.wren.ALWAYS) == ([quick], [held])
    assert pywren.wait([held, quick], timeout=0.01) == ([quick], [held])
    gate.open()
    assert pywren.wait([held, quick], THREADPOOL_SIZE=1, WAIT_DUR_SEC=1) == ([held, quick], [])
    assert held.result(check_only=True) is True
    with pytest.raises(ValueError, match="ALWAYS"):
        pywren.wait([held], return_when=7)


def test_calls_are_cancelled_before_they_are_sent_and_while_they_run(cloud, gate):
    with pywren.default_executor(max_workers=1, calls_per_invocation=1) as executor:
        runs, waits = executor.map(gate.hold, [1, 2])
        gate.wait_entered()
        assert waits.cancel()
        assert runs.cancel()
        for future in (runs, waits):
            assert future.cancelled()
            with pytest.raises(CancelledError, match="was cancelled"):
                future.result(timeout=SOON_S)
            with pytest.raises(CancelledError):
                future.exception(timeout=SOON_S)
            assert future.result(throw_except=False) is None
        gate.open()  # the call that nobody waits for any more may still answer
        after = executor.call_async(abs, -3)
        assert after.result(timeout=SOON_S) == 3
        assert not after.cancel()
        assert not after.cancelled()


def test_callbacks_are_given_the_future(pywren_executor):
    called, done = [], threading.Event()
    future = pywren_executor.call_async(abs, -1)
    future.add_done_callback(lambda one: (called.append(one), done.set()))
    assert done.wait(SOON_S)
    future.add_done_callback(called.append)
    assert called == [future, future]


def test_reduce_gets_all_results(pywren_executor):
    futures = pywren_executor.map(lambda n: np.full(3, n), range(4))
    assert pywren_executor.reduce(lambda arrays: sum(arrays).tolist(), futures).result() == [6, 6, 6]
    failing = pywren_executor.map(lambda n: 1 / n, [1, 0])
    with pytest.raises(ZeroDivisionError):
        pywren_executor.reduce(sum, failing).result()


def test_what_cannot_be_pickled_is_told_of(pywren_executor):
    lock = threading.Lock()
    with pytest.raises(SerializationError, match="lock"):
        pywren_executor.map(lambda n: lock, [1])
    future = pywren_executor.call_async(id, lock)
    assert isinstance(future.exception(timeout=SOON_S), SerializationError)
    assert future.run_status["exception"].startswith("Could not pickle")


def test_variables_are_set_for_the_calls_of_one_map(pywren_executor):
    futures = pywren_executor.map(os.getenv, ["OF_THE_MAP"] * 2, extra_env={"OF_THE_MAP": "1"})
    assert pywren.get_all_results(futures) == ["1", "1"]
    assert pywren_executor.call_async(os.getenv, "OF_THE_MAP").result() is None
    with pytest.raises(TypeError, match="OF_THE_MAP"):
        pywren_executor.map(os.getenv, ["OF_THE_MAP"], extra_env={"OF_THE_MAP": 1})


def test_modules_can_be_left_out(pywren_executor, tmp_path, monkeypatch):
    for name in ("wren_taken_along", "wren_left_behind"):
        (tmp_path / f"{name}.py").write_text("def f(x):\n    return x + 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    import wren_left_behind
    import wren_taken_along

    taken = pywren_executor.map(wren_taken_along.f, [1], exclude_modules=["left_behind"])
    assert taken[0].result() == 2
    left = pywren_executor.map(wren_left_behind.f, [1], exclude_modules=["left_behind"])
    assert "wren_left_behind" in str(left[0].exception())
    assert pywren_executor.map(wren_left_behind.f, [1])[0].result() == 2


def test_a_future_inside_a_call_says_what_to_do(pywren_executor):
    first = pywren_executor.call_async(abs, -2)
    first.result()
    assert pywren_executor.call_async(lambda future: future.result(), first).result() == 2


def test_the_future_of_a_wren_executor_says_what_to_do_instead(executor):
    future = executor.submit(abs, -2)
    with pytest.raises(SerializationError, match=r"pass on its result\(\)"):
        executor.submit(id, future).result()


def test_job_max_runtime_is_at_most_lambdas(cloud):
    with pytest.raises(ConfigError, match="900"):
        pywren.default_executor(job_max_runtime=3600)


def test_an_executor_that_is_dropped_ends_when_its_calls_have(cloud):
    futures = pywren.default_executor(max_workers=1).map(abs, [-1, -2])
    assert pywren.get_all_results(futures) == [1, 2]


def test_mode_direct_is_used_where_it_is_wanted(cloud, monkeypatch):
    monkeypatch.setenv("WREN_MODE", "direct")
    with pywren.default_executor(max_workers=1) as executor:
        assert executor.invoker.executor.config.mode == "direct"
        assert executor.call_async(abs, -1).result() == 1
    monkeypatch.delenv("WREN_MODE")
    with pywren.default_executor(max_workers=1) as executor:
        assert executor.invoker.executor.config.mode == "s3"
        assert isinstance(executor.invoker.executor, WrenExecutor)
