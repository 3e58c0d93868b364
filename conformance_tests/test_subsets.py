"""What `make test` runs of other projects' tests: a part of each suite, stated in `suites.py`, in mode `direct`.

`make conformance` runs all of them, in both modes.
"""

import pytest

from conformance_tests.running import run
from conformance_tests.suites import SUITES


@pytest.mark.timeout(600)
@pytest.mark.parametrize("suite", [suite for suite in SUITES.values() if suite.subset], ids=lambda suite: suite.name)
def test_subset(suite):
    result = run(suite, "direct", arguments=suite.subset)
    assert result.passed > 10
    assert result.is_good, result.failures
