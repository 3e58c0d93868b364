"""Executors as PyWren's users get them."""

import pytest

import wren_backends.pywren as pywren


@pytest.fixture
def pywren_executor(cloud):
    """What `default_executor()` returns, with two invocations in flight at most."""
    with pywren.default_executor(max_workers=2) as executor:
        yield executor
