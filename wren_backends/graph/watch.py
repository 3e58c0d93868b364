"""What dask's callbacks are told, and the state that they look at: ProgressBar, Profiler, and the user's own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dask.callbacks import unpack_callbacks
from dask.diagnostics.profile import Profiler
from dask.local import finish_task, start_state_from_dask
from dask.typing import Key

from wren_backends.graph.plan import Plan

_BLIND = (Profiler,)
"""Callbacks that are told of values and do not look at them, so that values need not come to the client for them."""


class Watch:
    """The callbacks of one computation.

    Args:
        callbacks: Tuples of five, as `dask.callbacks.Callback` makes them.
    """

    def __init__(self, callbacks: Iterable[Any]) -> None:
        self._callbacks = list(callbacks)
        _, _, self._pretask, self._posttask, _ = unpack_callbacks(self._callbacks)
        self._started: list[Any] = []
        self._graph: Mapping[Key, Any] = {}
        self._state: dict[str, Any] = {}
        self._plan: Plan | None = None
        self._aliases: defaultdict[Key, list[Key]] = defaultdict(list)

    @property
    def wants_values(self) -> bool:
        """Whether a callback is told of every task's value, so that every value has to come here."""
        return any(not isinstance(getattr(told, "__self__", None), _BLIND) for told in self._posttask)

    def begin(self, graph: dict[Key, Any]) -> None:
        """Tell of the graph, which callbacks may change."""
        for callback in self._callbacks:
            if callback[0]:
                callback[0](graph)
            self._started.append(callback)
        self._graph = graph

    def planned(self, plan: Plan) -> None:
        """Tell of the state at the beginning."""
        if not self._callbacks:
            return
        self._plan, self._graph = plan, plan.nodes
        self._aliases.clear()
        for alias in plan.targets:
            self._aliases[plan.nodes[alias].target].append(alias)
        self._state = start_state_from_dask(dict(plan.nodes), keys=plan.wanted, sortkey=plan.rank.get)
        for _, start_state, *_ in self._callbacks:
            if start_state:
                start_state(self._graph, self._state)

    def sent(self, keys: Iterable[Key]) -> None:
        """Tasks are under way."""
        for key in keys if self._plan else ():
            if key not in self._state["finished"] and key not in self._state["running"]:
                self._start(key)

    def finished(self, values: Mapping[Key, Callable[[], Any]], worker: str) -> None:
        """Tasks are done.

        Args:
            values: For each how its value is had; it is asked for where a callback looks at values.
            worker: Where they ran.
        """
        for key in values if self._plan else ():
            if key not in self._state["finished"]:
                value = values[key]() if self.wants_values else None
                self._finish(key, value, worker)
                self._follow_aliases(key, value, worker)

    def end(self, *, failed: bool) -> None:
        """Tell those who were told of the beginning."""
        for *_, finish in self._started:
            if finish:
                finish(self._graph, self._state, failed)

    def _start(self, key: Key) -> None:
        ready = self._state["ready"]
        for index in range(len(ready) - 1, -1, -1):  # dask's order has what goes next at the end
            if ready[index] == key:
                del ready[index]
                break
        self._state["running"].add(key)
        for callback in self._pretask:
            callback(key, self._graph, self._state)

    def _finish(self, key: Key, value: Any, worker: str) -> None:
        assert self._plan is not None
        self._state["cache"][key] = value
        finish_task(self._graph, key, self._state, self._plan.wanted, self._plan.rank.get)
        for callback in self._posttask:
            callback(key, value, self._graph, self._state, worker)

    def _follow_aliases(self, key: Key, value: Any, worker: str) -> None:
        """An alias is done as soon as what it stands for."""
        assert self._plan is not None
        for alias in self._aliases.get(key, ()):
            if alias not in self._state["finished"]:
                self._start(alias)
                self._finish(alias, value, worker)
                self._follow_aliases(alias, value, worker)
