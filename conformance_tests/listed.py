"""The list of tests that cannot pass: read, checked, and looked up by test id."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

LIST = Path(os.environ.get("CONFORMANCE_LIST") or Path(__file__).with_name("skips.toml"))

CATEGORIES = {
    "client-memory": "looks for what the call did to objects, globals or mocks of the client's process",
    "client-files": "looks for files that exist only on the client's machine, or are shared by path",
    "process": "looks at process ids, worker processes or their number on this machine",
    "which-backend": "asserts which class or scheduler it was that ran",
    "environment": "wants the client's environment variables, signals or resource limits in the worker",
    "order": "asserts in which order things come that run side by side",
    "decided": "asserts what this project does otherwise by decision, and says so in README",
    "forked": "uses S3 in a forked child of a process that has used it, which the S3 library does not allow (README)",
    "unpicklable": "passes something that cannot be pickled, which threads can share and machines cannot",
    "upstream": "fails with the upstream project's own backend too, here or with these versions",
}
"""Why a test cannot hold across machines. Being slow is no reason."""


@dataclass(frozen=True)
class Entry:
    """One test that cannot pass, and why.

    Attributes:
        suite: Name of the suite.
        test: Its id, from the package on: `joblib/test/test_parallel.py::test_x[wren]`.
        category: One of `CATEGORIES`.
        reason: A sentence.
        modes: The modes in which it cannot pass.
        crashes: Whether it is not even run, as it would end or block the test process.
        sometimes: Whether it passes at times, because it depends on which of two things happens first.
    """

    suite: str
    test: str
    category: str
    reason: str
    modes: tuple[str, ...] = ("direct", "s3")
    crashes: bool = False
    sometimes: bool = False


def entries(suite: str, mode: str) -> dict[str, Entry]:
    """Return the entries for a suite in a mode, by test id.

    Raises:
        ValueError: The list is malformed; the message says where.
    """
    return {one.test: one for one in read() if one.suite == suite and mode in one.modes}


def read(path: Path = LIST) -> list[Entry]:
    """Return the whole list; a group of tests that share a reason is one table in the file.

    Raises:
        ValueError: An entry has no reason, an unknown category, or is there twice.
    """
    found: list[Entry] = []
    for group in tomllib.loads(path.read_text())["skip"]:
        tests = group.pop("tests")
        if group.get("category") not in CATEGORIES:
            raise ValueError(f"{path.name}: {tests[0]}: category has to be one of {', '.join(CATEGORIES)}")
        if len(str(group.get("reason", ""))) < 20:
            raise ValueError(f"{path.name}: {tests[0]}: say in a sentence why it cannot hold across machines")
        modes = tuple(group.pop("modes", Entry.modes))
        found += [Entry(test=test, modes=modes, **group) for test in tests]
    seen = set()
    for one in found:
        for mode in one.modes:
            if (one.suite, one.test, mode) in seen:
                raise ValueError(f"{path.name}: {one.test} is listed twice for {one.suite}, {mode}")
            seen.add((one.suite, one.test, mode))
    return found
