"""Graphs whose intermediate values stay in S3: what passes through the client, what is deleted, what is made again."""

import asyncio
import copy
import gc
import operator
import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import cloudpickle
import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask.diagnostics import Callback
from dask.utils_test import add, inc
from signals import mark, marks, wait_for

from wren_backends import (
    EnvironmentLostError,
    StorageError,
    TamperedObjectError,
    WrenExecutor,
    wren_get,
)
from wren_backends.connection import open_store

MB = 1_000_000


@pytest.fixture
def executor(cloud):
    with WrenExecutor(2) as executor:
        yield executor


def data_keys(executor):
    """Objects that calls of this executor left for other calls."""
    return asyncio.run(_keys(executor))


async def _keys(executor):
    store = open_store(executor.connection, executor.connection.prefix)
    return [key async for key in store.list_async(f"jobs/{executor.job_id}/data/")]


def delete(executor, keys):
    store = open_store(executor.connection, executor.connection.prefix)
    asyncio.run(store.delete_async(keys))


def overwrite(executor, key, data):
    store = open_store(executor.connection, executor.connection.prefix)
    asyncio.run(store.put_async(key, data))


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return mark, (self.path,)


def compute(collection, executor, **options):
    return collection.compute(scheduler=wren_get, executor=executor, **options)


def random_bytes(size, seed):
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def ones(size, *_):
    return np.ones(size, np.uint8)


# What passes through the client.


@pytest.mark.parametrize("mode", ["direct", "s3"])
def test_large_values_go_from_task_to_task_past_the_client(cloud, mode):
    with WrenExecutor(2, mode=mode) as executor:
        parts = [dask.delayed(random_bytes)(2 * MB, seed) for seed in range(6)]
        mixed = [dask.delayed(np.add)(one, other) for one in parts[:3] for other in parts[3:]]
        total = compute(dask.delayed(lambda *all: int(sum(one.sum() for one in all)))(*mixed), executor)
        counts = executor.journal.counts
    made = [random_bytes(2 * MB, seed) for seed in range(6)]
    assert total == sum(int(np.add(one, other).sum()) for one in made[:3] for other in made[3:])
    through_the_client = sum(counts.get(f"bytes.{way}", 0) for way in ("sent", "received", "uploaded"))
    assert through_the_client < MB  # of 30, and the modules that this one imports are in it


