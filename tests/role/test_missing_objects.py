"""The object store on an S3 that, like AWS's, says of missing objects that they are forbidden."""

import asyncio

import pytest
from servers import SCOPE

from lambda_worker import codec
from lambda_worker.objects import MissingObjectError, ObjectStore, ObjectStoreError
from lambda_worker.protocol import BlobRef

NAMES = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "token",
}
MISSING = ("blobs/w", "blobs/y", "blobs/x0", "jobs/j/outcomes/0", "jobs/none/outcomes/000000000012")


def store(bucket, who, prefix):
    credentials = {NAMES[name]: value for name, value in getattr(bucket, who).items()}
    return ObjectStore.open_s3(
        SCOPE.bucket, prefix, region=SCOPE.region, endpoint_url=bucket.url, credentials=credentials
    )


@pytest.mark.parametrize("who", ["worker", "client"])
def test_missing_and_forbidden_objects_are_told_apart(bucket, who):
    ours = store(bucket, who, SCOPE.prefix)
    assert bytes(ours.get("blobs/x")) == b"theirs"
    for key in MISSING:
        with pytest.raises(MissingObjectError, match="not found"):
            ours.get(key)
    with pytest.raises(ObjectStoreError) as caught:
        store(bucket, who, "private").get("x")
    assert not isinstance(caught.value, MissingObjectError)


@pytest.mark.parametrize("who", ["worker", "client"])
def test_they_are_in_the_asynchronous_half_too(bucket, who):
    async def get(prefix, key):
        return bytes(await store(bucket, who, prefix).get_async(key))

    assert asyncio.run(get(SCOPE.prefix, "blobs/x")) == b"theirs"
    for key in MISSING:
        with pytest.raises(MissingObjectError, match="not found"):
            asyncio.run(get(SCOPE.prefix, key))
    with pytest.raises(ObjectStoreError) as caught:
        asyncio.run(get("private", "x"))
    assert not isinstance(caught.value, MissingObjectError)


def test_a_large_blob_is_sent_once(bucket):
    data = b"large" * 300_000
    ref = BlobRef(codec.digest(data), len(data))

    async def put():
        return await store(bucket, "client", SCOPE.prefix).put_blob_async(ref, data)

    assert [asyncio.run(put()) for _ in range(2)] == [True, False]
