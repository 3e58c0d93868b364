"""`WrenPlugin`: tasks of a dask cluster that are annotated with `executor="wren"` run on Lambda, and only those.

    client.register_plugin(WrenPlugin())
    with dask.annotate(executor="wren"):
        result = graph.compute()

A dask worker looks an annotated task's executor up in `worker.executors` and hands it over on its event loop, so that
nothing slow may happen there: `burst.py` pickles, sends and answers on threads of its own.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from distributed import WorkerPlugin
from distributed.core import Status

from wren_backends.burst import BurstExecutor
from wren_backends.config import Config
from wren_backends.errors import ConfigError

_OF_DASK = frozenset({"actor", "default", "gpu", "offload"})
_ENDING = frozenset({Status.closing, Status.closing_gracefully, Status.closed, Status.failed})


class WrenPlugin(WorkerPlugin):
    """Gives each worker of a cluster, those to come included, an executor that runs tasks on Lambda.

    The settings are those of the process that makes the plugin, and travel with it; no credentials do: each worker uses
    its own. Without a bucket each machine needs a local cloud, which is `wren local up`'s, or else one of each worker
    process's own. A second registration under the same name replaces the first; what that has sent comes to its end.

    Args:
        name: What `dask.annotate(executor=...)` calls it.
        config: Settings. Default: `Config.load(**settings)`.
        settings: Any field of `Config`. `max_workers` counts for each dask worker.

    Raises:
        ConfigError: A setting is wrong, or the name is that of an executor of dask's.
    """

    def __init__(self, name: str = "wren", *, config: Config | None = None, **settings: Any) -> None:
        if name in _OF_DASK:
            raise ConfigError(f"name={name!r} is that of an executor of dask's own: choose another one")
        if config is not None and settings:
            raise ConfigError("give either config= or single settings, not both")
        self.name = name
        self.config = config or Config.load(**settings)
        self._executors: tuple[BurstExecutor, ...] = ()  # workers in one process may have been given one plugin

    def setup(self, worker: Any) -> None:
        """Put the executor in place; nothing is opened before the first task for it.

        Raises:
            ConfigError: There is one of that name which is not ours.
        """
        if self.name in worker.executors:
            raise ConfigError(f"the worker has an executor {self.name!r} already: give WrenPlugin another name")
        executor = worker.executors[self.name] = BurstExecutor(worker, self.config)
        self._executors += (executor,)

    async def teardown(self, worker: Any) -> None:
        """Take the executor away: at the end of the worker its calls are abandoned, else they come to their end."""
        executor = worker.executors.get(self.name)
        if executor not in self._executors:
            return
        del worker.executors[self.name]
        self._executors = tuple(one for one in self._executors if one is not executor)
        if worker.status in _ENDING:
            executor.abandon()
            try:
                await asyncio.to_thread(functools.partial(executor.shutdown, wait=True))
            except RuntimeError:  # the interpreter is ending, and starts no thread to wait in
                executor.shutdown(wait=False)
        else:
            executor.shutdown(wait=False)

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        """Called by the worker when a task changes its state; a task that is released while it runs was cancelled."""
        if finish == "released" and start in ("executing", "long-running"):
            for executor in self._executors:
                executor.drop_cancelled(key)