def test_a_graph_of_intermediates_needs_no_memory_in_the_client(run_script):
    """A hundred times the result: 100 MB are made, and each array is needed by two tasks elsewhere."""
    done = run_script(
        """
        import resource
        import dask, numpy as np
        from wren_backends import wren_get

        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

        def make(seed):
            return np.random.default_rng(seed).integers(0, 256, 5_000_000, np.uint8)

        parts = [dask.delayed(make)(seed) for seed in range(10)]
        pairs = [dask.delayed(np.maximum)(one, other) for one, other in zip(parts, parts[1:] + parts[:1])]
        tops = [dask.delayed(lambda a: a[:100_000])(one) for one in pairs]
        result = dask.delayed(lambda *all: np.concatenate(all))(*tops)
        dask.delayed(np.ones)(1_000_000).compute(scheduler=wren_get)
        before = peak()
        assert result.compute(scheduler=wren_get).nbytes == 1_000_000
        print(peak() - before)
        """,
        limit_s=100,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 15 * MB


def test_only_what_is_asked_for_comes_home(executor):
    result = compute(dask.delayed(ones)(3 * MB, dask.delayed(ones)(2 * MB)), executor)
    assert result.sum() == 3 * MB
    result[0] = 7  # what comes home may be written to
    assert executor.journal.counts["bytes.received"] < 4.2 * MB


def test_small_values_cost_no_request_to_s3(executor):
    before = dict(executor.connection.stats()["s3"])
    pairs = [dask.delayed(add)(dask.delayed(inc)(n), dask.delayed(inc)(n + 1)) for n in range(20)]
    assert dask.compute(*pairs, scheduler=wren_get, executor=executor) == tuple(2 * n + 3 for n in range(20))
    after = executor.connection.stats()["s3"]
    assert after.get("PUT", 0) == before.get("PUT", 0)


def test_small_tasks_whose_kind_was_measured_go_together(executor):
    def total():
        return dask.delayed(sum)([dask.delayed(operator.neg, pure=False)(one) for one in range(1500)])

    assert compute(total(), executor) == -sum(range(1500))
    assert executor.journal.counts["call.submitted"] < 60
    assert executor.journal.counts["invocation.started"] < 60
    assert not executor.journal.counts.get("s3.worker.PUT")


def test_a_value_that_many_need_is_made_and_put_once(executor, tmp_path):
    made = str(tmp_path / "made")

    def make():
        mark(made)
        return np.arange(300_000)

    base = dask.delayed(make)()
    sums = [dask.delayed(lambda a, n: int(a[n]))(base, n) for n in range(12)]
    assert dask.compute(*sums, scheduler=wren_get, executor=executor) == tuple(range(12))
    assert marks(made) == 1
    assert executor.journal.counts["s3.worker.PUT"] == 1
    assert executor.journal.counts["reused.blobs"] >= 1
    assert executor.journal.counts["reused.bytes"] >= 300_000 * 8


def test_a_value_of_several_buffers_is_one_object(executor):
    def arrays(size):
        fixed = np.arange(size) * 3
        fixed.flags.writeable = False
        return [np.arange(size), np.arange(size) / 2, fixed]

    def spoil(arrays, by):
        for one in arrays[:2]:
            one[0] += by
        assert not arrays[2].flags.writeable
        return [float(one.sum()) for one in arrays]

    made = dask.delayed(arrays)(30_000)
    found = dask.compute(*(dask.delayed(spoil)(made, by) for by in (1, 2)), scheduler=wren_get, executor=executor)
    sums = [float(one.sum()) for one in arrays(30_000)]
    assert found == ([sums[0] + 1, sums[1] + 1, sums[2]], [sums[0] + 2, sums[1] + 2, sums[2]])
    assert executor.journal.counts["s3.worker.PUT"] == 1


def test_a_task_may_write_to_its_inputs_and_no_other_sees_it(executor):
    def spoil(array, n):
        before = int(array.sum())
        array[:] = n
        return before

    base = dask.delayed(np.ones)(500_000)
    assert dask.compute(*[dask.delayed(spoil)(base, n) for n in range(6)], scheduler=wren_get, executor=executor) == (
        (500_000,) * 6
    )


def test_data_of_the_client_is_uploaded_once(executor):
    values = np.random.default_rng(0).random(400_000)
    source = dask.delayed(values)
    parts = [dask.delayed(operator.getitem)(source, n) for n in range(8)]
    assert dask.compute(*parts, scheduler=wren_get, executor=executor) == tuple(values[:8])
    assert executor.journal.counts["bytes.uploaded"] == values.nbytes


def test_values_of_the_users_own_classes_travel_past_those_who_do_not_name_them(run_script, tmp_path):
    (tmp_path / "shapes.py").write_text("class Box:\n    def __init__(self, n):\n        self.content = bytes(n)\n")
    done = run_script(
        """
        import dask, shapes
        from wren_backends import wren_get

        boxes = [dask.delayed(shapes.Box)(100_000 + n) for n in range(3)]
        lists = [dask.delayed(list)(boxes[:2]), dask.delayed(list)(boxes[1:])]
        sizes = dask.delayed(lambda *all: [type(box).__name__ + str(len(box.content)) for one in all for box in one])
        print(sizes(*lists).compute(scheduler=wren_get))
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['Box100000', 'Box100001', 'Box100001', 'Box100002']"


# What runs together.


def test_pieces_are_cut_where_the_whole_was_made(executor):
    """A shuffle: who needs a piece fetches no more than that."""
    frame = pd.DataFrame({"key": np.arange(40_000) % 97, "value": np.arange(40_000.0)})
    shuffled = dd.from_pandas(frame, npartitions=4).shuffle("key")
    counted = shuffled.map_partitions(lambda part: part.groupby("key").value.sum().to_frame())
    found = compute(counted, executor).value.sort_index()
    pd.testing.assert_series_equal(found, frame.groupby("key").value.sum(), check_index_type=False)
    assert executor.journal.counts["call.submitted"] <= 4 + 4 + 4


def test_small_tasks_that_turn_out_large_are_sent_anew(executor, tmp_path):
    """What is known of a kind may be wrong the next time: the rest is not left to run one after the other."""
    slow, ran = str(tmp_path / "slow"), str(tmp_path / "ran")

    def leaf(n):
        if os.path.exists(slow):
            mark(ran)
            time.sleep(0.3)
        return n

    def total():
        leaves = [dask.delayed(leaf, pure=False)(n, dask_key_name=f"seemssmall-{n}") for n in range(8)]
        return dask.delayed(sum)(leaves, dask_key_name="seemssmallsum")

    for _ in range(2):
        assert compute(total(), executor) == 28
    before = executor.journal.counts["call.submitted"]
    mark(slow)
    assert compute(total(), executor) == 28
    assert marks(ran) == 8
    assert executor.journal.counts["call.submitted"] - before > 2


# What is deleted.


def two_sums(size=500_000):
    base = dask.delayed(ones)(size)
    return dask.delayed(lambda a, b: int(a) + int(b))(dask.delayed(np.sum)(base), dask.delayed(np.max)(base))


def test_intermediates_are_deleted_when_the_graph_is_done(executor):
    assert compute(two_sums(), executor) == 500_001
    assert executor.journal.counts["s3.worker.PUT"] >= 1
    wait_for(lambda: not data_keys(executor))


def test_intermediates_are_deleted_when_the_graph_fails(executor):
    base = dask.delayed(ones)(500_000)
    with pytest.raises(ZeroDivisionError):
        compute(dask.delayed(add)(dask.delayed(lambda a: 1 / 0)(base), dask.delayed(np.max)(base)), executor)
    wait_for(lambda: not data_keys(executor))


def test_intermediates_are_deleted_before_the_executor_ends(cloud):
    with WrenExecutor(2) as executor:
        compute(two_sums(), executor)
    assert data_keys(executor) == []


def test_intermediates_are_kept_on_request(executor):
    compute(two_sums(), executor, keep_intermediates=True)
    assert len(data_keys(executor)) == 1


def test_intermediates_are_kept_where_dask_is_configured_so(executor):
    with dask.config.set({"wren.keep_intermediates": True}):
        compute(two_sums(), executor)
    assert len(data_keys(executor)) == 1


# What is lost.


def lose_at(executor, wanted, times=1):
    """A callback that deletes whatever lies in the bucket when a task of this name is about to be sent."""
    lost = []

    def pretask(key, *_):
        if str(key).startswith(wanted) and len(lost) < times:
            found = data_keys(executor)
            lost.append(len(found))
            delete(executor, found)

    return Callback(pretask=pretask), lost


def lossy_graph(ran):
    def make(seed):
        mark(ran)
        return random_bytes(MB, seed)

    made = [dask.delayed(make)(seed, dask_key_name=f"make-{seed}") for seed in range(2)]
    both = dask.delayed(np.maximum)(*made, dask_key_name="both")
    low = dask.delayed(np.minimum)(*made, dask_key_name="low")
    return dask.delayed(lambda a, b: int(a.sum()) - int(b.sum()))(both, low, dask_key_name="last")


def expected_of_lossy_graph():
    one, other = random_bytes(MB, 0), random_bytes(MB, 1)
    return int(np.maximum(one, other).sum()) - int(np.minimum(one, other).sum())


def test_a_lost_intermediate_is_made_again_with_what_it_needs(executor, tmp_path):
    """Whatever an environment may still have at hand, the value is the same."""
    ran = str(tmp_path / "ran")
    callback, lost = lose_at(executor, "last")
    with callback, dask.config.set({"wren.keep_intermediates": False}):
        assert compute(lossy_graph(ran), executor) == expected_of_lossy_graph()
    assert lost[0] >= 2


def end_environments(killer):
    """Those that are idle, and some."""
    for _ in range(4):
        with pytest.raises(EnvironmentLostError):
            killer.submit(os._exit, 3).result()


def test_what_was_lost_from_cold_environments_is_made_again(executor, tmp_path):
    ran = str(tmp_path / "ran")
    callback, _ = lose_at(executor, "last")

    def end_them(key, *_):
        if str(key).startswith("last"):
            end_environments(killer)

    with WrenExecutor(2, max_attempts=1) as killer, callback, Callback(pretask=end_them):
        assert compute(lossy_graph(ran), executor) == expected_of_lossy_graph()
    assert executor.journal.counts["intermediates.lost"] >= 1
    assert marks(ran) > 2


def test_what_is_lost_again_and_again_is_an_error(cloud, tmp_path):
    def lose(happening):
        if happening.name == "call.finished":
            thread = threading.Thread(target=lose_all)
            thread.start()
            thread.join()

    def lose_all():
        """In a thread of its own, because an event loop runs in the one that listens."""
        delete(executor, data_keys(executor))
        end_environments(killer)

    with WrenExecutor(2, max_attempts=1) as killer, WrenExecutor(1, max_attempts=2, on_event=lose) as executor:
        lossy = lossy_graph(str(tmp_path / "ran"))
        with pytest.raises(StorageError, match="dask key"):
            compute(lossy, executor)


def test_a_value_that_is_gone_when_a_callback_looks_at_it_is_made_again(cloud, tmp_path):
    happened, seen, lost, ran = [], [], [], str(tmp_path / "ran")

    def posttask(key, value, *_):
        if not lost:
            wait_for(lambda: happened.count("call.finished") == 2)
            lost.extend(data_keys(executor))
            delete(executor, lost)
        seen.append(key)

    with WrenExecutor(2, on_event=lambda one: happened.append(one.name)) as executor, Callback(posttask=posttask):
        assert compute(lossy_graph(ran), executor) == expected_of_lossy_graph()
    assert len(lost) == 2
    assert sorted(seen) == ["both", "last", "low", "make-0", "make-1"]
    assert marks(ran) >= 3


def test_an_intermediate_that_somebody_replaced_is_not_unpickled(executor, tmp_path):
    def replace(key, *_):
        if str(key).startswith("last"):
            for one in data_keys(executor):
                overwrite(executor, one, pickle.dumps(Trap(str(tmp_path / "sprung"))))
            end_environments(killer)

    with WrenExecutor(2, max_attempts=1) as killer, Callback(pretask=replace):
        lossy = lossy_graph(str(tmp_path / "ran"))
        with pytest.raises(TamperedObjectError, match="last"):
            compute(lossy, executor)
    assert not marks(tmp_path / "sprung")


# What is persisted.


def test_persisted_values_stay_in_s3_and_are_used_from_there(executor):
    array = da.random.default_rng(1).random((1000, 1000), chunks=(500, 500))
    kept = array.persist(scheduler=wren_get, executor=executor)
    sent = executor.journal.counts["bytes.received"]
    assert sent < 100_000
    assert len(data_keys(executor)) == 4
    total = compute(kept.sum(), executor)
    assert executor.journal.counts["bytes.received"] - sent < 100_000
    np.testing.assert_allclose(total, compute(kept, executor).sum())
    assert compute(kept, executor).shape == (1000, 1000)


def test_a_persisted_part_can_be_had_alone(executor):
    x = da.ones((4, 4), chunks=2).persist(scheduler=wren_get, executor=executor)
    assert x.dask[x.name, 1, 1].result().tolist() == [[1, 1], [1, 1]]


def test_persisted_values_go_with_the_collection(executor):
    kept = da.arange(640_000, chunks=160_000).persist(scheduler=wren_get, executor=executor)
    more = (kept + 1).persist(scheduler=wren_get, executor=executor)
    assert len(data_keys(executor)) == 8
    del kept
    gc.collect()
    wait_for(lambda: len(data_keys(executor)) == 4)
    assert compute(more.sum(), executor) == sum(range(640_001))
    del more
    gc.collect()
    wait_for(lambda: not data_keys(executor))


@pytest.mark.parametrize("kind", ["delayed", "bag", "array", "dataframe"])
def test_every_kind_of_collection_is_persisted(executor, kind):
    import dask.bag as db

    collection, expected = {
        "delayed": lambda: (dask.delayed(list)(range(50_000)), list(range(50_000))),
        "bag": lambda: (db.range(60_000, npartitions=3).map(inc), list(range(1, 60_001))),
        "array": lambda: (da.arange(60_000, chunks=20_000) + 1, list(range(1, 60_001))),
        "dataframe": lambda: (
            dd.from_pandas(pd.DataFrame({"a": np.arange(60_000)}), npartitions=3) + 1,
            list(range(1, 60_001)),
        ),
    }[kind]()
    kept = collection.persist(scheduler=wren_get, executor=executor)
    calls = executor.journal.counts["call.submitted"]
    again = kept.persist(scheduler=wren_get, executor=executor)
    for one in (kept, again):
        found = compute(one, executor)
        assert list(found.a if kind == "dataframe" else found) == expected
    assert executor.journal.counts["call.submitted"] == calls


def test_equal_values_that_were_persisted_together_go_one_by_one(executor):
    made = dask.delayed(random_bytes)(MB, 3)
    same = dask.delayed(operator.pos)(made)
    first, second = dask.persist(made, same, scheduler=wren_get, executor=executor)
    del first
    gc.collect()
    before = executor.journal.counts["call.finished"]
    assert dask.delayed(len)(second).compute(scheduler=wren_get, executor=executor) == MB
    assert executor.journal.counts["call.finished"] == before + 1  # nothing had to be made again


def test_persisting_from_several_threads(executor):
    def persist(seed):
        return dask.delayed(random_bytes)(MB, seed).persist(scheduler=wren_get, executor=executor)

    with ThreadPoolExecutor(4) as pool:
        kept = list(pool.map(persist, range(12)))
    assert len(dask.compute(*kept, scheduler=wren_get, executor=executor)) == 12


def test_what_is_gathered_here_may_have_another_name_too(executor):
    graph = {"a": (inc, 1), "finalize-x": (list, ["a"]), "b": "finalize-x"}
    assert wren_get(graph, ["finalize-x", "b"], executor=executor) == ([2], [2])


def test_an_error_in_what_is_gathered_here_names_its_key(executor):
    with pytest.raises(ZeroDivisionError) as raised:
        wren_get({"a": (inc, -1), "finalize-x": (operator.truediv, 1, "a")}, "finalize-x", executor=executor)
    assert any("finalize-x" in note for note in raised.value.__notes__)


def test_persisted_values_are_made_again_when_they_are_lost(executor):
    kept = da.random.default_rng(3).random((600, 600), chunks=300).persist(scheduler=wren_get, executor=executor)
    before = compute(kept, executor)
    delete(executor, data_keys(executor))
    np.testing.assert_array_equal(compute(kept, executor), before)


def test_persisted_values_that_are_lost_are_made_again_in_one_go(executor):
    kept = da.random.default_rng(3).random((1200, 1200), chunks=200).persist(scheduler=wren_get, executor=executor)
    before = compute(kept, executor)
    delete(executor, data_keys(executor)[::2])
    executor.journal.counts.clear()
    np.testing.assert_allclose(compute(kept.sum(), executor), before.sum())
    delete(executor, data_keys(executor))
    np.testing.assert_array_equal(compute(kept, executor), before)
    assert executor.journal.counts["persisted.lost"] == 2  # once for each computation


def test_what_was_persisted_elsewhere_and_what_is_lost_is_made_again_in_one_go(cloud, executor):
    def persisted(seed, by):
        array = da.random.default_rng(seed).random((800, 800), chunks=200)
        return array.persist(scheduler=wren_get, executor=by)

    with WrenExecutor(2, prefix="elsewhere") as other:
        there, here = persisted(1, other), persisted(2, executor)
        before = compute(here, executor).sum() + compute(there, other).sum()
        delete(executor, data_keys(executor))
        np.testing.assert_allclose(compute(there.sum() + here.sum(), executor), before)
    assert executor.journal.counts["persisted.lost"] == 1


def test_a_persisted_value_may_be_an_argument_like_any_other(executor):
    [kept] = dask.persist(dask.delayed(ones)(300_000), scheduler=wren_get, executor=executor)
    held = next(iter(kept.dask.values()))
    assert executor.submit(np.sum, held).result() == 300_000
    assert compute(dask.delayed(add)(kept, 1).sum(), executor) == 600_000
    assert "300," in repr(held)


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_a_pickle_of_a_persisted_collection_has_the_values(executor, dumps):
    [kept] = dask.persist(dask.delayed(ones)(300_000), scheduler=wren_get, executor=executor)
    assert pickle.loads(dumps(kept)).sum().compute(scheduler="sync") == 300_000


def test_a_persisted_value_whose_executor_was_shut_down_says_what_to_do(cloud):
    with WrenExecutor(1) as executor:
        [kept] = dask.persist(dask.delayed(ones)(300_000), scheduler=wren_get, executor=executor)
    with pytest.raises(StorageError, match=r"executor was shut down\. Persist it again"):
        pickle.dumps(kept)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_of_a_persisted_collection_stays_in_s3(executor, copied):
    [kept] = dask.persist(dask.delayed(ones)(300_000), scheduler=wren_get, executor=executor)
    again = copied(next(iter(kept.dask.values())))
    assert executor.submit(np.sum, again).result() == 300_000
    assert executor.journal.counts["bytes.received"] < 100_000


def test_small_and_given_values_are_persisted_in_the_client(executor):
    [small] = dask.persist(dask.delayed(inc)(1), scheduler=wren_get, executor=executor)
    assert data_keys(executor) == []
    assert compute(dask.delayed(inc)(small), executor) == 3
    given = da.from_array(np.arange(6), chunks=3).persist(scheduler=wren_get, executor=executor)
    assert list(compute(given, executor)) == list(range(6))


# What goes wrong.


def test_a_failure_within_a_chain_names_its_own_key(executor):
    first = dask.delayed(inc)(1, dask_key_name="the-first")
    second = dask.delayed(lambda n: n / 0)(first, dask_key_name="the-second")
    with pytest.raises(ZeroDivisionError) as caught:
        compute(dask.delayed(inc)(second, dask_key_name="the-third"), executor)
    assert any("'the-second'" in note and "'the-first'" not in note for note in caught.value.__notes__)


def test_rerunning_locally_has_the_inputs_from_s3(executor):
    here = []

    def fails(array):
        here.append(array.sum())
        raise ValueError("as wanted")

    base = dask.delayed(ones)(300_000)
    with pytest.raises(ValueError, match="as wanted"):
        compute(
            dask.delayed(add)(dask.delayed(fails)(base), dask.delayed(np.max)(base)),
            executor,
            rerun_exceptions_locally=True,
        )
    assert here == [300_000]


def test_a_chain_that_runs_out_of_time_is_run_task_by_task(cloud, tmp_path):
    slow = str(tmp_path / "slow")

    def link(before):
        if os.path.exists(slow):
            time.sleep(0.7)
        return before + 1

    def chain():
        value = 0
        for number in range(3):
            value = dask.delayed(link)(value, dask_key_name=f"slowlink-{number}")
        return value

    with WrenExecutor(1, timeout_s=2) as executor:
        assert compute(chain(), executor) == 3
        assert compute(chain(), executor) == 3
        before = executor.journal.counts["call.submitted"]
        mark(slow)
        assert compute(chain(), executor) == 3
        assert executor.journal.counts["step.split"] == 1
        assert executor.journal.counts["call.submitted"] - before == 1 + 3


def test_an_interrupted_graph_stops_and_leaves_nothing(run_script):
    done = run_script(
        """
        import os, signal, threading, time
        import dask, numpy as np
        from wren_backends import WrenExecutor, loops, wren_get
        from wren_backends.connection import open_store

        def interrupt():
            while executor.journal.counts["call.submitted"] < 1 + 2 + 4:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        def slow(array):
            time.sleep(5)

        executor = WrenExecutor(2)
        made = [dask.delayed(np.ones)(500_000 + n) for n in range(2)]
        ends = [dask.delayed(slow)(one) for one in made for _ in range(2)]
        executor.submit(int).result()
        threading.Thread(target=interrupt).start()
        try:
            dask.compute(*ends, scheduler=wren_get, executor=executor)
        except KeyboardInterrupt:
            print("interrupted")
        executor.shutdown()

        async def left():
            store = open_store(executor.connection, executor.connection.prefix)
            return [key async for key in store.list_async(f"jobs/{executor.job_id}/data/")]

        print(loops.run(left()))
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["interrupted", "[]"]


# What is annotated.


def test_retries_are_those_of_the_annotation(executor, tmp_path):
    path = str(tmp_path / "tries")

    def fails_twice():
        mark(path)
        if marks(path) < 3:
            raise ValueError("not yet")
        return "there"

    with dask.annotate(retries=2):
        task = dask.delayed(fails_twice)()
    assert compute(task, executor, optimize_graph=False) == "there"
    os.unlink(path)
    with dask.annotate(retries=1), pytest.raises(ValueError, match="not yet"):
        compute(dask.delayed(fails_twice)(), executor)


def test_priority_decides_who_goes_first(cloud, tmp_path):
    path = str(tmp_path / "order")
    tasks = []
    for number in range(6):
        with dask.annotate(priority=number):
            tasks.append(dask.delayed(mark)(path, str(number), dask_key_name=f"marks-{number}"))
    with WrenExecutor(1, calls_per_invocation=1) as executor:
        dask.compute(*tasks, scheduler=wren_get, executor=executor, optimize_graph=False)
    assert (tmp_path / "order").read_text() == "543210"


def test_memory_is_that_of_the_larger_function(cloud):
    def memory():
        return int(os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"])

    with WrenExecutor(1, memory_mb=512, retry_memory_mb=1769) as executor:
        with dask.annotate(memory=600):
            assert compute(dask.delayed(memory)(), executor) == 1769
        with dask.annotate(resources={"MEMORY": 1000 * 1024 * 1024}):
            assert compute(dask.delayed(memory)(), executor) == 1769
        with dask.annotate(memory=400):
            assert compute(dask.delayed(memory)(), executor) == 512


@pytest.mark.parametrize(
    ("annotation", "told"),
    [
        ({"memory": 100_000}, "retry_memory_mb=100000"),
        ({"memory": "much"}, "number of MB"),
        ({"priority": "high"}, "number"),
        ({"retries": 1.5}, "whole number"),
    ],
)
def test_annotations_that_cannot_be_met_are_refused(executor, annotation, told):
    from wren_backends import ConfigError

    def run():
        with dask.annotate(**annotation):
            return compute(dask.delayed(inc)(1), executor)

    try:
        with pytest.raises(ConfigError, match=told):
            run()
    except TypeError:
        assert annotation == {"retries": 1.5} or annotation == {"priority": "high"}  # dask itself refuses these


def test_annotations_may_be_functions_of_the_key(executor, tmp_path):
    def flaky(path):
        mark(path)
        if marks(path) < 3:
            raise ValueError("not yet")
        return marks(path)

    graph = {"tried": (flaky, str(tmp_path / "tried")), "other": (inc, 1)}
    ways = {"retries": lambda key: 2 * (key == "tried"), "priority": len, "resources": lambda key: {"MEMORY": 1}}
    with dask.annotate(**ways):
        assert wren_get(graph, ["tried", "other"], executor=executor) == (3, 2)
    failing = {"failing": (flaky, str(tmp_path / "failing"))}
    with dask.annotate(retries=lambda key: 1), pytest.raises(ValueError, match="not yet"):
        wren_get(failing, "failing", executor=executor)
    assert marks(tmp_path / "failing") == 2


def test_resources_other_than_memory_are_warned_of(executor):
    with dask.annotate(resources={"GPU": 1}), pytest.warns(UserWarning, match="GPU"):
        assert compute(dask.delayed(inc)(1), executor) == 2
