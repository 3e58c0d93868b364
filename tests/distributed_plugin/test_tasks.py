"""Tasks that are annotated run on Lambda, and only those, wherever the worker is."""

import gc
import os
import sys
import weakref

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask import delayed
from distributed import get_worker, worker_client
from joblib import Parallel, parallel_config
from joblib import delayed as joblib_delayed
from signals import mark, marks, wait_for

from wren_backends import CallExitedError, ConfigError, WrenExecutor
from wren_backends.distributed import WrenPlugin

SOON_S = 60


def on_lambda(value=None):
    return os.environ.get("WREN_IN_WORKER") == "1"


def burst(client, function, *arguments, **options):
    """Submit one task for Lambda."""
    with dask.annotate(executor="wren"):
        return client.submit(function, *arguments, pure=False, **options)


def test_annotated_tasks_and_no_others_run_on_lambda(client):
    with dask.annotate(executor="wren"):
        there = client.map(on_lambda, range(6), pure=False)
    here = client.map(on_lambda, range(6, 9), pure=False)
    assert client.gather(there) == [True] * 6
    assert client.gather(here) == [False] * 3


def test_a_collection_is_computed_with_its_inputs_from_both_sides(client):
    def add(left, right):
        return left + right, on_lambda()

    with dask.annotate(executor="wren"):
        first = delayed(add)(1, 2)
    second = delayed(add)(first[0], 10)
    assert dask.compute(first, second, scheduler=client) == ((3, True), (13, False))
    x = da.arange(64, chunks=16)
    with dask.annotate(executor="wren"):
        assert (x + 1).sum().compute(scheduler=client) == sum(range(65))


def test_what_a_task_raises_comes_with_its_remote_traceback(client):
    def divides(by):
        return 1 / by

    error = burst(client, divides, 0).exception(timeout=SOON_S)
    assert type(error) is ZeroDivisionError
    assert "in divides" in str(error.__cause__)
    assert any("log stream" in note for note in error.__notes__)


def test_exit_ends_no_worker(processes):
    before = processes.run(os.getpid)
    assert type(burst(processes, sys.exit, 3).exception(timeout=SOON_S)) is CallExitedError
    assert processes.run(os.getpid) == before


def test_a_task_for_lambda_takes_no_thread_of_the_worker(processes, gate):
    """The worker has one thread; four tasks are on Lambda at once, and one of its own runs meanwhile."""
    held = [burst(processes, gate.hold, number) for number in range(4)]
    gate.wait_entered(4)
    assert processes.submit(on_lambda, pure=False).result(timeout=SOON_S) is False
    gate.open()
    assert processes.gather(held) == [0, 1, 2, 3]


def test_dask_retries_what_raises(threads, tmp_path):
    def at_the_second_attempt(path):
        mark(path)
        if marks(path) == 1:
            raise ValueError
        return marks(path)

    assert burst(threads, at_the_second_attempt, str(tmp_path / "runs"), retries=1).result(timeout=SOON_S) == 2


def test_output_appears_where_the_worker_is(threads, capsys):
    assert burst(threads, print, "printed on Lambda").result(timeout=SOON_S) is None
    assert "printed on Lambda" in capsys.readouterr().out


def test_a_cancelled_task_frees_its_slot(start_cluster, gate):
    client = start_cluster(
        WrenPlugin(max_workers=1, calls_per_invocation=1), n_workers=1, threads_per_worker=1, processes=False
    )
    held = burst(client, gate.hold, 1)
    gate.wait_entered()
    held.cancel()
    wait_for(held.cancelled)
    assert burst(client, on_lambda).result(timeout=SOON_S)
    # Whether the worker hears of it before it is wanted again is up to dask: it comes to the same.
    held = burst(client, gate.hold, 2, key="of-the-gate")
    gate.wait_entered(2)
    held.release()
    again = burst(client, gate.hold, 2, key="of-the-gate")
    gate.open()
    assert again.result(timeout=SOON_S) == 2


