"""The proxy itself: what no rule takes passes unharmed, signatures included."""

import os

from .calls import large, length, square


def test_calls_pass_unharmed(path, make, mode):
    executor = make(mode)
    assert list(executor.map(square, range(20))) == [n * n for n in range(20)]
    assert len(executor.submit(large, 6_000_000).result()) == 6_000_000
    assert executor.submit(length, os.urandom(6_000_000)).result() == 6_000_000
    assert path.to_lambda.count("POST", "/invocations") >= 3
    assert path.to_s3.count("PUT", "/blobs/") >= 1
    assert path.to_s3.count("GET", "/data/") == 1
    assert path.worker_to_s3.count("PUT", "/data/") == 1
    assert path.worker_to_s3.count("GET", "/blobs/") >= 1
