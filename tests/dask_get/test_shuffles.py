"""Shuffles that dask lays out through a local disk, which execution environments do not share, lose nothing."""

import math
import os

import dask
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask._task_spec import convert_legacy_graph
from dask.core import flatten
from distributed import Client

from wren_backends import ConfigError, wren_get
from wren_backends.graph.shuffles import without_disk

FRAME = pd.DataFrame(
    {
        "number": np.random.default_rng(0).integers(0, 50, 600),
        "word": pd.Categorical(list("abc") * 200),
        "row": range(600),
    }
)


def places(store):
    """Where partd has put anything below a folder."""
    return [name for _, folders, files in os.walk(store) for name in (*folders, *files)]


@pytest.fixture
def no_disk(tmp_path):
    """A folder that stays empty, since nothing goes through dask's."""
    with dask.config.set(temporary_directory=str(tmp_path)):
        yield
    assert not places(tmp_path)


def test_a_frame_is_shuffled_by_a_column(cloud, no_disk):
    found = dd.from_pandas(FRAME, npartitions=4).shuffle("number", npartitions=3)
    parts = dask.compute(*found.to_delayed(), scheduler=wren_get)
    pd.testing.assert_frame_equal(found.compute(scheduler=wren_get).sort_values("row"), FRAME)
    homes = [set(part["number"]) for part in parts]
    assert len(homes) == 3
    assert sum(map(len, homes)) == len(set(FRAME["number"]))  # each number is in one part


def test_a_frame_is_merged_and_indexed(cloud, no_disk):
    left = dd.from_pandas(FRAME, npartitions=3)
    names = pd.DataFrame({"number": range(50), "twice": range(0, 100, 2)})
    right = dd.from_pandas(names, npartitions=2)
    merged = left.merge(right, on="number").compute(scheduler=wren_get)
    indexed = left.set_index("number", npartitions=4).compute(scheduler=wren_get)
    expected = FRAME.merge(names, on="number")
    pd.testing.assert_frame_equal(*(one.sort_values("row", ignore_index=True) for one in (merged, expected)))
    assert list(indexed.index) == sorted(FRAME["number"])


def test_a_bag_is_grouped(cloud, no_disk):
    bag = db.from_sequence(range(200), npartitions=4).map(abs).groupby(lambda n: n % 7, npartitions=3)
    sums = bag.starmap(lambda rest, numbers: (rest, sum(numbers))).compute(scheduler=wren_get)
    twice = bag.groupby(lambda pair: pair[0] % 2).compute(scheduler=wren_get)
    assert dict(sums) == {rest: sum(range(rest, 200, 7)) for rest in range(7)}
    assert {key: {rest for rest, _ in pairs} for key, pairs in twice} == {0: {0, 2, 4, 6}, 1: {1, 3, 5}}


def test_a_store_that_is_used_otherwise_is_refused():
    store = ("partd-1",)
    graph = {store: (dict,), "a": (len, store), "b": (list, store)}
    with pytest.raises(ConfigError, match=r"'partd-1'.*local disk.*tasks"):
        wren_get(graph, ["a", "b"])


def test_a_shuffle_between_the_workers_of_a_cluster_is_refused(cloud):
    frame = dd.from_pandas(FRAME, npartitions=2)
    with (
        Client(n_workers=1, processes=False, dashboard_address=":0"),
        pytest.raises(ConfigError, match=r"p2p.*tasks"),
    ):
        frame.shuffle("number").compute(scheduler=wren_get)


# ---- how many tasks it takes, without a cloud


def replaced(collection):
    """The graph that comes of it, and what it computes."""
    found = []

    def get(dsk, keys, **_):
        graph = dsk if isinstance(dsk, dict) else dsk.__dask_graph__()
        found.append(without_disk(dict(convert_legacy_graph(dict(graph)))))
        assert not any(len(key) == 1 and "partd-" in key[0] for key in found[0] if isinstance(key, tuple))
        assert set(flatten([keys])) <= set(found[0])
        return dask.get(found[0], keys)

    return collection.compute(scheduler=get), found[0]


@pytest.mark.parametrize(("inputs", "parts"), [(1, 1), (1, 9), (9, 1), (4, 5), (60, 50), (200, 30)])
def test_what_comes_out_is_the_same_however_many_there_are(inputs, parts):
    bag = db.from_sequence(range(1000), npartitions=inputs).groupby(lambda n: n % 11, npartitions=parts)
    found, _ = replaced(bag.map(lambda pair: (pair[0], sorted(pair[1]))))
    assert dict(found) == {rest: list(range(rest, 1000, 11)) for rest in range(11)}


def test_many_pieces_go_in_two_rounds():
    bag = db.from_sequence(range(1000), npartitions=100).groupby(lambda n: n, npartitions=100)
    found, graph = replaced(bag)
    assert sorted(found) == [(n, [n]) for n in range(1000)]
    assert len(graph) < 3 * 100 * math.sqrt(100) + 500  # 100 * 100 in one round


def test_rows_stay_in_the_order_of_the_inputs():
    frame = dd.from_pandas(FRAME, npartitions=12).shuffle("number", npartitions=3)
    found, _ = replaced(frame.map_partitions(lambda part: part["row"].to_frame()))
    starts = [row for row, before in zip(found["row"], [600, *found["row"]], strict=False) if row < before]
    assert len(starts) == 3
    grouped, _ = replaced(db.from_sequence(range(100), npartitions=25).groupby(lambda n: n % 3))
    assert dict(grouped) == {rest: list(range(rest, 100, 3)) for rest in range(3)}


def partd(n):
    return n + 1


def test_a_function_that_is_named_as_dasks_stores_are():
    assert replaced(db.from_sequence(range(3), npartitions=3).map(partd))[0] == [1, 2, 3]


def test_parts_that_nobody_asks_for_are_not_kept():
    frame = dd.from_pandas(FRAME, npartitions=3).shuffle("number", npartitions=8)
    found, graph = replaced(frame.partitions[2])
    assert set() < set(found["number"]) < set(FRAME["number"])
    pieces = [key for key in graph if isinstance(key, tuple) and key[0].startswith("split-shuffle-partition-")]
    assert len(pieces) == 3
