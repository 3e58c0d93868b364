"""The joblib backend "wren": `joblib.parallel.ParallelBackendBase` on top of the executor.

joblib calls `submit` under its own lock, sometimes on our resolver thread, so that nothing slow may happen there:
pickling, hashing and queueing are done on the dispatcher's feeder thread, and results are unpickled before joblib hears
of them.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from joblib import register_parallel_backend
from joblib.disk import memstr_to_bytes
from joblib.parallel import BatchedCalls, FallbackToBackend, ParallelBackendBase, SequentialBackend

from lambda_worker import codec
from lambda_worker.batches import Shared, run_joblib_batch
from lambda_worker.protocol import IN_WORKER_VARIABLE
from wren_backends.blobs import SeenBuffers
from wren_backends.config import Config
from wren_backends.connection import default_max_workers
from wren_backends.errors import SerializationError

if TYPE_CHECKING:
    from wren_backends.executor import WrenExecutor

_BATCH_TARGET_S = 0.02
"""Compute time that joblib's batches grow to: it spends some 0.3 ms of the client's CPU on each. Calls that wait are
grouped for the sake of Lambda's own latency by the dispatcher, which knows how many slots are free."""

_MOST_IN_BATCH = 1000
_SHARED_BYTES = 100_000
"""Arguments from this size on travel on their own: dask does so from 1 kB, loky (as memmaps, arrays only) from 1 MB."""

_SETTINGS = frozenset(one.name for one in fields(Config))
_JOBLIBS_OWN = frozenset({"max_nbytes", "temp_folder", "mmap_mode", "context", "verbose", "idle_worker_timeout"})


class _ParallelState:
    """What belongs to one `Parallel` call: one backend instance serves many, nested and interleaved ones."""

    def __init__(self) -> None:
        self.futures: set[Future[Any]] = set()
        self.seen = SeenBuffers()
        self.shared: dict[int, tuple[Any, Shared]] = {}


