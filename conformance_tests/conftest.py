"""What the tests of real programs share; the suites of other projects see nothing of it."""

import os

import pytest

collect_ignore = []
if "CONFORMANCE_SUITE" not in os.environ:
    # Not for `make test`: one needs CPython's own tests, the other the extra `programs`.
    collect_ignore = ["cpython", "programs/test_more_programs.py"]


@pytest.fixture
def mode(request):
    """The mode of the conformance run, whose cloud is there already; `make test` has its own cloud."""
    if "CONFORMANCE_MODE" in os.environ:
        return os.environ["CONFORMANCE_MODE"]
    request.getfixturevalue("cloud")
    return "direct"
