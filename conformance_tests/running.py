"""Runs one suite in one mode: a local cloud, a home and a pytest process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from conformance_tests.interpreters import ROOT, with_cpythons_tests
from conformance_tests.plugin import MODE_VARIABLE, RESULT_VARIABLE, SUITE_VARIABLE
from conformance_tests.s3_servers import SERVERS, Server
from conformance_tests.suites import Suite


@dataclass(frozen=True)
class Result:
    """What a run found.

    Attributes:
        suite: Name of the suite.
        mode: Mode it ran in.
        date: Day it ended, UTC.
        versions: What was tested, with versions.
        collected: Tests that there are.
        passed: Of these.
        upstream: Skipped, or expected to fail, by the upstream project itself.
        listed: Skipped by us: named and reasoned in `skips.toml`.
        failed: All others, listed ones that passed among them.
        wall_s: Seconds it took.
        failures: Ids of those that failed.
        unmatched: Entries of the list that no test matches.
        exitstatus: pytest's.
    """

    suite: str
    mode: str
    date: str
    versions: str
    collected: int
    passed: int
    upstream: int
    listed: int
    failed: int
    wall_s: float
    failures: list[str]
    unmatched: list[str]
    exitstatus: int

    @property
    def is_complete(self) -> bool:
        """Whether pytest came to its end: 0, or 1 where tests failed (pytest's documentation, "Exit codes")."""
        return self.exitstatus in (0, 1)

    @property
    def is_good(self) -> bool:
        """Whether every test passed or is listed, and every entry of the list is needed."""
        return self.collected > 0 and not self.failed and not self.unmatched and self.exitstatus == 0


def run(suite: Suite, mode: str, more: tuple[str, ...] = (), arguments: tuple[str, ...] = ()) -> Result:
    """Run a suite in a mode; its output goes to the terminal.

    Args:
        suite: The suite.
        mode: `direct`, `s3`, or `both` for suites that run in both by themselves.
        more: Further arguments of pytest, such as `-k pattern`; then entries without a test do not count.
        arguments: What to collect in place of `suite.arguments`.
    """
    python = with_cpythons_tests() if suite.interpreter == "cpython" else sys.executable
    with tempfile.TemporaryDirectory(prefix="wren-conformance-") as home, ExitStack() as stack:
        environment = _environment(suite, mode, Path(home))
        server = stack.enter_context(_server(suite)) if suite.server else None
        if server:
            environment |= s3_environment(server)
        jobs = os.environ.get("JOBS", "0" if arguments else str(suite.jobs))
        command = [
            python,
            "-m",
            "pytest",
            *_options(suite),
            "-n",
            jobs,
            *map(_path, arguments or suite.arguments),
            *more,
        ]
        begun = time.monotonic()
        with nullcontext() if suite.is_ours else _cloud(python, environment):
            done = subprocess.run(command, env=environment, cwd=ROOT if suite.is_ours else home, check=False)
        wall_s = time.monotonic() - begun
        try:
            found = json.loads(Path(environment[RESULT_VARIABLE]).read_text())
        except FileNotFoundError:
            raise SystemExit(
                f"{suite.name}, {mode}: pytest ended with status {done.returncode} and no result"
            ) from None
    if more or arguments:
        found["unmatched"] = []
    return Result(
        suite=suite.name,
        mode=mode,
        date=datetime.now(UTC).date().isoformat(),
        versions=_versions(python, suite) + (f", {server.name}" if server else ""),
        wall_s=round(wall_s, 1),
        **found,
    )


@contextmanager
def _server(suite: Suite) -> Iterator[Server]:
    with (
        tempfile.TemporaryDirectory(prefix="wren-conformance-") as folder,
        SERVERS[suite.server](Path(folder)) as found,
    ):
        yield found


def s3_environment(server: Server) -> dict[str, str]:
    """What tells the tests' own local cloud, of the root's conftest.py, to use this server."""
    return {
        "CONFORMANCE_S3_PORT": str(server.port),
        "CONFORMANCE_S3_KEY": server.access_key_id,
        "CONFORMANCE_S3_SECRET": server.secret_access_key,
    }


def _path(argument: str) -> str:
    """Absolute, as pytest runs in another folder."""
    return str(ROOT / argument) if argument.startswith(("conformance_tests/", "tests/")) else argument


def _options(suite: Suite) -> list[str]:
    settings = ROOT / "pyproject.toml" if suite.is_ours else ROOT / "conformance_tests" / "upstream.ini"
    options = ["-c", str(settings), "--rootdir", str(ROOT) if suite.is_ours else "/", "-p", "conformance_tests.plugin"]
    options += ["-p", suite.plugin] if suite.plugin else []
    return [*options, f"--timeout={suite.timeout_s}"]


def _environment(suite: Suite, mode: str, home: Path) -> dict[str, str]:
    """Nothing of the user's counts, as in the tests of our own."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("WREN_", "AWS_", "XDG_", "PYTEST_"))
    }
    site = ROOT / "conformance_tests" / "site"
    return {
        **kept,
        **{f"XDG_{name}_HOME": str(home / name.lower()) for name in ("CONFIG", "STATE", "CACHE", "DATA")},
        "HOME": str(home),
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(site))),
        "AWS_EC2_METADATA_DISABLED": "true",
        "WREN_CLOUD": "local",
        "WREN_MODE": mode,
        "WREN_MEMORY_MB": "3008",  # dask's test_take_large has chunks of 1.6 GB
        SUITE_VARIABLE: suite.name,
        MODE_VARIABLE: mode,
        RESULT_VARIABLE: str(home / "result.json"),
    }


@contextmanager
def _cloud(python: str, environment: dict[str, str]) -> Iterator[None]:
    """A shared local cloud, which pytest's processes and the scripts that tests start find by themselves."""
    wren = str(Path(python).with_name("wren"))
    # Workers see nothing of this folder but what travels with calls.
    apart = {name: value for name, value in environment.items() if name not in ("PYTHONPATH", SUITE_VARIABLE)}
    subprocess.run([wren, "local", "up"], env=apart, check=True, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        subprocess.run([wren, "local", "down"], env=apart, check=True, stdout=subprocess.DEVNULL)


def _versions(python: str, suite: Suite) -> str:
    code = (
        "import platform, sys; from importlib.metadata import version; "
        "print('Python', platform.python_version(), *(f', {one} {version(one)}' for one in sys.argv[1:]))"
    )
    done = subprocess.run([python, "-c", code, *suite.packages], capture_output=True, text=True, check=True)
    return done.stdout.strip().replace(" ,", ",")


def as_json(result: Result) -> dict:
    """Return a result as what `report.py` keeps: without ids, which are only of use to whoever ran it."""
    return {
        name: value for name, value in asdict(result).items() if name not in ("failures", "unmatched", "exitstatus")
    }
