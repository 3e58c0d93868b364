"""Functions that the client has the worker call on the user's behalf: they have to be importable on both sides."""

from __future__ import annotations

import contextlib
import math
import pickle
import time
from collections.abc import Callable
from typing import Any, SupportsIndex

from lambda_worker.parcels import Apart, packing
from lambda_worker.protocol import Bytes


def run_chunk(function: Callable[..., Any], chunk: list[tuple[Any, ...]]) -> list[Any]:
    """Call `function` on each argument tuple of `chunk`, for `Executor.map(chunksize=)`."""
    return [function(*arguments) for arguments in chunk]


class Shared:
    """An object that was pickled once to travel with many calls; it unpickles as the object itself.

    Its pickle is an out-of-band buffer, so that it becomes one blob that all those calls name.
    """

    def __init__(self, parts: tuple[Bytes, ...]) -> None:
        self._parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_shared, tuple(pickle.PickleBuffer(part) for part in self._parts)


def _open_shared(data: Bytes, *buffers: Bytes) -> Any:
    return pickle.loads(data, buffers=buffers)


class BatchResults(list[Any]):
    """Results of a batch: a list to whoever reads the job later.

    It is a plain list in any pickle but a payload: who reads a file of results need not have this package.

    Attributes:
        seconds: How long the batch took, without unpickling it.
    """

    seconds = 0.0

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        return super().__reduce_ex__(protocol) if packing.get() else (list, (list(self),))


def run_joblib_batch(batch: Callable[[], list[Any]], inner_threads: int | None) -> BatchResults:
    """Run a `joblib.parallel.BatchedCalls`; returns its results with how long they took.

    Args:
        batch: The batch.
        inner_threads: Threads that BLAS and OpenMP may use; None leaves it to the environment.
    """
    _register_nested_backend()
    begun = time.perf_counter()
    with _limited(inner_threads):
        results = BatchResults(batch())
    results.seconds = time.perf_counter() - begun
    return results


def _register_nested_backend() -> None:
    """Let code that asks for the backend "wren" inside a worker run in sequence there instead of bursting again."""
    from joblib import parallel

    if "wren" not in parallel.BACKENDS:
        parallel.register_parallel_backend("wren", parallel.SequentialBackend)


def _limited(inner_threads: int | None) -> contextlib.AbstractContextManager[Any]:
    if inner_threads is None:
        return contextlib.nullcontext()
    try:
        # Environment variables come too late for libraries that this environment has loaded already.
        from threadpoolctl import threadpool_limits
    except ImportError:
        return contextlib.nullcontext()
    limits: contextlib.AbstractContextManager[Any] = threadpool_limits(inner_threads)
    return limits


def run_dask_task(task: Callable[[dict[Any, Any]], Any], inputs: dict[Any, Any]) -> Any:
    """Run one node of a dask graph on the values of the keys that it depends on."""
    return task(inputs)


def run_step(
    tasks: tuple[Any, ...],
    values: dict[Any, Any],
    outputs: tuple[tuple[Any, int], ...],
    patience_s: float = math.inf,
) -> Apart:
    """Run nodes of a dask graph one after the other; the values wanted elsewhere leave as parcels.

    Args:
        tasks: The nodes, each called with a mapping that has the values of its `dependencies`, in an order that works.
        values: Values of the keys that they depend on and that are made elsewhere.
        outputs: Keys whose values are wanted, and how many bytes of each may travel with the outcome.
        patience_s: Once they have taken so long, in seconds, the rest is left: it may run elsewhere at the same time.

    Returns:
        The values by key, in the order of `outputs`, as far as they were made, and then those that the rest needs. The
        note says how long each task took that was run, in seconds.
    """
    wanted = dict(outputs)
    needs = _needs(tasks)
    last_use = {key: number for number, keys in enumerate(needs) for key in keys}
    # Whoever runs the rest has these at hand, as it has the constants that travel with the tasks.
    at_hand = {*values, *(task.key for task in tasks if hasattr(task, "value"))}
    seconds: list[float] = []
    for number, task in enumerate(tasks):
        if sum(seconds) > patience_s:
            break
        seconds.append(_run_task(task, values))
        for key in needs[number]:
            if last_use[key] == number and key not in wanted:
                values.pop(key, None)
    aliases = {task.key for task in tasks if hasattr(task, "target")}
    needed = {key for keys in needs[len(seconds) :] for key in keys if key in values} - aliases
    extra = sorted(needed - at_hand - set(wanted), key=str)
    made = [(key, values[key], limit) for key, limit in outputs if key in values]
    return Apart([*made, *((key, values[key], 0) for key in extra)], seconds)


def _needs(tasks: tuple[Any, ...]) -> list[set[Any]]:
    """For each node the keys that it needs, and what aliases among them stand for: that is what a value is known by."""
    targets = {task.key: task.target for task in tasks if hasattr(task, "target")}
    found = []
    for task in tasks:
        keys = set(task.dependencies)
        aliases = [key for key in keys if key in targets]
        while aliases:
            target = targets[aliases.pop()]
            keys.add(target)
            aliases += [target] if target in targets else []
        found.append(keys)
    return found


def _run_task(task: Any, values: dict[Any, Any]) -> float:
    begun = time.perf_counter()
    try:
        values[task.key] = task(values)
    except BaseException as error:
        with contextlib.suppress(Exception):  # exceptions may be frozen
            error.add_note(f"raised by the task of dask key {task.key!r}")
        raise
    return time.perf_counter() - begun
