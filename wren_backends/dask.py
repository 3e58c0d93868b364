"""`wren_get`: a dask scheduler, `dask.compute(..., scheduler=wren_get)`, on top of the executor.

dask's own code does what it does for its local schedulers (ordering, fusing chains, the state that callbacks look
at); this file decides what runs where. A node of the graph becomes one call; aliases, data and the final gathering of
results stay in the client.

Importing it makes "tasks" the default method of dask's shuffles, unless another one is configured: the default without
a distributed cluster is a folder on the local disk, which execution environments do not share.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from dask import config as dask_config
from dask._task_spec import Alias, DataNode, convert_legacy_graph, cull, fuse_linear_task_spec
from dask.callbacks import local_callbacks, unpack_callbacks
from dask.core import flatten
from dask.local import finish_task, get_sync, nested_get, start_state_from_dask
from dask.order import order
from dask.typing import Key
from dask.utils import key_split

from lambda_worker.batches import run_dask_task
from lambda_worker.protocol import IN_WORKER_VARIABLE
from wren_backends.config import Config
from wren_backends.errors import ConfigError
from wren_backends.executor import Prepared, WrenExecutor, shared_executor

_AHEAD = 4
"""Tasks handed to the dispatcher per slot: enough for it to group small ones, few enough that dask's order decides."""

_FEWEST_AHEAD = 256
_OF_OTHER_SCHEDULERS = frozenset(
    # dask.local.get_async, dask.threaded.get, dask.multiprocessing.get
    {"cache", "chunksize", "dumps", "func_dumps", "func_loads", "get_id", "loads", "optimize_graph", "pack_exception"}
    | {"pool", "raise_exception", "traverse"}
    # distributed.Client.get
    | {"actors", "allow_other_workers", "asynchronous", "direct", "fifo_timeout", "priority", "resources", "sync"}
    | {"workers"}
)
"""Keyword arguments of `dask.compute` that mean something to another scheduler, and nothing here."""

if dask_config.get("dataframe.shuffle.method", None) is None:
    dask_config.set({"dataframe.shuffle.method": "tasks"})


def wren_get(
    dsk: Any,
    keys: Any,
    *,
    num_workers: int | None = None,
    executor: WrenExecutor | None = None,
    callbacks: Iterable[Any] | None = None,
    rerun_exceptions_locally: bool | None = None,
    **kwargs: Any,
) -> Any:
    """Compute `keys` of a graph on AWS Lambda, or on the local cloud.

    Args:
        dsk: A graph: a mapping, or an expression with `__dask_graph__`.
        keys: A key, or nested lists of keys.
        num_workers: Most invocations in flight.
        executor: Runs the tasks; default: one that is kept for the life of the process.
        callbacks: dask callbacks; default: the active ones.
        rerun_exceptions_locally: Run a failed task again in this process, for a debugger. Default: dask's setting.
        kwargs: Fields of `Config`; options of dask's other schedulers are ignored. `dask.config` may have them under
            `wren`.

    Returns:
        The values, nested as `keys` are.

    Raises:
        KeyError: A key is not in the graph.
        ConfigError: A keyword argument is unknown, or the graph shuffles through the local disk.
        Exception: What a task raised, with the remote traceback as its cause.
    """
    graph = dict(dsk if isinstance(dsk, Mapping) else dsk.__dask_graph__())
    if os.environ.get(IN_WORKER_VARIABLE):
        return get_sync(graph, keys, **kwargs)
    wanted = set(flatten([keys])) if isinstance(keys, list) else {keys}
    settings = {name: value for name, value in kwargs.items() if name not in _OF_OTHER_SCHEDULERS}
    if "initializer" in settings:
        raise ConfigError("wren_get takes no initializer: give it executor=WrenExecutor(initializer=...)")
    if executor is None:
        executor = shared_executor(Config.load(**{**dask_config.get("wren", {}), **settings}), num_workers)
    elif settings:
        raise ConfigError(f"give either executor= or settings, not both: {', '.join(settings)}")
    executor.refresh_modules()
    if rerun_exceptions_locally is None:
        rerun_exceptions_locally = bool(dask_config.get("rerun_exceptions_locally", False))
    with local_callbacks(callbacks) as active:
        return _Computation(graph, wanted, executor, active, rerun_exceptions_locally).run(keys)


