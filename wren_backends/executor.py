"""`WrenExecutor`: the `concurrent.futures.Executor` contract on top of the dispatcher."""

from __future__ import annotations

import functools
import itertools
import os
import sys
import threading
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from lambda_worker.batches import run_chunk
from lambda_worker.objects import ObjectStoreError
from lambda_worker.protocol import IN_WORKER_VARIABLE, BlobRef, Bytes, Payload
from wren_backends.attached import AttachedJob
from wren_backends.blobs import SeenBuffers
from wren_backends.bundle import UserModules
from wren_backends.calls import Call, Function, is_repeatable
from wren_backends.carrier import Initializer
from wren_backends.config import Config
from wren_backends.connection import Connection, connect, connect_larger, connect_to_find
from wren_backends.copies import warn_of_lost_writes
from wren_backends.dispatcher import Dispatcher
from wren_backends.errors import ConfigError, SerializationError, StorageError
from wren_backends.events import PROCESS, Journal, Listener, set_log_level_from_environment
from wren_backends.mapping import check_buffersize, chunked, map_buffered, raising, unchunked
from wren_backends.parcels import Parcel, unpack
from wren_backends.pickling import as_serialization_error, dumps, key_of, name_of

T = TypeVar("T")

_FETCHED_AHEAD = 32


class Prepared:
    """A function that was pickled once, to be submitted many times in place of the function itself."""

    def __init__(self, function: Function) -> None:
        self.function = function


