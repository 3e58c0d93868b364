"""The `wren` command in this process, on the local cloud by way of the guard, with settings of each test's own."""

import itertools
import json

import boto3
import pytest
from click.testing import CliRunner

from wren_backends.cli import main

from .guard import REGION, Guard

_numbers = itertools.count()


@pytest.fixture(scope="session")
def one_guard(cloud):
    guard = Guard(cloud.endpoint_url)
    yield guard
    guard.close()


@pytest.fixture
def guard(one_guard):
    one_guard.reset()
    yield one_guard
    one_guard.reset()


@pytest.fixture
def account(cloud, guard, monkeypatch, tmp_path):
    """This test's user: credentials, no settings."""
    for name, value in cloud.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", guard.url)
    for name in ("CONFIG", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    return tmp_path


@pytest.fixture
def name():
    """Name of a function that no other test has."""
    return f"made{next(_numbers)}"


@pytest.fixture
def wren(account):
    """Run a command; it has to end as expected, or with None as it likes."""

    def run(*arguments, status=0, answers=None):
        done = CliRunner().invoke(main, [str(one) for one in arguments], input=answers)
        text = f"{done.output}\n{done.exception!r}"
        assert status in (None, done.exit_code), text
        return done

    return run


@pytest.fixture
def setup(wren, name):
    """`wren setup` for this test's function, without packages unless some are named, and without a test call."""

    def run(*arguments, test=False, **more):
        few = () if test else ("--no-test",)
        if "--packages" not in arguments:
            few += ("--no-packages",)
        return json.loads(wren("setup", "--name", name, "--yes", "--json", *few, *arguments, **more).stdout or "{}")

    return run


@pytest.fixture
def client(cloud, account):
    """A client of a service, past the guard."""

    def of(service):
        return boto3.client(service, REGION, endpoint_url=cloud.endpoint_url)

    return of


def states(answer):
    """State of each step, by kind and name."""
    return {(step["what"], step["name"]): step["state"] for step in answer["steps"]}