def test_more_tasks_than_may_wait_wait_their_turn(start_cluster, monkeypatch):
    monkeypatch.setattr("wren_backends.burst._FEWEST_AHEAD", 1)
    monkeypatch.setattr("wren_backends.burst._AHEAD", 1)
    client = start_cluster(WrenPlugin(max_workers=1), n_workers=1, threads_per_worker=2, processes=False)
    with dask.annotate(executor="wren"):
        futures = client.map(on_lambda, range(20), pure=False)
    assert client.gather(futures) == [True] * 20


@pytest.mark.filterwarnings("ignore:Dask annotations:UserWarning")  # not so: what is set while computing counts
def test_shuffles_of_dask_talk_to_the_worker_and_stay_there(client):
    frame = pd.DataFrame({"key": np.arange(60) % 7, "value": np.arange(60)})
    expected = frame.groupby("key").value.apply(sorted).sort_index()
    left = dd.from_pandas(frame, npartitions=3)
    right = dd.from_pandas(pd.DataFrame({"key": range(7), "name": list("abcdefg")}), npartitions=2)
    with dask.annotate(executor="wren"), dask.config.set({"dataframe.shuffle.method": "p2p"}):
        shuffled = left.shuffle("key").compute(scheduler=client)
        merged = left.merge(right, on="key", shuffle_method="p2p").compute(scheduler=client)
    pd.testing.assert_series_equal(shuffled.groupby("key").value.apply(sorted).sort_index(), expected)
    assert sorted(merged.value) == list(range(60))
    assert all(merged.name == merged.key.map(dict(enumerate("abcdefg"))))


def test_joblib_inside_a_task(client):
    def parallel():
        with parallel_config("wren", n_jobs=2):
            return Parallel()(joblib_delayed(os.getenv)("WREN_IN_WORKER") for _ in range(4))

    assert client.submit(parallel, pure=False).result(timeout=SOON_S) == ["1"] * 4  # each a call of its own
    assert burst(client, parallel).result(timeout=SOON_S) == ["1"] * 4  # in sequence, where it is


def test_a_task_sends_further_tasks(client):
    def sends():
        with worker_client() as inner, dask.annotate(executor="wren"):
            return inner.gather(inner.map(on_lambda, range(2), pure=False))

    assert client.submit(sends, pure=False).result(timeout=SOON_S) == [True, True]


def test_there_is_no_worker_to_ask_on_lambda(threads):
    def asks():
        return get_worker()

    assert "No worker" in str(burst(threads, asks).exception(timeout=SOON_S))


def test_a_future_that_a_task_returns_says_what_to_do_instead(processes):
    def returns_future():
        with WrenExecutor(max_workers=1) as executor:
            return executor.submit(abs, -1)

    with pytest.raises(TypeError, match=r"pass on its result\(\)"):
        processes.submit(returns_future, pure=False).result(timeout=SOON_S)


def test_a_result_that_nobody_wants_any_more_is_let_go_of_at_once(threads, collector_off):
    future = burst(threads, np.zeros, 1000)
    result = future.result(timeout=SOON_S)  # the worker's own object, as it is in this process
    left = weakref.ref(result)
    del result
    future.release()
    wait_for(lambda: left() is None)


@pytest.fixture
def collector_off():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_what_a_worker_lacks_is_the_tasks_error(start_cluster):
    plugin = WrenPlugin("nowhere", cloud="aws")
    client = start_cluster(plugin, n_workers=1, threads_per_worker=1, processes=False)
    with dask.annotate(executor="nowhere"):
        error = client.submit(on_lambda, pure=False).exception(timeout=SOON_S)
    assert isinstance(error, ConfigError)
    assert "WREN_BUCKET" in str(error)


def test_nothing_else_can_be_submitted(threads):
    with pytest.raises(TypeError, match="WrenExecutor"):
        threads.run(lambda dask_worker: dask_worker.executors["wren"].submit(abs, -1))
