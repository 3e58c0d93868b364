"""The joblib backend "wren": `joblib.parallel.ParallelBackendBase` on top of the executor.

joblib calls `submit` under its own lock, sometimes on our resolver thread, so that nothing slow may happen there:
pickling, hashing and queueing are done on the dispatcher's feeder thread, and results are unpickled before joblib hears
of them.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any

from joblib import register_parallel_backend
from joblib.disk import memstr_to_bytes
from joblib.parallel import (
    BatchCompletionCallBack,
    BatchedCalls,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
)

from lambda_worker import codec
from lambda_worker.batches import BatchResults, Shared, run_joblib_batch
from lambda_worker.protocol import IN_WORKER_VARIABLE, Bytes
from wren_backends.blobs import SeenBuffers
from wren_backends.calls import is_repeatable
from wren_backends.config import Config
from wren_backends.connection import default_max_workers
from wren_backends.copies import warn_of_lost_writes
from wren_backends.errors import CallExitedError, SerializationError

if TYPE_CHECKING:
    from wren_backends.executor import WrenExecutor

_BATCH_TARGET_S = 0.02
"""Compute time that joblib's batches grow to: it spends some 0.3 ms of the client's CPU on each. Calls that wait are
grouped for the sake of Lambda's own latency by the dispatcher, which knows how many slots are free."""

_MOST_IN_BATCH = 1000
_SHARED_BYTES = 100_000
"""Arguments from this size on travel on their own: dask does so from 1 kB, loky (as memmaps, arrays only) from 1 MB."""

_JOBLIBS_OWN = frozenset({"max_nbytes", "temp_folder", "mmap_mode", "context", "verbose", "idle_worker_timeout"})


class _ParallelState:
    """What belongs to one `Parallel`: one backend instance serves many, nested and interleaved ones.

    Args:
        executor: Runs its batches.
    """

    def __init__(self, executor: WrenExecutor) -> None:
        self.executor = executor
        self.futures: set[Future[Any]] = set()
        self._call_id: object = None
        self._seen = SeenBuffers()
        self._shared: dict[int, _SharedArgument] = {}
        self._warned = False

    def begin(self, call_id: object) -> None:
        """Between two calls of one `Parallel` the user may have changed an array: nothing is known of it any more."""
        if call_id != self._call_id:
            self._call_id, self._seen, self._shared, self._warned = call_id, SeenBuffers(), {}, False

    def warn_of_lost_writes(self, batch: BatchedCalls) -> None:
        """Warn once per call of `Parallel` if its calls may write to what they only have copies of."""
        for _, args, kwargs in () if self._warned else batch.items:
            self._warned = self._warned or warn_of_lost_writes(args, kwargs, lambda: _name_of(batch))

    @property
    def seen(self) -> SeenBuffers:
        """Buffers of the shared arguments."""
        return self._seen

    def share_arguments(self, batch: BatchedCalls) -> bool:
        """Put large arguments' stand-ins into a batch: each is pickled and hashed once per call of `Parallel`.

        Returns:
            Whether any of them names one of the user's modules.
        """
        from dask.sizeof import sizeof  # with dask behind it, it is imported when needed

        named = False

        def one(value: Any) -> Any:
            nonlocal named
            if sizeof(value) < _SHARED_BYTES:
                return value
            known = self._shared.get(id(value))
            if known is None:
                known = self._shared[id(value)] = self._share(value)
            named = named or known.names_modules
            return known.stand_in

        batch.items = [
            (func, tuple(map(one, args)), {name: one(value) for name, value in kwargs.items()})
            for func, args, kwargs in batch.items
        ]
        return named

    def _share(self, value: Any) -> _SharedArgument:
        self._let_go()
        parts = codec.dumps(value)
        for part in parts:
            if len(part) >= _SHARED_BYTES:
                self.executor.share(part, self._seen)
        return _SharedArgument(value, parts, Shared(parts), self.executor.names_modules(parts[0]))

    def _let_go(self) -> None:
        """Forget arguments that nobody else refers to any more: they will not come by again."""
        for key, known in list(self._shared.items()):
            # Ours: the dataclass's field, the argument of getrefcount, and buffers of an array (or of its transpose).
            exporters = [part.obj for part in known.parts if isinstance(part, memoryview)]
            ours = 2 + sum(known.value is one or known.value is getattr(one, "base", None) for one in exporters)
            if sys.getrefcount(known.value) <= ours:
                del self._shared[key]
                for part in known.parts:
                    self._seen.discard(part)


@dataclass(frozen=True, slots=True)
class _SharedArgument:
    """A large argument. `value` keeps its id, and `parts` their addresses, from being given to others."""

    value: Any
    parts: tuple[Bytes, ...]
    stand_in: Shared
    names_modules: bool


