"""`wren_get` as a dask scheduler: every kind of collection, callbacks, errors, settings."""

import operator
import os
import threading
import traceback
import warnings

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask.diagnostics import Callback, Profiler, ProgressBar
from dask.utils import key_split
from dask.utils_test import add, inc

from wren_backends import ConfigError, SerializationError, WrenExecutor, wren_get


@pytest.fixture(autouse=True)
def on_the_cloud(cloud):
    """Every test here uses the session's local cloud, with two workers."""
    with dask.config.set(scheduler=wren_get, wren={"max_workers": 2}):
        yield


def test_delayed_values_arguments_and_keyword_arguments():
    @dask.delayed
    def power(base, *, exponent=1):
        return base**exponent

    assert dask.compute(*[power(n, exponent=2) for n in range(50)]) == tuple(n**2 for n in range(50))


def test_array_equals_numpy():
    values = np.random.default_rng(0).random((300, 200))
    array = da.from_array(values, chunks=(100, 70))
    np.testing.assert_allclose(((array + 1).T @ array).std(axis=0).compute(), ((values + 1).T @ values).std(axis=0))


def test_bag_groupby_and_fold():
    bag = db.from_sequence(range(100), npartitions=7)
    assert bag.map(lambda n: n * 2).filter(lambda n: n % 3 == 0).sum().compute() == sum(range(0, 200, 6))
    assert sorted((key, len(group)) for key, group in bag.groupby(lambda n: n % 3).compute()) == [
        (0, 34),
        (1, 33),
        (2, 33),
    ]


def test_dataframe_groupby_merge_and_set_index():
    frame = pd.DataFrame(
        {"key": np.arange(200) % 7, "value": np.arange(200.0), "text": [f"row {n}" for n in range(200)]}
    )
    lazy = dd.from_pandas(frame, npartitions=5)
    pd.testing.assert_series_equal(
        lazy.groupby("key").value.sum().compute().sort_index(), frame.groupby("key").value.sum(), check_index_type=False
    )
    merged = lazy.merge(lazy[["key"]].drop_duplicates(), on="key").compute()
    assert sorted(merged.value) == sorted(frame.value)
    assert list(lazy.set_index("value", divisions=[0.0, 50.0, 100.0, 199.0]).compute().text) == list(frame.text)


def test_graphs_are_not_changed_and_only_ancestors_run():
    ran = []
    graph = {"a": 1, "b": (inc, "a"), "c": (add, "b", "b"), "never": (ran.append, 1)}
    before = dict(graph)
    assert wren_get(graph, ["c", ["b", "a"]]) == (4, (2, 1))
    assert graph == before
    assert wren_get(graph, []) == ()


def test_a_chain_is_one_call_unless_a_callback_wants_every_value():
    graph = {"a": 1, **{f"x{n}": (inc, f"x{n - 1}" if n else "a") for n in range(10)}}
    with WrenExecutor(2) as executor:
        assert wren_get(graph, "x9", executor=executor) == 11
        assert executor.journal.counts["call.submitted"] == 1
        seen = []
        with Callback(posttask=lambda key, value, *rest: seen.append((key, value))):
            assert wren_get(graph, "x9", executor=executor) == 11
        assert executor.journal.counts["call.submitted"] == 11
    assert sorted(seen) == [(f"x{n}", n + 2) for n in range(10)]


def test_progress_bar_and_profiler(capsys):
    total = db.range(100, npartitions=5).map(inc).sum()
    with ProgressBar(minimum=0, dt=0.01), Profiler() as profiler:
        assert total.compute() == sum(range(1, 101))
    assert "100% Completed" in capsys.readouterr().out
    names = {key_split(result.key) for result in profiler.results}
    assert {"inc-range", "sum-part", "sum-aggregate"} & names
    assert all(result.end_time >= result.start_time for result in profiler.results)


def test_callbacks_finish_with_the_error_flag_set():
    finished = []
    with Callback(finish=lambda graph, state, failed: finished.append(failed)):
        with pytest.raises(ZeroDivisionError):
            dask.delayed(operator.truediv)(1, 0).compute()
        assert dask.delayed(operator.truediv)(1, 1).compute() == 1
    assert finished == [True, False]


def test_an_error_names_the_key_and_has_the_remote_traceback():
    with pytest.raises(ZeroDivisionError) as caught:
        dask.delayed(operator.truediv)(1, 0, dask_key_name="the-bad-one").compute()
    assert "the-bad-one" in "".join(caught.value.__notes__)
    assert type(caught.value.__cause__).__name__ == "_RemoteTraceback"


