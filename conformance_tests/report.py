"""The table in docs/conformance.md: written by the runs themselves, a row for each suite and mode."""

from __future__ import annotations

import json
from collections import Counter

from conformance_tests.listed import CATEGORIES, read
from conformance_tests.running import ROOT, Result, as_json
from conformance_tests.suites import SUITES

FIGURES = ROOT / "docs" / "conformance.json"
TABLE = ROOT / "docs" / "conformance.md"

_HEAD = """# Conformance

Other projects' own tests, run against this one's surfaces on the local cloud. Each row was written by the run itself
(`make conformance SUITE=... MODE=...`), on the day it names; nothing of it is edited by hand.

"By upstream" are tests that their own project skips or expects to fail here. "By us" are those of
`conformance_tests/skips.toml`, each with its reason; they are run all the same and have to fail.

| suite | mode | collected | passed | skipped by upstream | skipped by us | failed | wall time | date, versions |
|---|---|--:|--:|--:|--:|--:|--:|---|
"""


def record(result: Result) -> None:
    """Put the row of a complete run in place of the one before it."""
    write([one for one in rows() if (one["suite"], one["mode"]) != (result.suite, result.mode)] + [as_json(result)])


def rows() -> list[dict]:
    """Return the rows that there are."""
    return json.loads(FIGURES.read_text()) if FIGURES.exists() else []


def write(found: list[dict]) -> None:
    """Write rows and table, in the order of the suites; those of suites that are no more are left out."""
    places = [(suite.name, mode) for suite in SUITES.values() for mode in suite.modes]
    kept = [one for one in found if (one["suite"], one["mode"]) in places]
    kept.sort(key=lambda one: places.index((one["suite"], one["mode"])))
    FIGURES.parent.mkdir(exist_ok=True)
    FIGURES.write_text(json.dumps(kept, indent=1) + "\n")
    TABLE.write_text(as_markdown(kept))


def as_markdown(rows: list[dict]) -> str:
    """Return the whole document for these rows."""
    lines = [
        f"| {one['suite']} | {one['mode']} | {one['collected']} | {one['passed']} | {one['upstream']} "
        f"| {one['listed']} | {one['failed']} | {one['wall_s']:.0f} s | {one['date']}, {one['versions']} |"
        for one in rows
    ]
    suites = [f"- `{suite.name}`: {suite.what}" for suite in SUITES.values()]
    return _HEAD + "\n".join(lines) + "\n\n## Suites\n\n" + "\n".join(suites) + "\n\n" + _reasons()


def _reasons() -> str:
    counts = Counter((one.category, one.suite) for one in read())
    lines = ["## Why tests are skipped by us", "", "| category | what such a test does | tests |", "|---|---|---|"]
    for category, what in CATEGORIES.items():
        where = ", ".join(f"{suite} {counts[category, suite]}" for suite in SUITES if counts[category, suite])
        lines.append(f"| {category} | {what} | {where or 'none'} |")
    return "\n".join(lines) + "\n"
