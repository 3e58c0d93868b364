"""Somebody else writes to the bucket: what is not what client and worker put there is refused, and never unpickled."""

import os
import sys

import numpy as np
import pytest
from signals import Gate

from lambda_worker.protocol import FRAME_BUDGET_BYTES
from wren_backends import StorageError, TamperedObjectError, WrenExecutor, schedule

SOON_S = 30.0

LARGE = 200_000
"""Bytes; above the limit from which on a part becomes a blob."""


TOO_LARGE = FRAME_BUDGET_BYTES + 1
"""Bytes; does not fit into a frame."""


def fine(x):
    return x + 1


def larger_by_one(array):
    return array + 1


def forget_everything(executor):
    """Have the next call run in an environment that has fetched nothing yet."""
    executor.submit(os._exit, 1).exception(timeout=SOON_S)


def assert_refused(error, call, *parts):
    assert type(error) is TamperedObjectError
    for part in (f"call {call}", "not unpickled", "Somebody else writes to the bucket", *parts):
        assert part in str(error)


DAMAGES = {
    "swapped for a trap": lambda data, trap: trap.pickle(len(data)),
    "swapped for a longer trap": lambda data, trap: trap.pickle(len(data) + 1),
    "truncated": lambda data, trap: data[:-1],
    "emptied": lambda data, trap: b"",
    "one bit": lambda data, trap: data[:-2] + bytes([data[-2] ^ 1]) + data[-1:],
}


@pytest.fixture(params=DAMAGES)
def damaged(request, trap):
    """What an object holds after somebody was at it."""
    return lambda data: DAMAGES[request.param](data, trap)


@pytest.fixture
def cautious(cloud):
    """An executor whose one environment can be ended at will."""
    with WrenExecutor(1, max_attempts=1) as executor:
        yield executor


def new_blob(intruder, executor, step, *, bundle=False):
    """The bucket, key of the one new blob in it after `step`, and what `step` returns.

    Args:
        intruder: The fixture.
        executor: Whose bucket.
        step: Uploads the blob.
        bundle: Whether the blob is a bundle of modules; if not, bundles do not count.
    """
    bucket = intruder(executor)
    before = bucket.blobs()
    returned = step()
    (key,) = [one for one in bucket.blobs() - before if bucket.read(one).startswith(b"PK\3\4") == bundle]
    return bucket, key, returned


# ---- what the client put there; the worker reads it


def test_the_blob_of_a_function(cautious, intruder, damaged):
    ballast = os.urandom(LARGE)

    def carries_ballast(x):
        return x + len(ballast)

    bucket, key, value = new_blob(intruder, cautious, lambda: cautious.submit(carries_ballast, 1).result())
    assert value == LARGE + 1
    bucket.write(key, damaged(bucket.read(key)))
    forget_everything(cautious)
    assert_refused(cautious.submit(carries_ballast, 1).exception(timeout=SOON_S), 2, key.rpartition("/")[2])
    # The client knows better what belongs there, and says so.
    assert cautious.submit(carries_ballast, 2).result(timeout=SOON_S) == LARGE + 2


def test_the_blob_of_an_argument(cautious, intruder, damaged):
    argument = "".join(map(str, os.urandom(LARGE)))  # in the pickle itself
    bucket, key, value = new_blob(intruder, cautious, lambda: cautious.submit(len, argument).result())
    bucket.write(key, damaged(bucket.read(key)))
    forget_everything(cautious)
    assert_refused(cautious.submit(len, argument).exception(timeout=SOON_S), 2, key.rpartition("/")[2])
    assert cautious.submit(len, argument).result(timeout=SOON_S) == value


