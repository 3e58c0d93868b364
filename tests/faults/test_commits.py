"""Committing an outcome: a conditional PUT that broke may have gone through, and is made again in any case."""

import pytest
from signals import marks

from wren_backends import StorageError

from .answers import ACCESS_DENIED, CONFLICT, EXPIRED_TOKEN, SLOW_DOWN
from .calls import counted, square
from .proxy import answered, lost, on, reset, truncated

SOON_S = 30.0
FAULTS = {"503": answered(SLOW_DOWN), "409": answered(CONFLICT), "reset": reset, "lost": lost, "truncated": truncated}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_outcome_is_committed_once_whatever_happens_on_the_way(path, make, mode, fault, tmp_path):
    executor = make(mode, commit_after_s=0.0)
    rule = path.worker_to_s3.add(FAULTS[fault], on("PUT", f"/{executor.job_id}/outcomes/"), times=3)
    tried = str(tmp_path / "tried")
    assert executor.submit(counted, tried, "value").result(timeout=SOON_S) == "value"
    assert rule.hits >= 1  # one that went through may be found before it is made again
    assert marks(tried) == 1
    assert executor.journal.counts["call.finished"] == 1


@pytest.mark.parametrize("answer", [ACCESS_DENIED, EXPIRED_TOKEN], ids=["AccessDenied", "ExpiredToken"])
def test_a_commit_that_s3_does_not_allow_is_told_at_once(path, make, mode, answer):
    executor = make(mode, commit_after_s=0.0)
    rule = path.worker_to_s3.add(answered(answer), on("PUT", f"/{executor.job_id}/outcomes/"), times=None)
    future = executor.submit(square, 3)
    if mode == "direct":  # the reply has it all the same
        assert future.result(timeout=SOON_S) == 9
    else:
        error = future.exception(timeout=SOON_S)
        assert type(error) is StorageError
        assert "Check that bucket and role are right" in str(error)
    assert rule.hits == 1
