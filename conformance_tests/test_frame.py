"""The frame itself: the list of skips is whole, and a run fails when an entry passes or matches nothing."""

import json

import pytest

from conformance_tests.listed import read
from conformance_tests.report import TABLE, as_markdown, rows
from conformance_tests.running import run
from conformance_tests.suites import BOTH, SUITES, Suite

TESTS = """
import pytest

def test_that_passes():
    pass

def test_that_fails():
    assert 0

@pytest.mark.skip(reason="theirs")
def test_that_they_skip():
    pass

def test_that_ends_the_process():
    import os
    os._exit(3)
"""

ENTRY = """
[[skip]]
suite = "mini"
category = "{category}"
reason = "A sentence that says why it cannot hold across machines."
tests = {tests}
"""

ENDS = """
[[skip]]
suite = "mini"
category = "process"
reason = "It ends the process that runs it, whatever the backend."
crashes = true
tests = ["test_mini.py::test_that_ends_the_process"]
"""


@pytest.fixture
def mini(tmp_path, monkeypatch):
    """Runs a suite of four tests with a list of skips of its own."""
    file = tmp_path / "test_mini.py"
    file.write_text(TESTS)

    def run_with(*tests):
        skips = tmp_path / "skips.toml"
        names = [f"test_mini.py::{test}" for test in tests]
        skips.write_text(ENTRY.format(category="process", tests=json.dumps(names)) + ENDS)
        monkeypatch.setenv("CONFORMANCE_LIST", str(skips))
        return run(Suite("mini", "a small one", (str(tmp_path),), modes=BOTH), "direct")

    return run_with


def test_a_listed_test_has_to_fail(mini):
    result = mini("test_that_fails")
    assert (result.collected, result.passed, result.upstream, result.listed, result.failed) == (4, 1, 1, 2, 0)
    assert result.is_good


def test_a_listed_test_that_passes_fails_the_run(mini):
    result = mini("test_that_fails", "test_that_passes")
    assert result.failures == ["test_mini.py::test_that_passes"]
    assert not result.is_good


def test_an_entry_without_a_test_fails_the_run(mini):
    result = mini("test_that_fails", "test_that_never_was")
    assert result.unmatched == ["test_mini.py::test_that_never_was"]
    assert not result.is_good


def test_a_test_that_is_not_listed_fails_the_run(mini):
    result = mini()
    assert result.failures == ["test_mini.py::test_that_fails"]
    assert not result.is_good


def test_the_list_names_suites_that_there_are():
    assert {one.suite for one in read()} <= set(SUITES)


@pytest.mark.parametrize(
    ("category", "tests", "said"),
    [("slow", '["a"]', "category has to be one of"), ("process", '["a", "a"]', "listed twice")],
)
def test_a_malformed_list_is_refused(tmp_path, category, tests, said):
    file = tmp_path / "skips.toml"
    file.write_text(ENTRY.format(category=category, tests=tests))
    with pytest.raises(ValueError, match=said):
        read(file)


def test_the_report_is_what_the_runs_wrote():
    """After a change of the list or the suites: `python -m conformance_tests --report`."""
    assert TABLE.read_text() == as_markdown(rows())
