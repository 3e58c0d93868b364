"""Makes `wren_get` the scheduler of dask's own tests: the default, and whatever name they ask for.

They are run with the settings of pytest that dask has in its source distribution, as some want warnings to be errors.
"""

from __future__ import annotations

import dask
from dask.base import named_schedulers

from wren_backends import wren_get

_MARKS = (
    *("network", "slow", "gpu", "flaky", "skip_with_pyarrow_strings", "xfail_with_pyarrow_strings", "array_expr"),
    "normal_and_array_expr",
)
_FILTERS = (
    "error",
    "ignore:Couldn't detect a suitable IP address:RuntimeWarning:distributed",
    "ignore:Creating scratch directories is taking a surprisingly long time.*:UserWarning",
    "module:Exception ignored:pytest.PytestUnraisableExceptionWarning::",
    "module:unclosed database in <sqlite3.Connection:ResourceWarning::",
    "ignore::pandas.errors.Pandas4Warning",
)
"""Those of `[tool.pytest.ini_options]` in dask's pyproject.toml that are not for other versions than the ones here. The
last one is ours: pandas 3.1, newer than dask 2026.8.0, warns of what dask itself calls."""

for _name in list(named_schedulers):
    named_schedulers[_name] = wren_get
dask.config.set(scheduler=wren_get)


def pytest_configure(config):
    for mark in _MARKS:
        config.addinivalue_line("markers", f"{mark}: dask's")
    for one in _FILTERS:
        config.addinivalue_line("filterwarnings", one)
