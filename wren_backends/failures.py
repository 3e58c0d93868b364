"""Lambda's on-failure records of one job's asynchronous invocations, which lie at the root of the bucket."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from lambda_worker.objects import MissingObjectError, ObjectInfo, ObjectStore
from wren_backends.deploy.bucket import records_folder
from wren_backends.gather import gather_some

CLOCK_SKEW = timedelta(minutes=6)
"""How far our clock may be from Lambda's, which dates the records: AWS refuses signatures that are off by 5 minutes
(IAM user guide, "Create a signed AWS API request"); a minute more is for a record on its way."""

_LARGEST_BYTES = 16 * 1024 * 1024
"""A record holds an event and a response (AWS Lambda quotas: 1 MB and 6 MB), as JSON in JSON; whoever may write to the
bucket may put anything there."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An asynchronous invocation that Lambda gave up.

    Attributes:
        job_id: The job's id.
        seqs: `seq` of its calls, in their order.
        attempt: Which attempt at them it was.
        body: What a synchronous invocation would have answered, as JSON bytes.
        request_id: AWS request id.
        condition: AWS's word for why: `RetriesExhausted` or `EventAgeExceeded`.
        at: When the record was written, by the clock of S3.
    """

    job_id: str
    seqs: tuple[int, ...]
    attempt: int
    body: bytes
    request_id: str
    condition: str
    at: datetime


class FailureRecords:
    """Finds the records of one job, each once. It has to be used on one event loop.

    Anyone who may write to the bucket can forge them: they end calls, but nothing of them is unpickled.

    Args:
        root: The bucket's root.
        job_id: The job.
        function: Name of the function, which is part of the records' keys.
        since: The oldest that matter.
    """

    def __init__(self, root: ObjectStore, job_id: str, function: str, since: datetime) -> None:
        self._root = root
        self._job_id = job_id
        # https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html gives the keys' form
        self._folder = records_folder(function)
        self._start_after = self._key(since - CLOCK_SKEW)
        self._seen: set[str] = set()

    async def poll(self) -> list[Failure]:
        """Records that have appeared since the last time; raises ObjectStoreError."""
        since = datetime.now(UTC) - CLOCK_SKEW
        found = [one async for one in self._root.list_info_async(self._folder, self._start_after)]
        failures = await gather_some(self._read, [one for one in found if one.key not in self._seen])
        self._start_after = max(self._start_after, self._key(since))
        self._seen = {one.key for one in found if one.key > self._start_after}
        return [one for one in failures if one is not None]

    def _key(self, at: datetime) -> str:
        return self._folder + at.strftime("%Y/%m/%d/%Y-%m-%dT%H.%M.%S")

    async def _read(self, info: ObjectInfo) -> Failure | None:
        if info.size > _LARGEST_BYTES:
            return None
        try:
            record = json.loads(bytes(await self._root.get_async(info.key)))
            request, context = record["requestPayload"], record["requestContext"]
            if request["job"] != self._job_id:
                return None
            return Failure(
                job_id=self._job_id,
                seqs=tuple(int(call[0]) for call in request["calls"]),
                attempt=int(request["attempt"]),
                body=json.dumps(record.get("responsePayload")).encode(),
                request_id=str(context["requestId"]),
                condition=str(context["condition"]),
                at=info.modified,
            )
        except (MissingObjectError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
            return None  # not one of ours
