"""`dask.array.store` into objects of this process: what is stored arrives, and what makes it runs elsewhere."""

import asyncio
import gc
import os
import threading

import dask
import dask.array as da
import numpy as np
import pytest

from wren_backends import WrenExecutor, wren_get
from wren_backends.connection import open_store
from wren_backends.parcels import Parcel


@pytest.fixture
def executor(cloud):
    with WrenExecutor(2) as executor:
        yield executor


def made_elsewhere(block, client):
    assert os.getpid() != client
    return block + np.arange(block.size).reshape(block.shape)


EXPECTED = np.concatenate([np.arange(50) + 1.0] * 2)


def values():
    return da.ones(100, chunks=50).map_blocks(made_elsewhere, os.getpid(), dtype=float)


@pytest.mark.parametrize("size", [100, 300_000], ids=["in the task", "beside it"])
def test_an_array_gets_what_is_stored_into_it(executor, size):
    target = np.zeros(size)
    assert values().store(target, regions=(slice(10, 110),) if size > 100 else None, **on(executor)) is None
    assert np.array_equal(target[10:110] if size > 100 else target, EXPECTED)
    assert target.sum() == EXPECTED.sum()


def on(executor):
    return {"scheduler": wren_get, "executor": executor}


def test_what_was_stored_is_loaded_again(executor):
    target = np.zeros(100)
    stored = values().store(target, return_stored=True, **on(executor))
    assert np.array_equal(target, EXPECTED)
    target += 1
    assert stored.sum().compute(**on(executor)) == EXPECTED.sum() + 100


def test_a_store_that_is_computed_later_with_more_after_it(executor):
    target = np.zeros(100)
    stored = values().store(target, compute=False, return_stored=True)
    assert not target.any()
    assert (stored * 2).sum().compute(**on(executor)) == 2 * EXPECTED.sum()
    assert np.array_equal(target, EXPECTED)


def test_two_arrays_at_once_and_what_other_tasks_need_too(executor):
    source, first, second = values(), np.zeros(100), np.zeros(100)
    da.store([source, source + 1], [first, second], **on(executor))
    assert np.array_equal(first, EXPECTED)
    assert np.array_equal(second, EXPECTED + 1)


def test_what_was_persisted_is_stored(executor):
    target = np.zeros(100)
    values().persist(**on(executor)).store(target, **on(executor))
    assert np.array_equal(target, EXPECTED)


def test_a_file_of_this_machine(executor, tmp_path):
    target = np.memmap(tmp_path / "values", dtype=float, mode="w+", shape=100)
    values().store(target, **on(executor))
    assert np.array_equal(np.fromfile(tmp_path / "values"), EXPECTED)


class Guarded:
    """A target that cannot be pickled."""

    shape, dtype = (100,), np.dtype(float)

    def __init__(self):
        self.lock = threading.Lock()
        self.content = np.zeros(100)

    def __setitem__(self, where, what):
        with self.lock:
            self.content[where] = what


def test_what_cannot_be_pickled_is_stored_into_here(executor):
    target, lock = Guarded(), threading.Lock()
    values().store(target, lock=lock, **on(executor))
    assert np.array_equal(target.content, EXPECTED)
    assert not lock.locked()


class Sink:
    """A target that pickles well, as a copy."""

    shape, dtype = (100,), np.dtype(float)

    def __init__(self, client=None):
        self.client = client
        self.content = {}

    def __setitem__(self, where, what):
        assert os.getpid() != self.client
        self.content[where[0].start] = what.sum()


def test_any_other_object_of_this_process(executor):
    target = Sink()
    values().store(target, **on(executor))
    assert target.content == {0: EXPECTED[:50].sum(), 50: EXPECTED[50:].sum()}


class Remote(Sink):
    """A target that is a name of something that workers can reach, as a Zarr array in S3 is."""


Remote.__module__ = "zarr.stand_in"


@pytest.mark.parametrize("target", [Remote(os.getpid()), dask.delayed(Sink)(os.getpid())], ids=["a name", "a task's"])
def test_what_is_elsewhere_is_stored_into_there(executor, target):
    values().store(target, **on(executor))


def raised(block, number):
    return block + number


def test_what_makes_a_chunk_stays_one_call_and_what_follows_the_store_is_elsewhere_again(executor):
    base = da.ones(400, chunks=100)
    both = base.map_blocks(raised, 1) * base.map_blocks(raised, 2)
    target = np.zeros(400)
    stored = both.store(target, compute=False, return_stored=True)
    after = stored.map_blocks(made_elsewhere, os.getpid(), dtype=float).sum()
    assert after.compute(**on(executor)) == (6 + np.arange(100)).sum() * 4
    assert (target == 6).all()
    assert executor.journal.counts["call.finished"] <= 8 + 4  # four chunks, what follows each, and some of the sum


def test_a_large_target_stays_here(executor):
    target = np.zeros(1_000_000)
    stored = da.ones(1_000_000, chunks=500_000).store(target, return_stored=True, **on(executor))
    before = dict(executor.journal.counts)
    assert stored[:10].sum().compute(**on(executor)) == 10
    counts = executor.journal.counts
    assert sum(counts.get(way, 0) - before.get(way, 0) for way in ("bytes.sent", "bytes.uploaded")) < 5_000_000


class Told:
    """A target that tells of each chunk."""

    dtype = np.dtype(float)

    def __init__(self, size, tell):
        self.shape = (size,)
        self.tell = tell

    def __setitem__(self, where, what):
        self.tell(where[0].start)


def test_chunks_that_were_stored_are_let_go_of_at_once(executor):
    """What the client holds is bounded by what is on its way, whatever the array's size."""
    held = []

    def look(_):
        gc.collect()
        held.append(sum(one.inline_size for one in gc.get_objects() if isinstance(one, Parcel)))

    size = 20 * 300_000
    da.ones(size, chunks=300_000).store(Told(size, look), **on(executor))  # of 2.4 MB each
    assert len(held) == 20
    assert max(held) < 20e6


async def empty(executor):
    """Delete all that calls have left for others."""
    store = open_store(executor.connection, executor.connection.prefix)
    keys = [key async for key in store.list_async(f"jobs/{executor.job_id}/data/")]
    await store.delete_async(keys)
    return keys


def test_a_chunk_that_is_lost_is_made_again_and_no_other_is_stored_twice(executor):
    stored, lost = [], []

    def lose(start):
        if not stored:
            lost.extend(asyncio.run(empty(executor)))
        stored.append(start)

    size = 4 * 700_000
    chunks = da.ones(size, chunks=700_000).map_blocks(made_elsewhere, os.getpid(), dtype=float)
    chunks.store(Told(size, lose), **on(executor))
    assert sorted(stored) == list(range(0, size, 700_000))
    assert lost


def load_chunk(path="", lock=None):
    return os.getpid(), path


def test_a_function_that_is_named_as_dasks_is(executor):
    pid, path = dask.delayed(load_chunk)(path="x", lock=threading.active_count()).compute(**on(executor))
    assert (pid != os.getpid(), path) == (True, "x")


def test_a_store_that_fails_names_its_key(executor):
    target = np.zeros(100)
    target.flags.writeable = False
    with pytest.raises(ValueError, match="read-only") as caught:
        values().store(target, **on(executor))
    assert any("store-map" in note for note in caught.value.__notes__)