class WrenBackend(ParallelBackendBase):  # type: ignore[misc]
    """Runs joblib's batches as calls of a `WrenExecutor`.

    Parameters of `parallel_config(backend="wren", ...)` are the fields of `Config`, `initializer` and `initargs`.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    supports_sharedmem = False
    uses_threads = False
    default_n_jobs = -1

    def __init__(
        self, nesting_level: int | None = None, inner_max_num_threads: int | None = None, **backend_kwargs: Any
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads, **backend_kwargs)
        self._lock = threading.Lock()
        self._states: weakref.WeakKeyDictionary[Any, _ParallelState] = weakref.WeakKeyDictionary()
        self._executor: WrenExecutor | None = None
        self._owns_executor = False
        self._shared_from_bytes = 0
        self._batch_size = 1
        self._item_s: float | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Calls that can run at once: `n_jobs`, or for -1 as many as there may be invocations in flight.

        Raises:
            ValueError: `n_jobs` is 0.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None or os.environ.get(IN_WORKER_VARIABLE):
            return 1
        if n_jobs > 0:
            return n_jobs
        config = self._config({})
        return max(1, (config.max_workers or default_max_workers(config)) + 1 + n_jobs)

    def configure(
        self, n_jobs: int = 1, parallel: Any = None, prefer: Any = None, require: Any = None, **kwargs: Any
    ) -> int:
        """Get ready for a `Parallel` call and return how many calls run at once.

        Raises:
            FallbackToBackend: One at a time is best done here, and inside a worker nothing bursts again.
            ConfigError: A parameter is unknown or out of bounds.
        """
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self._shared_from_bytes = _shared_from(kwargs.get("max_nbytes", "1M"), kwargs.get("mmap_mode", "r"))
        config = self._config({name: value for name, value in kwargs.items() if name not in _JOBLIBS_OWN})
        with self._lock:
            if self._executor is None or self._executor._broken or self._executor._max_workers != n_jobs:
                self._executor = self._open_executor(config, n_jobs)
        self._executor.refresh_modules()
        self.parallel = parallel
        return n_jobs

    def _config(self, more: dict[str, Any]) -> Config:
        given = {**self.backend_kwargs, **more}
        return Config.load(**{name: given[name] for name in given if name not in ("initializer", "initargs")})

    def _open_executor(self, config: Config, n_jobs: int) -> WrenExecutor:
        # Imported when first needed: with its HTTP client it takes longer than everything else here.
        from wren_backends.executor import WrenExecutor, shared_executor

        if self._owns_executor and self._executor is not None:
            self._executor.shutdown(wait=False)
        initializer = self.backend_kwargs.get("initializer")
        self._owns_executor = initializer is not None
        if initializer is None:
            return shared_executor(config, n_jobs)
        return WrenExecutor(n_jobs, initializer, tuple(self.backend_kwargs.get("initargs", ())), config=config)

    def submit(self, func: BatchedCalls, callback: Callable[[Future[Any]], Any] | None = None) -> Future[Any]:
        """Queue a batch; never raises and never waits, as joblib holds its lock."""
        executor = self._executor
        assert executor is not None
        state = self._state(getattr(callback, "parallel", None) or self.parallel)
        future: Future[Any] = Future()
        state.futures.add(future)
        future.add_done_callback(state.futures.discard)
        if callback is not None:
            future.add_done_callback(callback)
        try:
            executor.feed(lambda: self._send(executor, state, func, future))
        except RuntimeError as error:  # shut down meanwhile
            _end(future, error)
        return future

    def _send(self, executor: WrenExecutor, state: _ParallelState, batch: BatchedCalls, future: Future[Any]) -> None:
        """On the feeder thread: pickle and queue. What goes wrong is the future's, or joblib would wait for ever."""
        try:
            _share_arguments(batch, state)
            executor.submit_with(
                run_joblib_batch,
                (batch, self.inner_max_num_threads),
                {},
                future=future,
                seen=state.seen,
                shared_from_bytes=self._shared_from_bytes,
                environment=self._thread_limits(),
            )
        except BaseException as error:  # noqa: BLE001  reported through the future
            _end(future, error)

    def _thread_limits(self) -> tuple[tuple[str, str], ...]:
        if self.inner_max_num_threads is None:
            return ()
        return tuple((name, str(self.inner_max_num_threads)) for name in self.MAX_NUM_THREADS_VARS)

    def _state(self, parallel: Any) -> _ParallelState:
        with self._lock:
            return self._states.setdefault(parallel, _ParallelState())

    def retrieve_result_callback(self, out: Future[Any]) -> list[Any]:
        """Results of a batch, or its exception raised; `out` is done."""
        try:
            seconds, results = out.result()
        except SerializationError as error:
            raise SerializationError(f"Could not pickle the task to send it to the workers: {error}") from error
        if results:
            each = seconds / len(results)
            self._item_s = each if self._item_s is None else 0.7 * self._item_s + 0.3 * each
        return list(results)

    def compute_batch_size(self) -> int:
        """Items for the next batch: as many as make it worth joblib's own overhead, at most twice as many as before."""
        if self._item_s is not None:
            wanted = _MOST_IN_BATCH if self._item_s <= 0 else int(_BATCH_TARGET_S / self._item_s)
            self._batch_size = max(1, min(wanted, 2 * self._batch_size, _MOST_IN_BATCH))
        return self._batch_size

    def start_call(self) -> None:
        """A `Parallel` call begins: what is known of items' durations was another function's."""
        self._batch_size, self._item_s = 1, None

    def stop_call(self) -> None:
        """A `Parallel` call is over: let go of its arrays."""
        with self._lock:
            self._states.pop(self.parallel, None)

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Abandon the calls of those `Parallel` calls that are being aborted; the backend stays usable."""
        with self._lock:
            aborted = [state for one, state in self._states.items() if one is self.parallel or one._aborting]
        if self._executor is not None:
            self._executor.abandon([future for state in aborted for future in list(state.futures)])

    def terminate(self) -> None:
        """The last `Parallel` call under this backend is over."""
        if self._owns_executor and self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None


def _end(future: Future[Any], error: BaseException) -> None:
    if not future.done() and future.set_running_or_notify_cancel():
        future.set_exception(error)


def _shared_from(max_nbytes: int | str | None, mmap_mode: str | None) -> int:
    """From which size on calls get arrays read-only, as loky's memmaps are with the same parameters of `Parallel`."""
    if max_nbytes is None or mmap_mode != "r":
        return 0
    return int(memstr_to_bytes(max_nbytes) if isinstance(max_nbytes, str) else max_nbytes)


def _share_arguments(batch: BatchedCalls, state: _ParallelState) -> None:
    """Pickle large arguments once per `Parallel` call, not per batch, each as blobs of its own."""
    batch.items = [
        (func, tuple(_shared(one, state) for one in args), {name: _shared(one, state) for name, one in kwargs.items()})
        for func, args, kwargs in batch.items
    ]


def _shared(value: Any, state: _ParallelState) -> Any:
    from dask.sizeof import sizeof

    if sizeof(value) < _SHARED_BYTES:
        return value
    known = state.shared.get(id(value))
    if known is None:
        known = state.shared[id(value)] = value, Shared(codec.dumps(value))
    return known[1]


def register() -> None:
    """Make "wren" a backend that `Parallel` and `parallel_config` know by name."""
    register_parallel_backend("wren", WrenBackend)
