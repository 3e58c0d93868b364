"""A local cloud that ends under a program: its calls fail at once, and what comes next finds another one."""

import pytest
from joblib import Parallel, delayed, parallel_config

from wren_backends import BrokenWrenExecutor, WrenExecutor, measure
from wren_backends.local import cloud as local_cloud

SOON_S = 30
SETTINGS = {"prefix": "gone"}
"""Connections are kept by their settings: with these, the other tests' is not used."""


@pytest.fixture
def shared(cloud, monkeypatch, tmp_path):
    """A shared cloud of the test's own, which it may stop and start."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield local_cloud.start_shared()
    local_cloud.stop_shared()


@pytest.mark.parametrize("mode", ["direct", "s3"])
def test_calls_fail_at_once_and_say_what_to_do(shared, gate, mode):
    with WrenExecutor(2, mode=mode, **SETTINGS) as executor:
        futures = [executor.submit(gate.hold) for _ in range(6)]
        gate.wait_entered(2)
        local_cloud.stop_shared()
        for future in futures:
            with pytest.raises(BrokenWrenExecutor, match=f"{shared.endpoint_url} has ended.*wren local up"):
                future.result(SOON_S)
        with pytest.raises(BrokenWrenExecutor):
            executor.submit(abs, -1)


@pytest.mark.parametrize("more", [{}, {"initializer": abs, "initargs": (1,)}], ids=["shared", "own"])
def test_what_comes_next_uses_the_next_cloud(shared, more):
    with parallel_config(backend="wren", n_jobs=2, **SETTINGS, **more):
        assert Parallel()(delayed(abs)(-n) for n in range(4)) == [0, 1, 2, 3]
        local_cloud.stop_shared()
        local_cloud.start_shared()
        with measure() as report:
            assert Parallel()(delayed(abs)(-n) for n in range(4)) == [0, 1, 2, 3]
    assert report.calls == 4