def test_the_blob_of_an_array(cautious, intruder, damaged):
    array = np.frombuffer(os.urandom(LARGE), np.uint8)
    bucket, key, total = new_blob(intruder, cautious, lambda: cautious.submit(np.sum, array).result())
    bucket.write(key, damaged(bucket.read(key)))
    forget_everything(cautious)
    assert_refused(cautious.submit(np.sum, array).exception(timeout=SOON_S), 2, key.rpartition("/")[2])
    assert cautious.submit(np.sum, array).result(timeout=SOON_S) == total


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A module of the user's that only this test knows, so that the bundle with it is this test's too."""
    (tmp_path / "module_of_the_users.py").write_text(f"SALT = {os.urandom(8)!r}\ndef answer():\n    return 42\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import module_of_the_users

    yield module_of_the_users
    del sys.modules["module_of_the_users"]


@pytest.mark.parametrize("mode", ["direct", "s3"])
def test_the_bundle_of_the_users_modules(cloud, intruder, damaged, own_module, mode):
    with WrenExecutor(1, max_attempts=1, mode=mode) as executor:
        bucket, key, value = new_blob(
            intruder, executor, lambda: executor.submit(own_module.answer).result(), bundle=True
        )
        assert value == 42
        bucket.write(key, damaged(bucket.read(key)))
        forget_everything(executor)
        assert_refused(executor.submit(own_module.answer).exception(timeout=SOON_S), 2, key.rpartition("/")[2])
        assert executor.submit(own_module.answer).result(timeout=SOON_S) == 42


def test_a_bundle_and_a_function_that_were_deleted_are_sent_again(cautious, intruder, own_module):
    ballast = os.urandom(LARGE)

    def asks():
        return own_module.answer() + len(ballast)

    bucket = intruder(cautious)
    before = bucket.blobs()
    assert cautious.submit(asks).result(timeout=SOON_S) == LARGE + 42
    for key in bucket.blobs() - before:
        bucket.delete(key)
    forget_everything(cautious)
    assert cautious.submit(asks).result(timeout=SOON_S) == LARGE + 42


@pytest.mark.parametrize("mode", ["direct", "s3"])
def test_the_blob_of_an_initializers_arguments(cloud, intruder, damaged, mode):
    ballast = os.urandom(LARGE)
    with WrenExecutor(1, max_attempts=1, mode=mode, initializer=len, initargs=(ballast,)) as executor:
        bucket = intruder(executor)
        before = bucket.blobs()
        assert executor.submit(abs, -1).result(timeout=SOON_S) == 1
        (key,) = [one for one in bucket.blobs() - before if len(bucket.read(one)) >= LARGE]
        bucket.write(key, damaged(bucket.read(key)))
        forget_everything(executor)
        assert_refused(executor.submit(abs, -1).exception(timeout=SOON_S), 2, key.rpartition("/")[2])
        assert executor.submit(abs, -1).result(timeout=SOON_S) == 1


def test_a_wrong_object_that_lies_there_before_the_first_upload(cautious, intruder, trap):
    """A large blob that seems to be there is not sent; if it is not what it seems, it is not used either."""
    array = np.frombuffer(os.urandom(2_000_000), np.uint8)
    with WrenExecutor(1) as first:
        bucket, key, total = new_blob(intruder, first, lambda: first.submit(np.sum, array).result())
    bucket.write(key, trap.pickle(array.nbytes))
    forget_everything(cautious)
    assert_refused(cautious.submit(np.sum, array).exception(timeout=SOON_S), 1)
    assert cautious.submit(np.sum, array).result(timeout=SOON_S) == total


# ---- what the worker put there; the client reads it


@pytest.fixture(params=["direct", "s3"])
def meddling(request, cloud, intruder, tmp_path, monkeypatch):
    """Meddle with the parts of a result while the invocation that made it still runs; gives how the call ended.

    Two calls travel together, and the second is held: what the first left in the bucket is there already, and the frame
    that names it is not.
    """
    monkeypatch.setattr(schedule, "calls_to_carry", lambda waiting, *rest: waiting)  # however quick this machine is
    first, second = (Gate(tmp_path / name) for name in ("first", "second"))

    def make_or_hold(size):
        return np.full(size, 7, np.uint8) if size else second.hold()

    def meddle(change):
        with WrenExecutor(1, mode=request.param) as executor:
            bucket = intruder(executor)
            executor.submit(first.hold)
            first.wait_entered()
            made, held = executor.submit(make_or_hold, TOO_LARGE), executor.submit(make_or_hold, 0)
            first.open()
            second.wait_entered()
            (key,) = bucket.data(executor.job_id)
            assert bucket.read(key) == b"\7" * TOO_LARGE
            change(bucket, key)
            second.open()
            error = made.exception(timeout=SOON_S)
            assert held.result(timeout=SOON_S) is None
            assert executor.submit(fine, 1).result(timeout=SOON_S) == 2
            return error, key

    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    yield meddle
    first.open()
    second.open()


def test_a_part_of_a_result(meddling, damaged):
    error, key = meddling(lambda bucket, key: bucket.write(key, damaged(bucket.read(key))))
    assert_refused(error, 1, key.rpartition("/")[2])


def test_a_part_of_a_result_that_was_deleted(meddling):
    error, key = meddling(lambda bucket, key: bucket.delete(key))
    assert type(error) is StorageError
    for part in ("call 1 ", "its result cannot be fetched", "not found", key.rpartition("/")[2]):
        assert part in str(error)
