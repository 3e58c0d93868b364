"""What a process that attaches to the job of a dask graph gets of it."""

import pickle

import dask
import numpy as np
import pytest

from wren_backends import StorageError, WrenExecutor, loops, wren_get
from wren_backends.connection import open_store

LARGE = 300_000


@pytest.fixture
def job(cloud):
    """A graph that has ended, whose intermediate values were kept: the executor of its job, which is closed."""
    made = dask.delayed(np.arange)(LARGE, dask_key_name="made")
    low = dask.delayed(np.min)(made, dask_key_name="low")
    high = dask.delayed(np.max)(made, dask_key_name="high")
    with WrenExecutor(2, mode="s3") as executor:
        last = dask.delayed(lambda a, b: (int(a), int(b)))(low, high, dask_key_name="last")
        options = {"scheduler": wren_get, "executor": executor, "keep_intermediates": True}
        assert last.compute(**options) == (0, LARGE - 1)
        with pytest.raises(ZeroDivisionError):
            dask.delayed(divmod)(1, 0).compute(**options)
    return executor


def delete_data(executor):
    async def delete():
        store = open_store(executor.connection, executor.connection.prefix)
        keys = [key async for key in store.list_async(f"jobs/{executor.job_id}/data/")]
        await store.delete_async(keys)
        return keys

    return loops.run(delete())


def made_by(results):
    """Steps' values by dask key."""
    return {key: step for step in results.values() if not isinstance(step, Exception) for key in step}


def test_values_are_had_by_dask_key_and_errors_as_they_were(job):
    with WrenExecutor.attach(job.job_id, connection=job.connection) as attached:
        results = attached.results(timeout=30)
    found = made_by(results)
    assert found["last"]["last"] == (0, LARGE - 1)
    assert found["last"].at_hand >= {"last"}
    np.testing.assert_array_equal(found["made"]["made"], np.arange(LARGE))
    assert "made" not in found["made"].at_hand
    assert "made" in repr(found["made"])
    assert [type(one) for one in results.values() if isinstance(one, Exception)] == [ZeroDivisionError]


def test_intermediate_values_are_not_fetched_before_somebody_asks_for_them(job):
    assert len(delete_data(job)) == 1
    with WrenExecutor.attach(job.job_id, connection=job.connection) as attached:
        found = made_by(attached.results(timeout=30))
    assert found["last"]["last"] == (0, LARGE - 1)
    with pytest.raises(StorageError, match=r"'made' is gone.*keep_intermediates"):
        found["made"]["made"]
    with pytest.raises(KeyError):
        found["made"]["nobody made this"]
    assert "made" in found["made"]
    assert found["made"] != dict.fromkeys(found["made"])


def test_a_pickle_of_results_has_all_that_could_be_had(job):
    with WrenExecutor.attach(job.job_id, connection=job.connection) as attached:
        results = attached.results(timeout=30)
    before = made_by(pickle.loads(pickle.dumps(results)))
    delete_data(job)
    after = made_by(pickle.loads(pickle.dumps(results)))
    np.testing.assert_array_equal(before["made"]["made"], np.arange(LARGE))
    assert job.connection.bucket.encode() not in pickle.dumps(before)
    with pytest.raises(StorageError, match="'made' is gone"):
        after["made"]["made"]
    assert after["last"]["last"] == (0, LARGE - 1)
