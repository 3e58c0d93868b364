"""Committing an outcome: a conditional PUT that broke may have gone through, and is made again in any case."""

import pytest
from signals import marks

from .answers import SLOW_DOWN
from .calls import counted
from .proxy import answered, lost, on, reset, truncated

SOON_S = 30.0
FAULTS = {"503": answered(SLOW_DOWN), "reset": reset, "lost": lost, "truncated": truncated}


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("fault", FAULTS)
def test_an_outcome_is_committed_once_whatever_happens_on_the_way(path, make, mode, fault, times, tmp_path):
    rule = path.worker_to_s3.add(FAULTS[fault], on("PUT", "/outcomes/"), times=times)
    tried = str(tmp_path / "tried")
    executor = make(mode, commit_after_s=0.0)
    assert executor.submit(counted, tried, "value").result(timeout=SOON_S) == "value"
    assert rule.hits >= 1  # one that went through may be found before it is made again
    assert marks(tried) == 1
    assert executor.journal.counts["call.finished"] == 1
