"""pytest plugin of every conformance run: applies the list of skips strictly, counts, and writes what it found.

A listed test is run all the same and has to fail: once it passes, its entry has to go. So has an entry that matches no
test.
"""

from __future__ import annotations

import functools
import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from conformance_tests.listed import entries

SUITE_VARIABLE, MODE_VARIABLE, RESULT_VARIABLE = "CONFORMANCE_SUITE", "CONFORMANCE_MODE", "CONFORMANCE_RESULT"

_OURS = "listed: "
_PACKAGES = ("joblib", "dask", "sklearn", "conformance_tests", "tests")


def test_id(nodeid: str) -> str:
    """Return a test's id from its package on, wherever that is installed."""
    path, separator, rest = nodeid.partition("::")
    parts = Path(path).parts
    starts = [index for index, part in enumerate(parts) if part in _PACKAGES]
    # Folders further up may have such a name too: a checkout's, for one. Ours is the innermost, theirs below
    # site-packages the first.
    named = [index for index in starts if parts[index - 1] == "site-packages"] or starts[-1:] or [len(parts) - 1]
    return "/".join(parts[named[0] :]) + separator + rest


@functools.cache
def _listed():
    """Read once: a run may take an hour, in which the list changes."""
    return entries(os.environ[SUITE_VARIABLE], os.environ[MODE_VARIABLE])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    listed = _listed()
    for item in items:
        entry = listed.get(test_id(item.nodeid))
        if entry is not None:
            mark = pytest.mark.xfail(
                reason=f"{_OURS}{entry.category}: {entry.reason}", strict=not entry.sometimes, run=not entry.crashes
            )
            item.add_marker(mark, append=False)


class Recorder:
    """Counts outcomes in the process that sees all reports, and writes them down at the end."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}
        self._listed = set(_listed())

    def pytest_runtest_logreport(self, report):
        name = test_id(report.nodeid)
        kind = _kind(report)
        if kind and self.outcomes.get(name) != "failed":
            self.outcomes[name] = kind

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session, exitstatus):
        counts = Counter(self.outcomes.values())
        found = {
            "collected": len(self.outcomes),
            **{kind: counts[kind] for kind in ("passed", "upstream", "listed", "failed")},
            "failures": sorted(name for name, kind in self.outcomes.items() if kind == "failed"),
            "unmatched": sorted(self._listed - set(self.outcomes)),
            "exitstatus": int(exitstatus),
        }
        Path(os.environ[RESULT_VARIABLE]).write_text(json.dumps(found))


def _kind(report) -> str | None:
    """What a report says of its test; None if it says nothing new."""
    expected = getattr(report, "wasxfail", None)
    if report.failed:
        return "failed"
    if expected is not None:
        ours = expected.removeprefix("[NOTRUN] ").startswith(_OURS)
        return "listed" if ours else "passed" if report.passed else "upstream"
    if report.skipped:
        return "upstream"
    return "passed" if report.when == "call" else None


def pytest_configure(config):
    # In a shell's background it is ignored, and tests of Ctrl-C would wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):  # pytest-xdist's workers send their reports to this one
        config.pluginmanager.register(Recorder(), "conformance-recorder")