class WrenExecutor(Executor):
    """Runs calls on AWS Lambda, or on the local cloud where no AWS bucket is configured.

    It can stand wherever a `ProcessPoolExecutor` stands. Functions may be lambdas, closures, bound methods or defined
    in `__main__`; the user's own modules travel with the calls.

    Args:
        max_workers: Most invocations in flight. Default: `Config.max_workers`.
        initializer: Called once in each execution environment before its first call of this executor. If it raises, the
            executor is broken: pending and later calls end in BrokenWrenExecutor.
        initargs: Its arguments.
        config: Settings. Default: `Config.load(**settings)`.
        connection: Function and bucket to use; default: what `config` names.
        on_event: Called with each `Happening` of the engine, from its threads.
        settings: Any field of `Config`.

    Raises:
        ValueError: `max_workers` is not positive.
        TypeError: `initializer` is not callable.
        ConfigError, DeploymentError: There is nothing to run on; the message says what to do.
        ConfigError: This is inside a call.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        config: Config | None = None,
        connection: Connection | None = None,
        on_event: Listener | None = None,
        **settings: Any,
    ) -> None:
        if os.environ.get(IN_WORKER_VARIABLE):
            raise ConfigError(
                "a WrenExecutor cannot be made inside a call, as calls do not burst again: submit from the client. "
                'joblib\'s backend "wren" and wren_get may be used inside a call: they run in sequence there'
            )
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if config is not None and settings:
            raise ConfigError("give either config= or single settings, not both")
        set_log_level_from_environment()
        self.config = config or Config.load(**settings)
        self.connection = connection or connect(self.config)
        self._max_workers = max_workers or self.config.max_workers or self.connection.max_workers
        self.journal = Journal((on_event,) if on_event else (), parent=PROCESS)
        self.job_id = f"j-{uuid.uuid4().hex[:20]}"
        self._dispatcher = Dispatcher(
            self.config,
            self.connection,
            self.job_id,
            self._max_workers,
            self.journal,
            larger=connect_larger(self.config),
        )
        self._modules = UserModules(self._dispatcher.blobs, architecture=self.connection.architecture)
        # An executor that is dropped without shutdown finishes what it was given; the dispatcher does not refer to it.
        self._finalizer = weakref.finalize(self, self._dispatcher.close, wait=False, cancel=False)
        self._finalizer.atexit = False
        if initializer is not None:
            self._set_initializer(initializer, initargs)

    @classmethod
    def attach(
        cls,
        job_id: str,
        *,
        config: Config | None = None,
        connection: Connection | None = None,
        patience_s: float | None = None,
        on_event: Listener | None = None,
        **settings: Any,
    ) -> AttachedJob:
        """Come back to a job of mode `s3` from another process, whatever became of the one that made it.

        Nothing is written or submitted, so several processes may do this at once, also while the first client lives.

        Args:
            job_id: The job: `WrenExecutor.job_id` there, or see `wren jobs list`.
            config: Settings, the same as there. Default: `Config.load(**settings)`.
            connection: Function and bucket to use; default: what `config` names.
            patience_s: After how many seconds without any sign of life of the job its calls without an outcome end in
                EnvironmentLostError. Default: as long as an event may wait in Lambda's queue and run: over an hour.
            on_event: Called with each `Happening`, from threads of ours.
            settings: Any field of `Config`.

        Raises:
            UnknownJobError: There are no objects of such a job.
            ConfigError: It is not a job's id, or the job ran on another function.
            DeploymentError, StorageError: Function or bucket cannot be used.
        """
        if config is not None and settings:
            raise ConfigError("give either config= or single settings, not both")
        set_log_level_from_environment()
        config = config or Config.load(**settings)
        return AttachedJob(
            connection or connect_to_find(config),
            job_id,
            patience_s=patience_s,
            forward_output=config.forward_output,
            on_event=on_event,
        )

    @property
    def _broken(self) -> Any:
        """What ProcessPoolExecutor has under this name: truthy once the executor is broken."""
        return self._dispatcher.broken or False

    @property
    def is_over(self) -> bool:
        """Whether calls end in BrokenWrenExecutor from now on: it is broken, or the local cloud has ended."""
        return bool(self._broken) or self.connection.is_gone()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have `fn(*args, **kwargs)` called in an execution environment.

        What is passed is fixed when this returns: later changes to it are not seen, and what the call writes to its
        arguments stays in its copies of them. A UserWarning says so for arrays over files that are mapped for writing.

        Returns:
            A standard Future. It holds a SerializationError if something cannot be pickled.

        Raises:
            RuntimeError: After `shutdown`.
            BrokenWrenExecutor: After a failed initializer.
        """
        warn_of_lost_writes(args, kwargs, lambda: fn.function.name if isinstance(fn, Prepared) else name_of(fn))
        return self.submit_with(fn, args, kwargs)

    def submit_with(
        self,
        fn: Callable[..., T] | Prepared,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        future: Future[T] | None = None,
        name: str | None = None,
        kind: str | None = None,
        seen: SeenBuffers | None = None,
        needs_modules: bool = False,
        shared_from_bytes: int = 0,
        environment: tuple[tuple[str, str], ...] = (),
        repeatable: bool = True,
        on_call: Callable[[Call], object] | None = None,
        retries: int | None = None,
        apart: bool = False,
        enlarged: bool = False,
    ) -> Future[T]:
        """As `submit`, with what the adapters need beyond it.

        Args:
            fn: The function, or one that `prepare` made.
            args: Positional arguments.
            kwargs: Keyword arguments.
            future: The Future to use; default: a new one.
            name: How messages name the call; default: after its function.
            kind: What calls that take about as long have in common; default: the function's name.
            seen: Large buffers that need no hashing.
            needs_modules: Whether the user's modules are needed even if neither function nor arguments name them.
            shared_from_bytes: See `WireCall`.
            environment: Environment variables to set while the call runs.
            repeatable: Whether the call may be run again; that of the function counts too.
            on_call: Is given the call before it is queued; not called if something cannot be pickled.
            retries: Further attempts if it raises; default: `Config.retries`.
            apart: The function returns `lambda_worker.parcels.Apart`, and the future is to hold a `Landed`.
            enlarged: Have it run on the function with more memory, if there is one.
        """
        self._dispatcher.check_open()
        future = InterruptibleFuture(self._dispatcher.abandon) if future is None else future
        try:
            function = fn.function if isinstance(fn, Prepared) else self.prepare(fn).function
            arguments, modules = self._pickle((args, kwargs), f"the arguments of {name or function.name}", seen)
            if needs_modules and modules is None:
                modules = self._modules.bundle()
        except Exception as error:  # noqa: BLE001  pickling runs the user's code
            if future.set_running_or_notify_cancel():
                future.set_exception(as_serialization_error(error))
            return future
        may_repeat = repeatable and function.repeatable
        call = Call(
            seq=self._dispatcher.numbers.next(),
            future=future,
            function=function,
            name=name or function.name,
            kind=kind or function.name,
            arguments=arguments,
            modules=modules or function.modules,
            retries_left=(self.config.retries if retries is None else retries) if may_repeat else 0,
            shared_from_bytes=shared_from_bytes,
            environment=environment,
            repeatable=may_repeat,
            apart=apart,
            enlarged=enlarged,
        )
        if on_call is not None:
            on_call(call)
        self._dispatcher.submit(call)
        return future

    def names_modules(self, *pickles: Bytes) -> bool:
        """Whether any of `pickles` names one of the user's own modules."""
        return self._modules.named_by(*pickles)

    def parcel(self, value: object, what: str) -> Parcel:
        """Pickle a value once for many calls, among whose arguments it may then be; raises SerializationError.

        Args:
            value: The value.
            what: How a message names it.
        """
        payload, modules = self._pickle(value, what)
        return Parcel(payload, modules is not None)

    def open_parcels(self, parcels: Iterable[Parcel]) -> Iterator[Any]:
        """The values of parcels, in order, a few of them being fetched ahead.

        Raises:
            MissingObjectError: A part of one is gone from the bucket.
            StorageError: S3 could not be used, or an object was tampered with.
            SerializationError: A value cannot be unpickled here.
        """
        waiting = iter(parcels)
        ahead: deque[Future[list[Bytes]]] = deque()
        try:
            while True:
                ahead.extend(self._fetch(one) for one in itertools.islice(waiting, _FETCHED_AHEAD - len(ahead)))
                if not ahead:
                    return
                yield unpack(ahead.popleft().result, "the value of a call")
        finally:
            for one in ahead:
                one.cancel()

    def _fetch(self, parcel: Parcel) -> Future[list[Bytes]]:
        if parcel.refs:
            return self._dispatcher.fetch(parcel.payload)
        found: Future[list[Bytes]] = Future()
        found.set_result([part for part in parcel.payload if not isinstance(part, BlobRef)])
        return found

    def missing(self, refs: Collection[BlobRef]) -> set[BlobRef]:
        """Those of `refs` that are not in the bucket; raises StorageError."""
        try:
            return self._dispatcher.missing(refs).result() if refs else set()
        except ObjectStoreError as error:
            raise StorageError(f"the bucket cannot be looked into: {error}. Check bucket and credentials") from error

    def discard(self, refs: Collection[BlobRef]) -> None:
        """Delete objects that calls made and that nobody needs any more, in the background."""
        self._dispatcher.sweep(refs)

    def share(self, data: Bytes, seen: SeenBuffers) -> None:
        """Hash a buffer that many calls will carry, for `submit_with(seen=)`."""
        seen.add(data, self._dispatcher.blobs)

    def abandon(self, futures: Collection[Future[Any]] | None = None) -> None:
        """Cancel the calls that wait, and stop waiting for those that run: their slots are free at once.

        Ctrl-C in `Future.result` does this. Workers begin no further call of theirs, but Lambda cannot be told to stop
        the one that runs: it runs to its end, and is billed.

        Args:
            futures: Of calls of this executor; None: of all of them.
        """
        self._dispatcher.abandon(futures)

    def feed(self, step: Callable[[], object]) -> None:
        """Run `step` soon on a thread of the dispatcher, in order: for adapters that may not pickle where they are."""
        self._dispatcher.feed(step)

    def prepare(self, fn: Callable[..., Any]) -> Prepared:
        """Pickle a function once for many calls; raises SerializationError."""
        name = name_of(fn)
        parts = dumps(fn, f"the function {name}")
        payload = self._dispatcher.blobs.take(parts, kept=True)
        modules = self._modules.needed_by(parts[0])
        return Prepared(Function(name, key_of(payload), payload, modules, _is_repeatable(fn)))

    def refresh_modules(self) -> None:
        """See edits of the user's modules from the next call on."""
        self._modules.refresh()

    def leave_out_modules(self, names: Collection[str]) -> None:
        """Keep modules whose file or folder has one of these texts in its path from travelling, from now on."""
        self._modules.leave_out(names)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """As `concurrent.futures.Executor.map`; the function is pickled once.

        Args:
            fn: Called with one item of each iterable.
            iterables: Read to the end of the shortest at once, unless `buffersize` is given.
            timeout: Seconds from now within which each result has to be there; then TimeoutError.
            chunksize: Items for one call. The dispatcher already sends small calls together, so this is seldom needed.
            buffersize: Most calls that are submitted ahead of the result asked for (Python 3.14's parameter).

        Raises:
            ValueError: `chunksize` or `buffersize` is below 1.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        check_buffersize(buffersize)
        try:
            if chunksize == 1:
                return self._map(self.prepare(fn), iterables, timeout, buffersize)
            chunks = chunked(zip(*iterables, strict=False), chunksize)
            lists = self._map(self.prepare(functools.partial(run_chunk, fn)), (chunks,), timeout, buffersize)
            return unchunked(lists)
        except SerializationError as error:
            return raising(error)

    def _map(
        self, prepared: Any, iterables: tuple[Iterable[Any], ...], timeout: float | None, buffersize: int | None
    ) -> Iterator[Any]:
        if buffersize is None:
            return super().map(prepared, *iterables, timeout=timeout)
        if sys.version_info >= (3, 14):
            return super().map(prepared, *iterables, timeout=timeout, buffersize=buffersize)
        return map_buffered(weakref.ref(self), prepared, zip(*iterables, strict=False), timeout, buffersize)

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> bool | None:
        """End it as `shutdown` does, but after Ctrl-C wait for nothing: what runs is abandoned."""
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._dispatcher.abandon()
        return super().__exit__(kind, *rest)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls.

        Args:
            wait: Return only when every submitted call has ended and the threads are gone.
            cancel_futures: Cancel the calls that no invocation carries yet.
        """
        self._dispatcher.close(wait=wait, cancel=cancel_futures)

    def _set_initializer(self, initializer: Callable[..., object], initargs: tuple[Any, ...]) -> None:
        try:
            payload, modules = self._pickle((initializer, tuple(initargs)), "the initializer", kept=True)
        except SerializationError:
            self.shutdown()
            raise
        self._dispatcher.set_initializer(Initializer(payload, modules))

    def _pickle(
        self, value: object, what: str, seen: SeenBuffers | None = None, *, kept: bool = False
    ) -> tuple[Payload, BlobRef | None]:
        parts = dumps(value, what)
        return self._dispatcher.blobs.take(parts, seen=seen, kept=kept), self._modules.needed_by(parts[0])


