"""The function's zip: the same bytes for the same files, packed once, packed anew when a file changes."""

import io
import zipfile

import pytest

from wren_backends.deploy import package


@pytest.fixture
def source(tmp_path, monkeypatch):
    """The one file of the worker, and a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "handler.py"
    path.write_text("old = 1")
    monkeypatch.setattr(package, "_worker_files", lambda: iter([("lambda_worker/handler.py", path)]))
    monkeypatch.setattr(package, "_DISTRIBUTIONS", ())
    return path


def packed():
    """The zip as another process sees it."""
    package.function_zip.cache_clear()
    try:
        return package.function_zip()
    finally:
        package.function_zip.cache_clear()


def content(zipped):
    with zipfile.ZipFile(io.BytesIO(zipped)) as bundle:
        return bundle.read("lambda_worker/handler.py").decode()


def test_it_is_packed_once(source, monkeypatch):
    first = packed()
    monkeypatch.setattr(package, "_pack", None)
    assert packed() == first
    assert content(first) == "old = 1"


def test_an_edit_is_seen_and_old_zips_do_not_pile_up(source, tmp_path):
    for number in range(10):
        source.write_text(f"new = {number}")
        assert content(packed()) == f"new = {number}"
    assert len(list((tmp_path / "cache" / "wren").iterdir())) == package._KEPT


def test_a_cache_that_cannot_be_written_costs_time_only(source, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert content(packed()) == "old = 1"
