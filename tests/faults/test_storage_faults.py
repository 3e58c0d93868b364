"""S3 fails, is slow, or breaks connections, on the client's side and on the worker's: nothing of it is seen."""

import pytest

from .answers import INTERNAL_ERROR, SLOW_DOWN
from .calls import large, length, square
from .proxy import answered, lost, on, reset, slow, truncated

SOON_S = 30.0
ARGUMENT_BYTES = 1_000_000
RESULT_BYTES = 5_000_000  # more than fits a frame
PARTS_BYTES = 40_000_000  # more than travels in one request

FAULTS = {
    "503": answered(SLOW_DOWN),
    "500": answered(INTERNAL_ERROR),
    "reset": reset,
    "lost": lost,
    "truncated": truncated,
    "slow": slow(pieces=10, pause_s=0.02),
}
REPEATED = [name for name in FAULTS if name != "slow"]
"""After these the same request comes again, which a second fault meets."""

any_fault = pytest.mark.parametrize("fault", FAULTS)
any_repeated = pytest.mark.parametrize("fault", REPEATED)


def unlike_any_other(request, size):
    """An argument that no environment has seen yet."""
    return request.node.name.encode().ljust(size)


# ---- the client's way to S3


@any_repeated
def test_upload_of_an_argument(path, make, mode, fault, request):
    rule = path.to_s3.add(FAULTS[fault], on("PUT", "/blobs/"), times=2)
    data = unlike_any_other(request, ARGUMENT_BYTES)
    assert make(mode).submit(length, data).result(timeout=SOON_S) == ARGUMENT_BYTES
    assert rule.hits == 2


@any_fault
def test_looking_for_an_argument_that_is_there_already(path, make, fault):
    data = bytes(3 * ARGUMENT_BYTES)
    assert make().submit(length, data).result(timeout=SOON_S) == len(data)
    rule = path.to_s3.add(FAULTS[fault], on("HEAD", "/blobs/"))
    executor = make()
    assert executor.submit(length, data).result(timeout=SOON_S) == len(data)
    assert rule.hits == 1
    assert executor.journal.counts["blob.found"] == 1


@pytest.mark.parametrize("fault", ["503", "reset", "lost"])
@pytest.mark.parametrize("step", ["?uploads", "partNumber=2", "?uploadId"])
def test_upload_of_an_argument_in_parts(path, make, fault, step, request):
    rule = path.to_s3.add(FAULTS[fault], on("PUT" if step == "partNumber=2" else "POST", step))
    data = unlike_any_other(request, PARTS_BYTES)
    assert make().submit(length, data).result(timeout=SOON_S) == PARTS_BYTES
    assert rule.hits == 1


@any_fault
def test_download_of_a_large_result(path, make, fault):
    rule = path.to_s3.add(FAULTS[fault], on("GET", "/data/"))
    assert len(make().submit(large, RESULT_BYTES).result(timeout=SOON_S)) == RESULT_BYTES
    assert rule.hits == 1


@any_repeated
def test_looking_for_outcomes(path, make, fault):
    rule = path.to_s3.add(FAULTS[fault], on("GET", "list-type=2"), times=3)
    assert list(make("s3").map(square, range(4), timeout=SOON_S)) == [0, 1, 4, 9]
    assert rule.hits == 3


@any_fault
def test_download_of_an_outcome(path, make, fault):
    rule = path.to_s3.add(FAULTS[fault], on("GET", "/outcomes/"), times=2)
    assert list(make("s3").map(square, range(4), timeout=SOON_S)) == [0, 1, 4, 9]
    assert rule.hits == 2


# ---- the worker's way to S3


@any_fault
def test_fetching_an_argument(path, make, fault, request):
    rule = path.worker_to_s3.add(FAULTS[fault], on("GET", "/blobs/"))
    data = unlike_any_other(request, ARGUMENT_BYTES)
    assert make().submit(length, data).result(timeout=SOON_S) == ARGUMENT_BYTES
    assert rule.hits == 1


@any_fault
def test_putting_a_large_result(path, make, fault):
    rule = path.worker_to_s3.add(FAULTS[fault], on("PUT", "/data/"))
    assert len(make().submit(large, RESULT_BYTES).result(timeout=SOON_S)) == RESULT_BYTES
    assert rule.hits == 1
