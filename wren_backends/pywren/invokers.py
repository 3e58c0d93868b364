"""How an `Executor` has calls run: on Lambda, or in this process when it is told to."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from lambda_worker import codec, variables
from lambda_worker.timed import TimedFunction
from wren_backends import pickling
from wren_backends.config import Config
from wren_backends.deploy.log_group import log_group_name
from wren_backends.errors import SerializationError
from wren_backends.executor import WrenExecutor
from wren_backends.pywren.callfuture import CallFuture
from wren_backends.pywren.following import Place

Submit = Callable[[Any], CallFuture]
"""Has the function called with one item."""


class Invoker(Protocol):
    """Runs the calls of an `Executor`."""

    def begin(self, func: Callable[..., Any], environment: Mapping[str, str], left_out: Sequence[str]) -> Submit:
        """Get ready for one map; raises SerializationError if the function cannot be pickled.

        Args:
            func: The function.
            environment: Environment variables of its calls.
            left_out: Parts of the paths of modules that are not to travel.
        """

    def place(self) -> Place | None:
        """Where the outcomes will lie."""

    def config(self) -> dict[str, Any]:
        """What `invoke_status` says of it."""

    def close(self) -> None:
        """Take no more calls, and return when all have ended."""


class LambdaInvoker:
    """Runs calls on Lambda, or on the local cloud.

    Args:
        config: Settings.
    """

    TIME_LIMIT = True

    def __init__(self, config: Config) -> None:
        self._config = config
        self.executor = WrenExecutor(config=config)

    def begin(self, func: Callable[..., Any], environment: Mapping[str, str], left_out: Sequence[str]) -> Submit:
        """See `Invoker`."""
        executor = self.executor = self._open()
        executor.refresh_modules()
        executor.leave_out_modules(left_out)
        function, variables = executor.prepare(TimedFunction(func)), tuple(sorted(environment.items()))

        def submit(item: Any) -> CallFuture:
            # Not of the executor itself, which ends when nobody but its futures is left.
            future = CallFuture(executor._dispatcher.abandon)
            executor.submit_with(
                function,
                (item,),
                {},
                future=future,
                environment=variables,
                on_call=future.carries,
            )
            return future

        return submit

    def _open(self) -> WrenExecutor:
        """The executor, or the next one when a local cloud has ended under it."""
        return WrenExecutor(config=self._config) if self.executor.is_over else self.executor

    def place(self) -> Place:
        """See `Invoker`."""
        function = self.executor.connection.function
        return Place(self._config, self.executor.job_id, log_group_name(function))

    def config(self) -> dict[str, Any]:
        """See `Invoker`."""
        connection = self.executor.connection
        return {"lambda_function_name": connection.function, "region_name": connection.region}

    def close(self) -> None:
        """See `Invoker`."""
        self.executor.shutdown()


class DummyInvoker:
    """Keeps calls until it is told to run them, one after the other in this process; for tests and debuggers.

    They run when `run_jobs` is called, or when somebody waits for one of them: PyWren's waited for ever.
    """

    TIME_LIMIT = False

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._waiting: deque[tuple[tuple[Any, ...], Mapping[str, str], CallFuture]] = deque()
        self.thread: threading.Thread | None = None

    def begin(self, func: Callable[..., Any], environment: Mapping[str, str], left_out: Sequence[str]) -> Submit:
        """See `Invoker`; modules do not travel here."""
        function = _dumps(TimedFunction(func), "the function")

        def submit(item: Any) -> CallFuture:
            future = CallFuture(abandon=lambda _: None, demand=self.run_jobs)
            try:
                self._waiting.append(((function, _dumps(item, "the argument")), environment, future))
            except SerializationError as error:
                future.set_running_or_notify_cancel()
                future.set_exception(error)
            return future

        return submit

    def run_jobs(self, MAXJOBS: int = -1, run_dir: object = None) -> None:
        """Run the calls that wait.

        Args:
            MAXJOBS: How many of them; -1: all.
            run_dir: PyWren's; has no meaning here.
        """
        with self._lock:
            for _ in range(len(self._waiting) if MAXJOBS == -1 else min(MAXJOBS, len(self._waiting))):
                pickles, environment, future = self._waiting.popleft()
                if future.set_running_or_notify_cancel():
                    _run(pickles, environment, future)

    def run_jobs_threaded(self, MAXJOBS: int = -1, run_dir: object = None) -> None:
        """As `run_jobs`, in a thread: `self.thread`."""
        self.thread = threading.Thread(target=self.run_jobs, args=(MAXJOBS, run_dir), name="wren-dummy-invoker")
        self.thread.start()

    def place(self) -> None:
        """See `Invoker`: nowhere but here."""

    def config(self) -> dict[str, Any]:
        """See `Invoker`."""
        return {}

    def close(self) -> None:
        """See `Invoker`."""
        self.run_jobs()


def _dumps(value: object, what: str) -> tuple[Any, ...]:
    """As it is when it is submitted: what is changed later is not seen, as on Lambda."""
    return tuple(bytes(part) for part in pickling.dumps(value, what))


def _run(pickles: tuple[Any, ...], environment: Mapping[str, str], future: CallFuture) -> None:
    try:
        function, item = (codec.loads([first, *map(bytearray, rest)]) for first, *rest in pickles)
        with variables.environment(environment):
            value = function(item)
    except BaseException as error:
        future.set_exception(error)  # or whoever waits for it would do so for ever
        if not isinstance(error, Exception):
            raise
    else:
        future.set_result(value)