class InterruptibleFuture(Future[T]):
    """A standard Future; Ctrl-C while waiting for it abandons the calls of its executor, as nobody waits for them.

    Args:
        abandon: Does that.
    """

    def __init__(self, abandon: Callable[[], None]) -> None:
        super().__init__()
        self._abandon = abandon

    def result(self, timeout: float | None = None) -> T:
        """As `Future.result`."""
        try:
            return super().result(timeout)
        except KeyboardInterrupt:
            self._abandon()
            raise

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As `Future.exception`."""
        try:
            return super().exception(timeout)
        except KeyboardInterrupt:
            self._abandon()
            raise

    def __reduce__(self) -> Any:
        """Say what to do instead, where the standard Future complains about a lock of its own."""
        raise SerializationError(
            "the Future of a call cannot leave the process that made it: pass on its result(), or, from a job of mode "
            "`s3`, the job's id for WrenExecutor.attach; the futures of wren_backends.pywren can be pickled"
        )


def _is_repeatable(fn: Callable[..., Any]) -> bool:
    if isinstance(fn, functools.partial) and fn.func is run_chunk and fn.args:
        fn = fn.args[0]
    return is_repeatable(fn)


_shared: dict[tuple[Config, int | None], WrenExecutor] = {}
_shared_lock = threading.Lock()


def shared_executor(config: Config, max_workers: int | None = None) -> WrenExecutor:
    """The executor that adapters without a lifetime of their own share; it lives until the process ends."""
    with _shared_lock:
        found = _shared.get((config, max_workers))
        if found is None or found.is_over:
            found = _shared[config, max_workers] = WrenExecutor(max_workers, config=config)
    return found


def _forget_shared() -> None:
    global _shared_lock  # noqa: PLW0603  the lock may have been held by a thread that the child does not have
    _shared_lock = threading.Lock()
    _shared.clear()


os.register_at_fork(after_in_child=_forget_shared)
