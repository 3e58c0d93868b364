"""`python -m conformance_tests`: runs suites in modes, says how they went, and writes docs/conformance.md."""

from __future__ import annotations

import argparse
import sys

from conformance_tests import report
from conformance_tests.running import Result, run
from conformance_tests.suites import MODES, SUITES


def main() -> None:
    """Run what the command line asks for; the exit status is 1 if anything is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m conformance_tests", description=__doc__)
    parser.add_argument("--suite", choices=SUITES, help="default: all that run on the local cloud's own S3")
    parser.add_argument("--other-s3", action="store_true", help="those that run on other S3 servers")
    parser.add_argument("--mode", choices=MODES, help="default: both")
    parser.add_argument("--subset", action="store_true", help="only what `make test` runs of it")
    parser.add_argument("--only", nargs="+", default=(), help="what to collect in place of the suite's own arguments")
    parser.add_argument(
        "--report", action="store_true", help="run nothing: write the table anew, as the list has changed"
    )
    parser.add_argument("more", nargs="*", help="further arguments of pytest, after --")
    wanted = parser.parse_args()
    if wanted.report:
        report.write(report.rows())
        return
    results = []
    named = [SUITES[wanted.suite]] if wanted.suite else []
    for suite in named or [one for one in SUITES.values() if bool(one.server) == wanted.other_s3]:
        arguments = suite.subset if wanted.subset else tuple(wanted.only)
        if wanted.subset and not arguments:
            continue
        for mode in [one for one in suite.modes if wanted.mode in (None, one)]:
            results.append(run(suite, mode, tuple(wanted.more), arguments))
            if not (arguments or wanted.more) and results[-1].is_complete:
                report.record(results[-1])
    for one in results:
        print(_line(one))
    sys.exit(not all(one.is_good for one in results))


def _line(one: Result) -> str:
    lines = [
        f"{one.suite}, {one.mode}: {one.collected} collected, {one.passed} passed, {one.upstream} skipped by upstream, "
        f"{one.listed} skipped by us, {one.failed} failed, {one.wall_s:.0f} s"
    ]
    lines += [f"  failed: {name}" for name in one.failures]
    lines += [f"  listed in skips.toml, but there is no such test: {name}" for name in one.unmatched]
    if not one.is_good and not one.failures and not one.unmatched:
        lines.append(f"  pytest ended with status {one.exitstatus}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
