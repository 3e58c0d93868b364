"""Files that tracebacks of calls name: the user's own, where they are known here."""

import sys

import pytest

from wren_backends.tracebacks import with_files_of_here


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of the user's that this process could import."""
    path = tmp_path / "shop" / "prices.py"
    path.parent.mkdir()
    path.write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    return str(path)


@pytest.mark.parametrize(
    "text",
    [
        'File "{}", line 3, in total',
        '    | File "{}", line 3, in total\n    |   return 1 / 0',
        "{}",
    ],
    ids=["frame", "in a group", "of a warning"],
)
def test_files_that_are_known_are_named_as_they_are_here(module, text):
    assert with_files_of_here(text.format("/tmp/wren-modules-a1_b2/shop/prices.py")) == text.format(module)


def test_what_is_not_known_stays(module):
    for path in ("/tmp/wren-modules-a1/shop/other.py", "/opt/python/shop/prices.py", "wren-modules-a1/shop/prices.py"):
        assert with_files_of_here(f'File "{path}", line 1') == f'File "{path}", line 1'


def test_a_long_line_takes_no_longer_for_it(module):
    """A search that begins at each place of it would not end within the suite's time limit."""
    text = 'File "/tmp/wren-modules-a1/shop/prices.py", line 1\nValueError: ' + "/tmp/a b" * 500_000
    assert with_files_of_here(text).startswith(f'File "{module}"')


def test_anything_may_be_on_the_path(module, monkeypatch):
    monkeypatch.setattr(sys, "path", [None, "\0", *sys.path])
    assert with_files_of_here('File "/tmp/wren-modules-a1/shop/prices.py"') == f'File "{module}"'
