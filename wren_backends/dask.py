"""`wren_get`: a dask scheduler, `dask.compute(..., scheduler=wren_get)`, on top of the executor.

This is the contract with dask: arguments, settings, callbacks, `persist`. What happens to a graph is in `graph/`.

Importing it has dask leave our frames out of tracebacks, as it leaves out its own.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from dask import base
from dask import config as dask_config
from dask.callbacks import local_callbacks
from dask.core import flatten
from dask.local import get_sync, nested_get

from lambda_worker.protocol import IN_WORKER_VARIABLE
from wren_backends.config import Config
from wren_backends.errors import ConfigError
from wren_backends.executor import WrenExecutor, shared_executor
from wren_backends.graph.compute import Asked, compute
from wren_backends.graph.compute import leave as leave_remote

_OF_OTHER_SCHEDULERS = frozenset(
    # dask.local.get_async, dask.threaded.get, dask.multiprocessing.get
    {"cache", "chunksize", "dumps", "func_dumps", "func_loads", "get_id", "loads", "optimize_graph", "pack_exception"}
    | {"pool", "raise_exception", "traverse"}
    # distributed.Client.get
    | {"actors", "allow_other_workers", "asynchronous", "direct", "fifo_timeout", "priority", "resources", "sync"}
    | {"workers"}
)
"""Keyword arguments of `dask.compute` that mean something to another scheduler, and nothing here."""

_OUR_FRAMES = [r"wren_backends[\\/]", r"lambda_worker[\\/]"]

if shortened := dask_config.get("admin.traceback.shorten", None):
    dask_config.set({"admin.traceback.shorten": [*shortened, *_OUR_FRAMES]})


def wren_get(
    dsk: Any,
    keys: Any,
    *,
    num_workers: int | None = None,
    executor: WrenExecutor | None = None,
    callbacks: Iterable[Any] | None = None,
    rerun_exceptions_locally: bool | None = None,
    keep_intermediates: bool | None = None,
    **kwargs: Any,
) -> Any:
    """Compute `keys` of a graph on AWS Lambda, or on the local cloud.

    Intermediate values stay in S3, but for small ones; they are deleted when the graph is done.

    Args:
        dsk: A graph: a mapping, or an expression with `__dask_graph__`.
        keys: A key, or nested lists of keys.
        num_workers: Most invocations in flight. Default: what `dask.config` has under that name, else `max_workers`.
        executor: Runs the tasks; default: one that is kept for the life of the process.
        callbacks: dask callbacks; default: the active ones.
        rerun_exceptions_locally: Run a failed task again in this process, for a debugger. Default: dask's setting.
        keep_intermediates: Leave intermediate values in S3, until their job is cleaned or they expire. Default: what
            `dask.config` has under `wren`, else no.
        kwargs: Fields of `Config`, and `initializer`, which `dask.config` has as `multiprocessing.initializer`: called
            in each execution environment. Other names are ignored, as dask's own schedulers do, with a UserWarning
            if one looks like a slip. `dask.config` may have the fields under `wren`.

    Returns:
        The values, nested as `keys` are.

    Raises:
        KeyError: A key is not in the graph.
        ConfigError: An argument or annotation is not understood, or the graph shuffles through the local disk.
        Exception: What a task raised, with its frames in the worker, and the remote traceback as its cause.
    """
    if os.environ.get(IN_WORKER_VARIABLE):
        graph = dict(dsk if isinstance(dsk, Mapping) else dsk.__dask_graph__())
        return get_sync(graph, keys, **kwargs)
    settings, keep = _settings(kwargs, keep_intermediates)
    rerun_locally = _reruns_locally(rerun_exceptions_locally)
    with contextlib.ExitStack() as stack:
        executor, is_own = _executor(executor, num_workers, settings)
        if is_own:
            stack.callback(executor.shutdown, wait=False)
        active = stack.enter_context(local_callbacks(callbacks))
        found = compute(Asked(dsk, _wanted(keys), executor, active, rerun_locally, keep))
    return nested_get(keys, found)


def persist(collections: Iterable[Any], *, optimize_graph: bool = True, **kwargs: Any) -> list[Any]:
    """What `dask.persist(..., scheduler=wren_get)` and `collection.persist(scheduler=wren_get)` call.

    Args:
        collections: dask collections.
        optimize_graph: Whether dask is to optimise their graphs first.
        kwargs: As for `wren_get`.

    Returns:
        Collections whose parts stay in S3, for as long as one that refers to them lives; small parts stay in this
        process. A later `wren_get` hands them on to its tasks. It blocks until all parts are made.
    """
    if os.environ.get(IN_WORKER_VARIABLE):
        return list(base.persist(*collections, traverse=False, optimize_graph=optimize_graph, scheduler="synchronous"))
    return list(
        base.persist(*collections, traverse=False, optimize_graph=optimize_graph, scheduler=_remote_get, **kwargs)
    )


def _remote_get(
    dsk: Any,
    keys: Any,
    *,
    num_workers: int | None = None,
    executor: WrenExecutor | None = None,
    callbacks: Iterable[Any] | None = None,
    keep_intermediates: bool | None = None,
    rerun_exceptions_locally: bool | None = None,
    **kwargs: Any,
) -> Any:
    """As `wren_get`, with something that stands for each value in its place."""
    settings, keep = _settings(kwargs, keep_intermediates)
    # One of this call's own stays open: what is left in S3 is read through it.
    executor, _ = _executor(executor, num_workers, settings)
    with local_callbacks(callbacks) as active:
        rerun_locally = _reruns_locally(rerun_exceptions_locally)
        found = leave_remote(Asked(dsk, _wanted(keys), executor, active, rerun_locally, keep))
    return nested_get(keys, found)


wren_get.persist = persist  # type: ignore[attr-defined]  # dask.base.persist looks for it


def _wanted(keys: Any) -> set[Any]:
    return set(flatten([keys])) if isinstance(keys, list) else {keys}


def _reruns_locally(given: bool | None) -> bool:
    return bool(dask_config.get("rerun_exceptions_locally", False) if given is None else given)


def _settings(kwargs: Mapping[str, Any], keep: bool | None) -> tuple[dict[str, Any], bool]:
    """Fields of `Config` that were given, and whether to keep intermediate values."""
    settings = _known({name: value for name, value in kwargs.items() if name not in _OF_OTHER_SCHEDULERS})
    if keep is None:
        keep = bool(dask_config.get("wren.keep_intermediates", False))
    return settings, keep


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings that there are; dask's own schedulers take no notice of other names, but one may be a slip."""
    names = {"initializer", *(one.name for one in fields(Config))}
    for name, value in settings.items():
        if name not in names and (near := get_close_matches(name, names, n=1)):
            warnings.warn(
                f"wren_get takes no notice of {name}={value!r}: is it {near[0]!r}?", UserWarning, stacklevel=4
            )
    return {name: value for name, value in settings.items() if name in names}


def _executor(
    executor: WrenExecutor | None, num_workers: int | None, settings: Mapping[str, Any]
) -> tuple[WrenExecutor, bool]:
    """What runs the tasks, and whether it was made for this call: initializers are an executor's own."""
    is_own = False
    if executor is None:
        num_workers = num_workers or dask_config.get("num_workers", None)
        configured = {**dask_config.get("wren", {}), **settings}
        configured.pop("keep_intermediates", None)
        initializer: Callable[[], object] | None = configured.pop("initializer", None)
        initializer = initializer or dask_config.get("multiprocessing.initializer", None)
        config = Config.load(**configured)
        is_own = initializer is not None
        executor = (
            WrenExecutor(num_workers, initializer, config=config) if is_own else shared_executor(config, num_workers)
        )
    elif settings:
        raise ConfigError(f"give either executor= or settings, not both: {', '.join(settings)}")
    executor.refresh_modules()
    return executor, is_own