def test_rerun_exceptions_locally_runs_the_task_in_this_process():
    here = []

    def fails():
        here.append(1)
        raise ValueError("as wanted")

    with pytest.raises(ValueError, match="as wanted"):
        dask.delayed(fails)().compute(rerun_exceptions_locally=True)
    assert here == [1]


def test_missing_keys_and_missing_dependencies_are_errors():
    with pytest.raises(KeyError, match="nowhere"):
        wren_get({"a": 1}, ["a", "nowhere"])
    with pytest.raises((KeyError, ValueError)):
        wren_get({"a": (inc, dask._task_spec.TaskRef("nowhere"))}, "a")


def test_settings_may_come_with_compute_or_from_dask_config():
    task = dask.delayed(inc)(1)
    assert task.compute(mode="s3") == 2
    with pytest.raises(ConfigError, match="mode"):
        task.compute(mode="nonsense")
    with dask.config.set(wren={"mode": "nonsense"}), pytest.raises(ConfigError, match="mode"):
        task.compute()


def test_a_keyword_that_looks_like_a_slip_is_warned_of_and_others_are_not():
    task = dask.delayed(inc)(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert task.compute(optimize_graph=False, pool=None, chunksize=3, sync=True, bogus_keyword=1) == 2
    with pytest.warns(UserWarning, match="no notice of mod='s3': is it 'mode'"):
        assert task.compute(mod="s3") == 2
    with WrenExecutor(1) as executor, pytest.raises(ConfigError, match="not both: mode"):
        task.compute(executor=executor, mode="s3")


@pytest.mark.parametrize("by_config", [False, True])
def test_an_initializer_runs_in_each_environment(by_config):
    def set_variable():
        os.environ["SET_BY_INITIALIZER"] = "1"

    tasks = [dask.delayed(os.getenv)("SET_BY_INITIALIZER") for _ in range(4)]
    if by_config:
        with dask.config.set({"multiprocessing.initializer": set_variable}):
            assert dask.compute(*tasks) == ("1",) * 4
    else:
        assert dask.compute(*tasks, initializer=set_variable) == ("1",) * 4
    with WrenExecutor(1) as executor, pytest.raises(ConfigError, match="not both: initializer"):
        dask.compute(*tasks, executor=executor, initializer=set_variable)


def test_a_dataframe_of_delayed_parts():
    parts = [dask.delayed(pd.DataFrame)({"x": [n]}) for n in range(3)]
    frame = dd.from_delayed(parts, meta={"x": int}, verify_meta=False)
    assert list(frame.compute().x) == [0, 1, 2]


def test_a_dataframe_compared_with_delayed_values():
    frame = dd.from_pandas(pd.DataFrame({"x": range(6)}), npartitions=3)
    found = frame.x.isin([dask.delayed(1), dask.delayed(4)]).compute()
    assert list(found) == [False, True, False, False, True, False]


def test_a_callback_before_each_task_sees_the_graphs_keys():
    keys = []
    with Callback(pretask=lambda key, *rest: keys.append(key)):
        assert wren_get({"a": (inc, 1), "b": (inc, "a"), "c": (inc, "b")}, "c") == 4
    assert sorted(keys) == ["a", "b", "c"]


def inner(x):
    return 1 / x


def outer(x):
    return inner(x)


def test_an_error_has_its_frames_of_the_worker():
    with pytest.raises(ZeroDivisionError) as raised:
        dask.compute(dask.delayed(outer)(0))
    names = [frame.name for frame in traceback.extract_tb(raised.tb)]
    assert names[-2:] == ["outer", "inner"]
    assert "wren_get" not in names


def test_an_error_that_has_no_frames_comes_as_it_is():
    with pytest.raises(SerializationError):
        dask.compute(dask.delayed(threading.Lock)())


def test_it_runs_in_sequence_inside_a_call(executor):
    def nested():
        return wren_get({"a": (inc, 1), "b": (inc, "a")}, ["a", "b"], num_workers=2, mode="s3")

    assert executor.submit(nested).result() == (2, 3)


def test_num_workers_caps_what_is_in_flight():
    with WrenExecutor(1) as executor:
        environments = dask.compute(*[dask.delayed(_environment)() for _ in range(4)], executor=executor)
    assert len(set(environments)) == 1


def test_num_workers_of_dasks_configuration_caps_it_too():
    tasks = [dask.delayed(_environment)(0.05) for _ in range(6)]
    with dask.config.set(num_workers=1):
        assert len(set(dask.compute(*tasks))) == 1
    assert len(set(dask.compute(*tasks, num_workers=2))) == 2


def _environment(takes_s=0.0):
    import os
    import time

    time.sleep(takes_s)
    return os.getpid()


def test_persist_and_a_second_computation():
    array = da.arange(100, chunks=10).persist()
    assert array.sum().compute() == 4950