@dataclass(frozen=True, slots=True)
class _OwnExecutor:
    """An executor that is not shared with other backends, as it has an initializer, and what it was made with."""

    config: Config
    n_jobs: int
    initializer: Any
    initargs: tuple[Any, ...]
    executor: WrenExecutor

    def was_made_with(self, config: Config, n_jobs: int, initializer: Any, initargs: tuple[Any, ...]) -> bool:
        """By identity, as arguments need not compare: arrays do not."""
        ours, theirs = (self.initializer, *self.initargs), (initializer, *initargs)
        same = len(ours) == len(theirs) and all(one is other for one, other in zip(ours, theirs, strict=True))
        return same and (self.config, self.n_jobs) == (config, n_jobs)


class WrenBackend(ParallelBackendBase):  # type: ignore[misc]
    """Runs joblib's batches as calls of a `WrenExecutor`.

    Parameters of `parallel_config(backend="wren", ...)` and `Parallel(backend="wren", ...)` are the fields of `Config`,
    `initializer` and `initargs`.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    supports_sharedmem = False
    uses_threads = False
    default_n_jobs = -1

    # Names of joblib's `AutoBatchingMixin` and of its own backends, which its tests look at.
    _DEFAULT_EFFECTIVE_BATCH_SIZE = 1
    _DEFAULT_SMOOTHED_BATCH_DURATION = 0.0

    def __init__(
        self, nesting_level: int | None = None, inner_max_num_threads: int | None = None, **backend_kwargs: Any
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads, **backend_kwargs)
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._states: weakref.WeakKeyDictionary[Any, _ParallelState] = weakref.WeakKeyDictionary()
        self._own: list[_OwnExecutor] = []
        self._shared_from_bytes = 0
        self._workers: object | None = None
        self._effective_batch_size = self._DEFAULT_EFFECTIVE_BATCH_SIZE
        self._smoothed_batch_duration = self._DEFAULT_SMOOTHED_BATCH_DURATION
        self._has_durations = False

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Calls that can run at once: `n_jobs`, or for -1 as many as there may be invocations in flight.

        None means -1, as it does for a `Parallel` on this backend.

        Raises:
            ValueError: `n_jobs` is 0.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if os.environ.get(IN_WORKER_VARIABLE):
            return 1
        n_jobs = self.default_n_jobs if n_jobs is None else n_jobs
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
        given = {name: value for name, value in kwargs.items() if name not in _JOBLIBS_OWN}
        config = self._config(given)
        if self._pid != os.getpid():  # the process was forked, and what is here is the parent's
            self._lock, self._pid, self._own = threading.Lock(), os.getpid(), []
            self._states = weakref.WeakKeyDictionary()
        with self._lock:
            executor = self._open_executor(config, n_jobs, {**self.backend_kwargs, **given})
            self._states[parallel] = _ParallelState(executor)
            self._workers = object()
        executor.refresh_modules()
        return n_jobs

    def _config(self, more: dict[str, Any]) -> Config:
        given = {**self.backend_kwargs, **more}
        return Config.load(**{name: given[name] for name in given if name not in ("initializer", "initargs")})

    def _open_executor(self, config: Config, n_jobs: int, given: dict[str, Any]) -> WrenExecutor:
        # Imported when first needed: with its HTTP client it takes longer than everything else here.
        from wren_backends.executor import WrenExecutor, shared_executor

        initializer, initargs = given.get("initializer"), tuple(given.get("initargs") or ())
        if initializer is None:
            return shared_executor(config, n_jobs)
        for one in self._own:
            if one.was_made_with(config, n_jobs, initializer, initargs) and not one.executor.is_over:
                return one.executor
        executor = WrenExecutor(n_jobs, initializer, initargs, config=config)
        self._own.append(_OwnExecutor(config, n_jobs, initializer, initargs, executor))
        return executor

    def submit(self, func: BatchedCalls, callback: BatchCompletionCallBack | None = None) -> Future[Any]:
        """Queue a batch; never raises and never waits, as joblib holds its lock."""
        assert callback is not None, "joblib always passes one"
        with self._lock:
            state = self._states[callback.parallel]
        state.begin(callback.parallel_call_id)
        future: Future[Any] = Future()
        state.futures.add(future)
        future.add_done_callback(state.futures.discard)
        future.add_done_callback(callback)
        try:
            state.executor.feed(lambda: self._send(state, func, future))
        except RuntimeError as error:  # shut down meanwhile
            _end(future, error)
        return future

    def _send(self, state: _ParallelState, batch: BatchedCalls, future: Future[Any]) -> None:
        """On the feeder thread: pickle and queue. What goes wrong is the future's, or joblib would wait for ever."""
        if future.cancelled():
            return
        try:
            name = _name_of(batch)
            state.warn_of_lost_writes(batch)
            state.executor.submit_with(
                run_joblib_batch,
                (batch, self.inner_max_num_threads),
                {},
                future=future,
                name=name,
                kind=name,
                needs_modules=_share_arguments(batch, state),
                seen=state.seen,
                shared_from_bytes=self._shared_from_bytes,
                environment=self._thread_limits(),
                repeatable=all(is_repeatable(func) for func, _, _ in batch.items),
            )
        except BaseException as error:  # noqa: BLE001  reported through the future
            _end(future, error)

    def _thread_limits(self) -> tuple[tuple[str, str], ...]:
        if self.inner_max_num_threads is None:
            return ()
        return tuple((name, str(self.inner_max_num_threads)) for name in self.MAX_NUM_THREADS_VARS)

    def retrieve_result_callback(self, out: Future[Any]) -> list[Any]:
        """Results of a batch, or its exception raised; `out` is done.

        Raises:
            KeyboardInterrupt: A call raised it; with joblib's own backends too it ends the whole `Parallel` call.
        """
        try:
            results: BatchResults = out.result()
        except CallExitedError as error:
            if error.interrupted:
                raise KeyboardInterrupt from error
            raise
        if results:
            each, known = results.seconds / len(results), self._smoothed_batch_duration
            self._smoothed_batch_duration = 0.7 * known + 0.3 * each if self._has_durations else each
            self._has_durations = True
        return list(results)

    def compute_batch_size(self) -> int:
        """Items for the next batch: as many as make it worth joblib's own overhead, at most twice as many as before."""
        if self._has_durations:
            item_s = self._smoothed_batch_duration
            wanted = _MOST_IN_BATCH if item_s <= 0 else int(_BATCH_TARGET_S / item_s)
            self._effective_batch_size = max(1, min(wanted, 2 * self._effective_batch_size, _MOST_IN_BATCH))
        return self._effective_batch_size

    def start_call(self) -> None:
        """A `Parallel` call begins: what is known of items' durations was another function's."""
        self._forget_durations()

    def _forget_durations(self) -> None:
        self._effective_batch_size = self._DEFAULT_EFFECTIVE_BATCH_SIZE
        self._smoothed_batch_duration = self._DEFAULT_SMOOTHED_BATCH_DURATION
        self._has_durations = False

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Abandon the calls of those `Parallel` calls that are being aborted; the backend stays usable."""
        with self._lock:
            self._workers = object() if ensure_ready else None
            aborted = [(parallel, state) for parallel, state in self._states.items() if parallel._aborting]
        for parallel, state in aborted:
            _clear(parallel._ready_batches)
            state.executor.abandon(list(state.futures))

    def terminate(self) -> None:
        """A `Parallel` call is over; executors of our own end with the last one that uses them."""
        self._forget_durations()
        with self._lock:
            used = {state.executor for one, state in self._states.items() if one._calling or one._managed_backend}
            done = [one for one in self._own if one.executor not in used]
            self._own = [one for one in self._own if one.executor in used]
            if not used:
                self._workers = None
        for one in done:
            one.executor.shutdown(wait=False)


def _clear(ready: Queue[Any]) -> None:
    """Drop the batches that joblib had cut but not sent: joblib 1.6 would run them in the `Parallel`'s next call."""
    with contextlib.suppress(Empty):
        while True:
            ready.get_nowait()


def _end(future: Future[Any], error: BaseException) -> None:
    if not future.done() and future.set_running_or_notify_cancel():
        future.set_exception(error)


def _shared_from(max_nbytes: int | str | None, mmap_mode: str | None) -> int:
    """From which size on calls get arrays read-only, as loky's memmaps are with the same parameters of `Parallel`."""
    if max_nbytes is None or mmap_mode != "r":
        return 0
    return int(memstr_to_bytes(max_nbytes) if isinstance(max_nbytes, str) else max_nbytes)


def _share_arguments(batch: BatchedCalls, state: _ParallelState) -> bool:
    try:
        return state.share_arguments(batch)
    except Exception as error:
        raise SerializationError(
            f"Could not pickle the task to send it to the workers: a large argument: {type(error).__name__}: {error}"
        ) from error


def _name_of(batch: BatchedCalls) -> str:
    """How messages name a batch: after its first function."""
    function = batch.items[0][0] if batch.items else batch
    function = getattr(function, "function", function)  # scikit-learn wraps each in a `_FuncWrapper`
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{getattr(function, '__module__', None) or '?'}.{name}"


def register() -> None:
    """Make "wren" a backend that `Parallel` and `parallel_config` know by name."""
    register_parallel_backend("wren", WrenBackend)
