"""What somebody has who may write to the bucket, and no more: reading, changing, copying and deleting objects."""

import functools
import pickle
import time
from pathlib import Path

import boto3
import pytest
from signals import mark, marks


class Intruder:
    """The bucket in the hands of somebody else.

    Args:
        cloud: The local cloud.
        connection: Of the executor whose objects are meant.
    """

    def __init__(self, cloud, connection):
        self.bucket = connection.bucket
        self.prefix = f"{connection.prefix}/"
        self._cloud = cloud
        self._s3 = self.client_of("s3")

    def client_of(self, service):
        """A client of boto3's for this cloud."""
        return client_of(self._cloud, service)

    def keys(self, below="", since=None):
        """Keys of the whole bucket that start so, of objects written at that time or later."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=below)
        found = [one for page in pages for one in page.get("Contents", [])]
        return [one["Key"] for one in found if since is None or one["LastModified"] >= since]

    def read(self, key):
        return self._s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def write(self, key, data):
        self._s3.put_object(Bucket=self.bucket, Key=key, Body=data)

    def delete(self, key):
        self._s3.delete_object(Bucket=self.bucket, Key=key)

    def outcome(self, job_id, seq):
        """Key of the frame whose first call has this number."""
        return f"{self.prefix}jobs/{job_id}/outcomes/{seq:012d}"

    def blobs(self):
        """Keys of what all jobs share."""
        return set(self.keys(f"{self.prefix}blobs/"))

    def data(self, job_id):
        """Keys of the parts of a job's results."""
        return self.keys(f"{self.prefix}jobs/{job_id}/data/")


def client_of(cloud, service):
    return boto3.client(
        service,
        endpoint_url=cloud.endpoint_url,
        aws_access_key_id=cloud.access_key_id,
        aws_secret_access_key=cloud.secret_access_key,
        region_name=cloud.region,
    )


class Trap:
    """Leaves a mark wherever it is unpickled: on this machine, the worker's files are the test's."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return functools.partial(mark, self._path), ()


@pytest.fixture
def trap(tmp_path):
    """A pickle that tells if it is ever opened, of a chosen length."""
    path = str(tmp_path / "sprung")

    class Made:
        @staticmethod
        def pickle(length=0):
            return pickle.dumps(Trap(path)).ljust(length, b"\0")  # what follows a pickle's end is not read

        @staticmethod
        def sprung():
            return marks(path) > 0

    # It works: otherwise the tests would show nothing.
    pickle.loads(Made.pickle(1000))
    assert Made.sprung()
    Path(path).unlink()
    yield Made
    assert not Made.sprung()


@pytest.fixture
def intruder(cloud):
    """Makes an `Intruder` of an executor."""
    return lambda executor: Intruder(cloud, executor.connection)


@pytest.fixture(autouse=True)
def soon():
    """Whatever somebody does to the bucket, it is noticed soon: nobody waits for what will not come."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < 100