class _Computation:
    """One call of `wren_get`."""

    def __init__(
        self,
        graph: dict[Key, Any],
        wanted: set[Key],
        executor: WrenExecutor,
        callbacks: Any,
        rerun_locally: bool,
    ) -> None:
        self._graph: dict[Key, Any] = graph
        self._wanted = wanted
        self._executor = executor
        self._callbacks = list(callbacks)
        _, _, self._pretask, self._posttask, _ = unpack_callbacks(self._callbacks)
        self._rerun_locally = rerun_locally
        self._ahead = max(_FEWEST_AHEAD, _AHEAD * executor._max_workers)
        self._state: dict[str, Any] = {}
        self._done: SimpleQueue[Future[Any]] = SimpleQueue()
        self._running: dict[Future[Any], Key] = {}
        self._prepared: Prepared | None = None

    def run(self, keys: Any) -> Any:
        started: list[Any] = []
        succeeded = False
        try:
            for callback in self._callbacks:
                if callback[0]:
                    callback[0](self._graph)
                started.append(callback)
            self._plan()
            for _, start_state, _, _, _ in self._callbacks:
                if start_state:
                    start_state(self._graph, self._state)
            self._compute()
            succeeded = True
        finally:
            self._executor.abandon(self._running)  # on an error or KeyboardInterrupt; otherwise nothing runs
            for *_, finish in started:
                if finish:
                    finish(self._graph, self._state, not succeeded)
        return nested_get(keys, self._state["cache"])

    def _plan(self) -> None:
        """Convert, check and fuse the graph, which callbacks may just have changed, and lay out dask's state for it."""
        graph: dict[Key, Any] = dict(cull(convert_legacy_graph(self._graph), self._wanted))
        missing = self._wanted - set(graph)
        if missing:
            raise KeyError(f"not in the graph: {', '.join(map(repr, missing))}")
        _refuse_disk_shuffle(graph)
        if not self._posttask:  # such a callback is told the value of every key, and a fused chain has only its last
            graph = fuse_linear_task_spec(graph, self._wanted)
        self._graph = graph
        self._order = order(graph).get
        self._state = start_state_from_dask(graph, keys=self._wanted, sortkey=self._order)
        if self._state["waiting"] and not self._state["ready"]:
            raise ValueError("Found no accessible jobs in dask")

    def _compute(self) -> None:
        state = self._state
        while state["waiting"] or state["ready"] or self._running:
            while state["ready"] and len(self._running) < self._ahead:
                self._start(state["ready"].pop())
            if self._running:
                future = self._done.get()
                key = self._running.pop(future)
                self._finish(key, self._value(future, key), id(future))

    def _start(self, key: Key) -> None:
        task, state = self._graph[key], self._state
        state["running"].add(key)
        for callback in self._pretask:
            callback(key, self._graph, state)
        inputs = {one: state["cache"][one] for one in state["dependencies"][key]}
        if self._stays_here(key, task):
            self._finish(key, task(inputs), 0)
            return
        if self._prepared is None:
            self._prepared = self._executor.prepare(run_dask_task)
        future: Future[Any] = self._executor.submit_with(
            self._prepared, (task, inputs), {}, name=f"dask key {key!r}", kind=key_split(key)
        )
        self._running[future] = key
        future.add_done_callback(self._done.put)

    def _stays_here(self, key: Key, task: Any) -> bool:
        """Whether a node is no work for Lambda: it would only send data there and back."""
        if isinstance(task, Alias | DataNode):
            return True
        return key in self._wanted and key_split(key).startswith("finalize")

    def _value(self, future: Future[Any], key: Key) -> Any:
        error = future.exception()
        if error is None:
            return future.result()
        if self._rerun_locally:
            inputs = {one: self._state["cache"][one] for one in self._state["dependencies"][key]}
            return self._graph[key](inputs)
        raise error

    def _finish(self, key: Key, value: Any, worker: int) -> None:
        self._state["cache"][key] = value
        finish_task(self._graph, key, self._state, self._wanted, self._order)
        for callback in self._posttask:
            callback(key, value, self._graph, self._state, worker)


def _refuse_disk_shuffle(graph: Mapping[Key, Any]) -> None:
    """A shuffle through the local disk would lose rows without a word where workers do not share it."""
    for key in graph:
        if isinstance(key, tuple) and str(key[0]).startswith("zpartd-"):
            raise ConfigError(
                "this graph shuffles through the local disk, which execution environments do not share: "
                'use dask.config.set({"dataframe.shuffle.method": "tasks"}), or shuffle="tasks" in the call'
            )
