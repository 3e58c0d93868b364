"""`BurstExecutor`: what a dask worker hands tasks to that are to run on Lambda.

It stands in `worker.executors`. A task that it has taken leaves its place among the worker's threads to others
(`distributed.secede` does the same for a thread), until there are as many as Lambda can be kept busy with: the inputs
of each lie in the worker's memory.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

from dask._task_spec import GraphNode, Task
from dask.utils import key_split
from distributed import Reschedule
from distributed.worker import _run_task
from distributed.worker_state_machine import SecedeEvent

from lambda_worker.batches import run_dask_task
from wren_backends.config import Config
from wren_backends.connection import default_max_workers
from wren_backends.executor import Prepared, WrenExecutor
from wren_backends.taskanswer import answer_with, failure, give

_FEWEST_AHEAD, _AHEAD = 256, 4  # as in graph/run.py


class BurstExecutor(Executor):
    """Runs a dask worker's tasks on Lambda.

    Args:
        worker: The `distributed.Worker`.
        config: Settings.
    """

    def __init__(self, worker: Any, config: Config) -> None:
        self._worker = worker
        self._config = config
        self._ahead = max(_FEWEST_AHEAD, _AHEAD * (config.max_workers or default_max_workers(config)))
        self._lock = threading.Lock()
        self._burst: dict[Any, Future[Any]] = {}
        self._held: deque[Any] = deque()
        self._seceded: set[Any] = set()
        # What takes time is done here, in order: starting a local cloud, pickling, hashing.
        self._steps = ThreadPoolExecutor(1, thread_name_prefix="wren-burst")
        self._opened: tuple[WrenExecutor, Prepared] | None = None
        self._ended = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Take what a worker hands over: `_run_task_simple(task, inputs, time delay)`; called on its event loop.

        Returns:
            A Future of what that function returns: a message for the worker.
        """
        if not args or not isinstance(args[0], GraphNode):
            raise TypeError("this executor runs the tasks of a dask worker: use a WrenExecutor for anything else")
        task, inputs, delay_s = args
        if _needs_worker(task):
            return self._run_here(task, inputs, delay_s)
        answer, key = Future[Any](), task.key
        with self._lock:
            self._burst[key] = answer
        self._secede(key)
        answer.add_done_callback(lambda ended: self._on_answered(key, ended))
        self._steps.submit(self._send, task, inputs, delay_s, answer)
        return answer

    def _run_here(self, task: Any, inputs: Any, delay_s: float) -> Future[Any]:
        """On the worker's own threads, as if it had not been annotated."""
        worker = self._worker
        context = worker.execution_state, task.key, worker.active_threads, worker.active_threads_lock
        run: Future[Any] = worker.executors["default"].submit(_run_task, task, inputs, *context, delay_s)
        return run

    # ---- the worker's threads

    def _secede(self, key: Any) -> None:
        with self._lock:
            if len(self._seceded) >= self._ahead:
                self._held.append(key)
                return
            self._seceded.add(key)
        self._worker.loop.add_callback(self._tell_worker, key)

    def _tell_worker(self, key: Any) -> None:
        task = self._worker.state.tasks.get(key)
        if task is not None and task.state == "executing":
            self._worker.handle_stimulus(
                SecedeEvent(key=key, compute_duration=0.0, stimulus_id=f"wren-secede-{time.time()}")
            )

    def _on_answered(self, key: Any, answer: Future[Any]) -> None:
        """However it ended, also by the worker's cancelling it: let the next one leave its place."""
        with self._lock:
            if self._burst.get(key) is answer:
                del self._burst[key]
                self._seceded.discard(key)
            following = next((one for one in self._taken_from_held() if one in self._burst), None)
        if following is not None:
            self._secede(following)

    def _taken_from_held(self) -> Any:
        while self._held:
            yield self._held.popleft()

    # ---- there and back

    def _send(self, task: Any, inputs: Any, delay_s: float, answer: Future[Any]) -> None:
        if answer.done():
            return
        try:
            executor, prepared = self._open()
            call: Future[Any] = executor.submit_with(
                prepared, (task, inputs), {}, name=f"dask key {task.key!r}", kind=key_split(task.key)
            )
        except Exception as error:  # noqa: BLE001  it is the task's
            give(answer, failure(error, 0.0, delay_s))
            return
        answer.add_done_callback(lambda _: None if call.done() else executor.abandon([call]))
        # Weakly, as otherwise both would live, with the result, until Python looks for cycles.
        answered = weakref.ref(answer)
        call.add_done_callback(lambda ended: answer_with(answered(), ended, delay_s))

    def _open(self) -> tuple[WrenExecutor, Prepared]:
        """The executor that is open, or a new one: at first, and when a local cloud has ended."""
        if self._opened is None or self._opened[0].is_over:
            executor = WrenExecutor(config=self._config)
            self._opened = executor, executor.prepare(run_dask_task)
        return self._opened

    # ---- the end

    def drop_cancelled(self, key: Any) -> None:
        """Drop a task if its worker does not want it any more; called on the worker's event loop."""
        task = self._worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            self._drop(key)

    def _drop(self, key: Any) -> None:
        """Abandon a task's call, if it is here: its slot on Lambda is free."""
        with self._lock:
            answer = self._burst.get(key)
        if answer is not None:
            # Should it want it again meanwhile, it has to be told that this attempt brings nothing.
            give(answer, failure(Reschedule(), 0.0, 0.0))

    def abandon(self) -> None:
        """Drop all tasks."""
        with self._lock:
            keys = list(self._burst)
        for key in keys:
            self._drop(key)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks.

        Args:
            wait: Return only when those that there are have ended and the threads are gone.
            cancel_futures: Drop those that there are.
        """
        if cancel_futures:
            self.abandon()
        if not self._ended:
            self._ended = True
            self._steps.submit(self._close)
        self._steps.shutdown(wait=wait)
        if wait and self._opened is not None:
            self._opened[0].shutdown(wait=True)

    def _close(self) -> None:
        if self._opened is not None:
            self._opened[0].shutdown(wait=False)


def _needs_worker(task: Any) -> bool:
    """Whether a task is part of distributed itself, as those of its shuffles are: they talk to the worker."""
    if type(task).__module__.startswith("distributed."):
        return True
    if not isinstance(task, Task):
        return False
    module, name = (str(getattr(task.func, one, "")) for one in ("__module__", "__name__"))
    # dask.dataframe's own steps of a shuffle are `_shuffle_transfer` and `assign_index_merge_transfer`
    if module.startswith("distributed.") or (module.startswith("dask.") and name.endswith("_transfer")):
        return True
    # a fused chain has its tasks, by key, among its arguments
    inner = (one for argument in task.args if isinstance(argument, dict) for one in argument.values())
    return any(isinstance(one, GraphNode) and _needs_worker(one) for one in inner)
