"""`dask.array.store` into objects of this process: what is stored arrives, and what makes it runs elsewhere."""

import os
import threading

import dask
import dask.array as da
import numpy as np
import pytest

from wren_backends import WrenExecutor, wren_get


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


class Elsewhere:
    """A target that is a name of something that tasks can reach, as a Zarr array in S3 is."""

    shape, dtype = (100,), np.dtype(float)

    def __init__(self):
        self.client = os.getpid()

    def __setitem__(self, where, what):
        assert os.getpid() != self.client


def test_what_is_a_name_of_something_elsewhere_is_stored_into_there(executor):
    values().store(Elsewhere(), **on(executor))


def test_an_array_that_a_task_makes_is_that_tasks(executor):
    values().store(dask.delayed(np.zeros)(100), **on(executor))


def test_a_store_that_fails_names_its_key(executor):
    target = np.zeros(100)
    target.flags.writeable = False
    with pytest.raises(ValueError, match="read-only") as caught:
        values().store(target, **on(executor))
    assert any("store-map" in note for note in caught.value.__notes__)
