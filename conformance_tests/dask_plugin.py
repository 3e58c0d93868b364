"""Makes `wren_get` the scheduler of dask's own tests: the default, and whatever name they ask for."""

from __future__ import annotations

import dask
from dask.base import named_schedulers

from wren_backends import wren_get

for _name in list(named_schedulers):
    named_schedulers[_name] = wren_get
dask.config.set(scheduler=wren_get)
