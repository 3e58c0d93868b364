"""`Executor`: PyWren's `map`, `call_async`, `reduce` and `get_logs`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from wren_backends.pywren.future import ResponseFuture
from wren_backends.pywren.invokers import Invoker
from wren_backends.pywren.logs import invocation_log
from wren_backends.pywren.wait import wait

_RESERVED = frozenset(
    {"call_id", "callset_id", "cancel_key", "data_byte_range", "data_key", "extra_env", "func_key", "host_submit_time"}
    | {"job_max_runtime", "output_key", "pywren_version", "runtime", "runtime_url", "status_key", "storage_config"}
    | {"use_cached_runtime"}
)
"""Names that `extra_meta` may not have: PyWren's own in an event (pywren/executor.py, `invoke_with_keys`)."""

_VERSION = "0.4.0"


class Executor:
    """Runs calls as PyWren's executor did; `wren_backends.pywren.default_executor` makes one.

    It needs no closing: it ends when nobody refers to it and its calls have ended. It may be used as a context
    manager, which waits for that.

    Args:
        invoker: Has the calls run.
        config: What the factory was given as `config=`.
        job_max_runtime: Time limit of a call in seconds; None: the function's.
        map_item_limit: Most items of one map; None: any number.
    """

    def __init__(
        self,
        invoker: Invoker,
        config: Any = None,
        job_max_runtime: float | None = None,
        map_item_limit: int | None = None,
    ) -> None:
        self.invoker = invoker
        self.config = config
        self.job_max_runtime = job_max_runtime
        self.map_item_limit = map_item_limit

    def call_async(
        self,
        func: Callable[[Any], Any],
        data: Any,
        extra_env: Mapping[str, str] | None = None,
        extra_meta: Mapping[str, Any] | None = None,
    ) -> ResponseFuture:
        """Have `func(data)` called; see `map`."""
        return self.map(func, [data], extra_env, extra_meta)[0]

    def map(
        self,
        func: Callable[[Any], Any],
        iterdata: Iterable[Any],
        extra_env: Mapping[str, str] | None = None,
        extra_meta: Mapping[str, Any] | None = None,
        invoke_pool_threads: int = 64,
        data_all_as_one: bool = True,
        use_cached_runtime: bool = True,
        overwrite_invoke_args: Mapping[str, Any] | None = None,
        exclude_modules: Sequence[str] | None = None,
    ) -> list[ResponseFuture]:
        """Have `func` called with each item.

        Args:
            func: The function.
            iterdata: The items; read to the end at once.
            extra_env: Environment variables that are set while the calls run.
            extra_meta: Is found again in `invoke_status`.
            invoke_pool_threads: Without effect: one thread sends all calls.
            data_all_as_one: Without effect: what is large travels once, by content.
            use_cached_runtime: Without effect: there is no runtime to fetch.
            overwrite_invoke_args: Is found again in `invoke_status`, in place of what else it says.
            exclude_modules: Modules of yours whose path has one of these texts in it do not travel.

        Returns:
            A future for each item, in order.

        Raises:
            SerializationError: The function cannot be pickled. If an item cannot, its future holds the error.
            ValueError: There are too many items, or `extra_meta` has a name of PyWren's own.
            TypeError: A variable's value is not text.
        """
        data = list(iterdata)
        if not data:
            return []
        self._check(data, extra_env or {}, extra_meta or {})
        begun = time.time()
        submit = self.invoker.begin(func, dict(extra_env or {}), _texts(exclude_modules))
        prepared = time.time()
        # uuid4 as PyWren's; what is unpickled here is looked for under it
        callset_id, place, described = uuid.uuid4().hex, self.invoker.place(), self.invoker.config()
        common = {
            **described,
            "agg_data": False,
            "func_upload_time": prepared - begun,
            "func_upload_timestamp": prepared,
            "job_max_runtime": self.job_max_runtime,
            "pywren_version": _VERSION,
            "use_cached_runtime": use_cached_runtime,
            **({"extra_env": dict(extra_env)} if extra_env else {}),
        }
        futures = []
        for number, item in enumerate(data):
            call_id, submitted = f"{number:05d}", time.time()
            future = submit(item)
            own = {
                "call_id": call_id,
                "callset_id": callset_id,
                "job_invoke_timestamp": submitted,
                "host_submit_time": submitted,
                "data_upload_time": time.time() - submitted,
                "data_upload_timestamp": time.time(),
            }
            metadata = {**common, **own, **(extra_meta or {}), **(overwrite_invoke_args or {})}
            futures.append(ResponseFuture(call_id, callset_id, metadata, place, future))
        return futures

    def _check(self, data: Sequence[Any], environment: Mapping[str, str], meta: Mapping[str, Any]) -> None:
        if self.map_item_limit is not None and len(data) > self.map_item_limit:
            raise ValueError(
                f"{len(data)} items are more than the map_item_limit of {self.map_item_limit} in config['scheduler']: "
                "map over fewer, or leave it out"
            )
        for name in meta:
            if name in _RESERVED:
                raise ValueError(f"extra_meta: the name {name!r} is PyWren's own")
        for name, value in environment.items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise TypeError(f"extra_env: {name!r}: {value!r} is not text, as environment variables are")

    def reduce(
        self,
        function: Callable[[list[Any]], Any],
        list_of_futures: Iterable[ResponseFuture],
        extra_env: Mapping[str, str] | None = None,
        extra_meta: Mapping[str, Any] | None = None,
    ) -> ResponseFuture:
        """Wait for the futures, and have `function` called with the list of their results.

        If one of them raised, so does the future that is returned, and `function` is not called.

        Args:
            function: The function.
            list_of_futures: Futures of any executor.
            extra_env: See `map`.
            extra_meta: See `map`.
        """
        futures = list(list_of_futures)
        wait(futures)
        failed = next((future for future in futures if future.errored()), None)
        if failed is None:
            return self.call_async(function, [future.result() for future in futures], extra_env, extra_meta)
        return failed

    def get_logs(self, future: ResponseFuture, verbose: bool = True) -> list[tuple[int, str]]:
        """What the invocation that ran a call wrote to its log, which other calls may have travelled in.

        On AWS lines arrive in CloudWatch some seconds after they were written.

        Args:
            future: Of the call; it is waited for.
            verbose: Print the lines as well.

        Returns:
            Time in milliseconds since 1970, and text, of each line.

        Raises:
            ValueError: The call did not run on Lambda, or ended without a word of where.
            DeploymentError: CloudWatch refuses.
        """
        future.result(throw_except=False)
        found = invocation_log(future)
        if verbose:
            for moment, text in found:
                print(moment, text)  # noqa: T201  what `verbose` is for
        return found

    def shutdown(self) -> None:
        """Take no more calls, and return when all have ended."""
        self.invoker.close()

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()


def _texts(names: Sequence[str] | None) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())
