"""Points joblib's own tests at the backend "wren", without changing them.

It puts "wren" beside loky wherever a test is parametrised with backends, and runs those tests.
"""

from __future__ import annotations

import functools

import joblib.testing
import pytest

from wren_backends.joblib import WrenBackend

_BACKENDS = ("backend", "parent_backend", "child_backend")
_SCRIPT_LIMIT_S = 60.0
"""Its scripts have five seconds each, which is not what they test: a machine that does other things needs more."""

_check_subprocess_call = joblib.testing.check_subprocess_call


@functools.wraps(_check_subprocess_call)
def _with_more_time(command, timeout=5, **kwargs):
    return _check_subprocess_call(command, timeout=timeout and max(timeout, _SCRIPT_LIMIT_S), **kwargs)


joblib.testing.check_subprocess_call = _with_more_time


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc):
    """Add "wren" to the values of every mark that has "loky" among its backends."""
    marks = metafunc.definition.own_markers
    for index, mark in enumerate(marks):
        if mark.name == "parametrize" and mark.args[0] in _BACKENDS:
            values = list(mark.args[1])
            if "loky" in values and "wren" not in values:
                marks[index] = pytest.mark.parametrize(mark.args[0], [*values, "wren"]).mark


def pytest_collection_modifyitems(config, items):
    """Keep the tests that got "wren", or an instance of its class."""
    kept = [item for item in items if hasattr(item, "callspec") and any(map(_is_wren, item.callspec.params.values()))]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def _is_wren(value):
    return value == "wren" or isinstance(value, WrenBackend)
