"""Stores into an object of this process, `x.store(array)`: they run here, as tasks elsewhere get copies of the object.

What computes the chunks runs in calls all the same; where dask has made one task of that and of the store, it is taken
apart. They run one after the other, as the lock that dask gives them by default would have them do anyway.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping
from typing import Any

import cloudpickle
import numpy as np
from dask._task_spec import Alias, DataNode, GraphNode, Task, TaskRef
from dask.typing import Key

_FUNCTIONS = {"load_store_chunk": 1, "load_chunk": 0}
"""The functions of `dask.array.store`'s tasks, and which argument is the target."""


def cut_stores(nodes: dict[Key, Any]) -> tuple[dict[Key, Any], frozenset[Key]]:
    """The graph with stores into objects of this process apart from what they store, and the keys of these."""
    stores: set[Key] = set()
    made: dict[Key, Any] = {}
    stays: dict[tuple[int, int], bool] = {}
    for key, node in nodes.items():
        if not any(_target(one) is not None for one in _all_in(node)):
            continue
        parts = _unfused(key, node)
        found = {one for one, part in parts.items() if _is_of_here(part, ChainMap(parts, nodes), stays)}
        if found:
            stores |= found
            made |= parts
    return nodes | made, frozenset(stores)


def _all_in(node: Any) -> Iterator[Any]:
    """A task and those of which dask has made it."""
    yield node
    if _is_fused(node):
        for one in node.args[0].values():
            yield from _all_in(one)


def _is_fused(node: Any) -> bool:
    """Whether a task stands for several: its arguments are these, the key of the last, names of inputs, and inputs."""
    return isinstance(node, Task) and node.has_subgraph()


def _unfused(key: Key, node: Any) -> dict[Key, Any]:
    """The tasks of which dask has made one, under keys of their own; the last is what `key` stands for."""
    if not _is_fused(node):
        return {key: node}
    tasks, last, names, *given = node.args
    inside = {one: (key, one) for one in (*names, *tasks)}
    found: dict[Key, Any] = {key: Alias(key, inside[last])}
    for name, value in zip(names, given, strict=True):
        known = Alias(inside[name], value.key) if isinstance(value, TaskRef) else value
        found[inside[name]] = known if isinstance(known, GraphNode) else DataNode(None, known)
    for one, task in tasks.items():
        found |= _unfused(inside[one], task.substitute(inside, key=inside[one]))
    return found


def _target(node: Any) -> Any:
    """What a task of `dask.array.store` writes to, or reads again; None if it is no such task."""
    name = getattr(getattr(node, "func", None), "__name__", "")
    return node.args[_FUNCTIONS[name]] if name in _FUNCTIONS else None


def _is_of_here(node: Any, known: Mapping[Key, Any], stays: dict[tuple[int, int], bool]) -> bool:
    """Whether a task writes to an object of this process that is no mere name of something elsewhere."""
    target = _value(_target(node), known)
    if target is None:
        return False
    writes, is_memory = node.func.__name__ == "load_store_chunk", _is_memory(target)
    if writes and is_memory:
        return True
    lock = next((one for one in (*node.args, *node.kwargs.values()) if hasattr(one, "acquire")), None)
    case = id(target), id(lock)
    if case not in stays:  # what is only read may as well be copied
        stays[case] = not _can_travel(lock if is_memory else (target, lock))
    return stays[case]


def _is_memory(target: object) -> bool:
    """Whether a pickle of it would be another one."""
    return isinstance(target, np.ndarray) or type(target).__module__.partition(".")[0] == "h5py"


def _value(one: Any, known: Mapping[Key, Any]) -> Any:
    """What an argument is, if the client knows it; otherwise None."""
    while isinstance(one, TaskRef | Alias):
        one = known.get(one.key if isinstance(one, TaskRef) else one.target)
    if isinstance(one, DataNode):
        return one.value
    return None if isinstance(one, Task) else one


def _can_travel(one: object) -> bool:
    try:
        cloudpickle.dumps(one)
    except Exception:  # noqa: BLE001  objects may raise anything
        return False
    return True
