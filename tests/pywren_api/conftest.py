"""Executors as PyWren's users get them."""

import pytest

import wren_backends.pywren as pywren
from wren_backends.pywren import following


@pytest.fixture
def pywren_executor(cloud):
    """What `default_executor()` returns, with two invocations in flight at most."""
    with pywren.default_executor(max_workers=2) as executor:
        yield executor


@pytest.fixture(autouse=True)
def jobs_are_soon_let_go_of(monkeypatch):
    """Threads of a job that was read are gone before the tests end."""
    monkeypatch.setattr(following, "IDLE_S", 1.0)
