"""Records of failures: what is read of those that lie in the bucket."""

import asyncio
import json
from datetime import UTC, datetime

from lambda_worker.objects import ObjectInfo
from wren_backends.failures import FailureRecords

RECORD = {
    "requestContext": {"requestId": "00000000-0000-4000-8000-000000000000", "condition": "RetriesExhausted"},
    "requestPayload": {"job": "j-1", "calls": [[7, 0, [], 0]], "attempt": 1},
    "responsePayload": None,
}


class Root:
    """A bucket's root that holds two records, one of which is said to be of some size."""

    def __init__(self, size):
        self.size = size
        self.read = []

    async def list_info_async(self, folder, start_after):
        now = datetime.now(UTC)
        stem = f"{folder}{now:%Y/%m/%d}/{now:%Y-%m-%dT%H.%M.%S}"
        for name, size in (("small", 300), ("other", self.size)):
            yield ObjectInfo(f"{stem}-{name}", size, now)

    async def get_async(self, key):
        self.read.append(key.rpartition("-")[2])
        return json.dumps(RECORD).encode()


def poll(size):
    root = Root(size)
    found = asyncio.run(FailureRecords(root, "j-1", "function", datetime.now(UTC)).poll())
    return root.read, [one.seqs for one in found]


def test_a_record_as_large_as_an_event_and_a_response_is_read():
    assert poll(8 * 1024 * 1024) == (["small", "other"], [(7,), (7,)])


def test_what_is_larger_than_lambda_would_write_is_not_read():
    assert poll(1024**4) == (["small"], [(7,)])
