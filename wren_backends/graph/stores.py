"""Stores into an object of this process, `x.store(array)`: they run here, as tasks elsewhere get copies of the object.

What makes the chunks runs in calls all the same, and so does what uses them afterwards; where dask has made one task of
it all, that is cut. A store runs as soon as its chunk is there, one after the other, as the lock that dask gives them
by default would have them do anyway.
"""

from __future__ import annotations

import sys
from collections import ChainMap
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from dask._task_spec import Alias, DataNode, GraphNode, Task, TaskRef
from dask.typing import Key

_TARGET = {"load_store_chunk": 1, "load_chunk": 0}
"""The functions of `dask.array.store`'s tasks, in dask.array.core, and which argument is the target."""

_ELSEWHERE = frozenset({"zarr", "tiledb", "tensorstore"})
"""Packages whose arrays are taken for names of something that workers can reach too."""


def cut_stores(nodes: dict[Key, Any]) -> tuple[dict[Key, Any], frozenset[Key]]:
    """The graph with stores into objects of this process in tasks of their own, and the keys of these."""
    if "dask.array.core" not in sys.modules:
        return nodes, frozenset()
    core: Any = sys.modules["dask.array.core"]
    stores: set[Key] = set()
    made: dict[Key, Any] = {}
    for key, node in nodes.items():
        if any(_target(one, core) is not None for one in _all_in(node)):
            parts = _unfused(key, node)
            known = ChainMap(parts, nodes)
            found = {one for one, part in parts.items() if _is_of_here(_value(_target(part, core), known))}
            if found and _is_fused(node):
                cut, found = _cut(key, parts, found, node.func)
                made |= cut
            stores |= found
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


def _target(node: Any, core: Any) -> Any:
    """What a task of `dask.array.store` writes to, or reads again; None if it is no such task."""
    func = getattr(node, "func", None)
    if func is core.load_store_chunk or func is core.load_chunk:
        return node.args[_TARGET[func.__name__]]
    return None


def _value(one: Any, known: Mapping[Key, Any]) -> Any:
    """What an argument is, if the client knows it; otherwise None."""
    while isinstance(one, TaskRef | Alias):
        one = known.get(one.key if isinstance(one, TaskRef) else one.target)
    if isinstance(one, DataNode):
        return one.value
    return None if isinstance(one, GraphNode) else one


def _is_of_here(target: object) -> bool:
    return target is not None and type(target).__module__.partition(".")[0] not in _ELSEWHERE


def _unfused(key: Key, node: Any) -> dict[Key, Any]:
    """The tasks of which dask has made one, under keys of their own; `key` stands for the last."""
    if not _is_fused(node):
        return {key: node}
    tasks, last, names, *given = node.args
    inside = {one: (key, one) for one in (*names, *tasks)}
    found: dict[Key, Any] = {key: Alias(key, inside[last])}
    for name, value in zip(names, given, strict=True):
        place = inside[name]
        if isinstance(value, TaskRef):
            found[place] = Alias(place, value.key)
        else:
            found[place] = DataNode(place, value.value if isinstance(value, DataNode) else value)
    for one, task in tasks.items():
        found |= _unfused(inside[one], task.substitute(inside, key=inside[one]))
    return found


def _cut(key: Key, parts: Mapping[Key, Any], stores: Collection[Key], fused: Any) -> tuple[dict[Key, Any], set[Key]]:
    """Tasks that make chunks, tasks that store them, and what comes after; the keys of the second."""
    last = _followed(key, parts)
    stores = {key if one == last else one for one in stores}
    chunks = {_followed(parts[last if one == key else one].args[0], parts) for one in stores}
    ends = {key, *stores, *(one for one in chunks if isinstance(parts.get(one), Task))}
    return {end: _fused(end, _reached(end, parts, ends - {end}), fused) for end in ends}, set(stores)


def _followed(one: Any, parts: Mapping[Key, Any]) -> Any:
    """The key that an argument or an alias stands for in the end, as far as it is one of the parts."""
    found = one.key if isinstance(one, TaskRef) else one
    while isinstance(found, str | tuple) and isinstance(parts.get(found), Alias):
        found = parts[found].target
    return found if isinstance(found, str | tuple) else None


def _reached(key: Key, parts: Mapping[Key, Any], but: Collection[Key]) -> dict[Key, Any]:
    """A task and those of the parts that it depends on."""
    found: dict[Key, Any] = {}
    stack = [key]
    while stack:
        one = stack.pop()
        if one in parts and one not in found and one not in but:
            found[one] = parts[one]
            stack += parts[one].dependencies
    return found


def _fused(key: Key, tasks: Mapping[Key, Any], fused: Any) -> Task:
    given = dict.fromkeys(one for task in tasks.values() for one in task.dependencies if one not in tasks)
    return Task(key, fused, dict(tasks), key, tuple(given), *map(TaskRef, given))
