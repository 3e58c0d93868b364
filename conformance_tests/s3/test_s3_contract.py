"""What this project relies on in an S3 server: nothing else of S3 may be needed, and each server has to have this.

`make test` runs it on the local cloud's SeaweedFS, `make conformance-s3` on Ceph's gateway and MiniStack.
"""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from lambda_worker.codec import TamperedError, digest
from lambda_worker.objects import MissingObjectError, ObjectStore, ObjectStoreError
from lambda_worker.protocol import BlobRef
from wren_backends.local.options import BUCKET

ROUNDS, RACERS = 8, 3
OUTCOMES = 1010


def opened(cloud, secret=None):
    return ObjectStore.open_s3(
        BUCKET,
        f"contract-{os.urandom(4).hex()}",
        region=cloud.region,
        endpoint_url=cloud.s3_endpoint_url,
        credentials={"access_key_id": cloud.access_key_id, "secret_access_key": secret or cloud.secret_access_key},
        retry_s=5.0,
    )


@pytest.fixture
def store(cloud):
    return opened(cloud)


async def listed(store, prefix, start_after=None):
    return [key async for key in store.list_async(prefix, start_after)]


def test_of_racing_conditional_puts_one_wins_and_stands(store):
    with ThreadPoolExecutor(RACERS) as racers:
        for number in range(ROUNDS):
            key = f"race/{number:012}"
            made = list(racers.map(lambda racer, key=key: store.create(key, b"%d" % racer), range(RACERS)))
            assert made.count(True) == 1
            assert bytes(store.get(key)) == b"%d" % made.index(True)


def test_a_listing_is_in_order_starts_after_a_key_and_has_all_pages(store):
    keys = [f"jobs/j-1/outcomes/{number:012}" for number in range(OUTCOMES)]
    with ThreadPoolExecutor(16) as writers:
        assert all(writers.map(lambda key: store.create(key, b"x"), reversed(keys)))
    assert asyncio.run(listed(store, "jobs/j-1/outcomes/")) == keys
    assert asyncio.run(listed(store, "jobs/j-1/outcomes/", keys[600])) == keys[601:]
    assert asyncio.run(listed(store, "jobs/j-1/outcomes/", keys[-1])) == []
    asyncio.run(store.delete_async([*keys, "jobs/j-1/outcomes/never-there"]))
    assert asyncio.run(listed(store, "jobs/")) == []


def test_an_object_is_seen_by_a_listing_as_soon_as_it_is_written(store):
    for number in range(30):
        key = f"jobs/j-2/outcomes/{number:012}"
        store.create(key, b"x")
        assert asyncio.run(listed(store, "jobs/j-2/outcomes/", key[:-1]))[-1] == key


@pytest.mark.parametrize("size", [0, 1, 100_000, 12 * 1024 * 1024 + 3], ids=["empty", "byte", "small", "in parts"])
def test_a_blob_comes_back_as_it_was(store, size):
    data = os.urandom(size)
    ref = BlobRef(digest(data), size)
    store.put_blob(ref, data)
    store.put_blob(ref, data)
    assert bytes(store.get_blob(ref)) == data


def test_what_is_not_there_is_missing(store):
    with pytest.raises(MissingObjectError):
        store.get("jobs/j-3/job.json")


def test_a_wrong_signature_is_refused(cloud, store):
    store.create("secret", b"x")
    with pytest.raises(ObjectStoreError):
        opened(cloud, secret="wrong").create("secret", b"y")


def test_a_blob_that_is_not_what_its_name_says_is_not_used(store):
    ref = BlobRef(digest(b"right"), 5)
    store.create(ref.key, b"wrong")
    with pytest.raises(TamperedError):
        store.get_blob(ref)
