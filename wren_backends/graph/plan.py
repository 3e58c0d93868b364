"""Sorts the nodes of a dask graph by what becomes of them: work for a call, data, aliases, the gathering of results."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dask._task_spec import Alias, DataNode, convert_legacy_graph, cull
from dask.order import order
from dask.typing import Key
from dask.utils import funcname, key_split

from wren_backends.graph.shuffles import without_disk
from wren_backends.graph.stores import cut_stores

_TRIVIAL = (bool, int, float, complex, str, bytes, type(None))
_TRIVIAL_CHARS = 200


@dataclass(frozen=True)
class Plan:
    """A graph, sorted.

    Attributes:
        nodes: Every node that is needed, as dask has it.
        work: Keys of the tasks that run in calls, and of `stores`.
        stores: Keys of the tasks that run in the client in between, because they use an object of this process.
        here: Keys of those that run in the client at the end, because they only gather what the client gets anyway.
        data: Keys whose values the client has.
        targets: For each alias the key that it stands for in the end.
        needs: For each task the keys that it depends on, aliases resolved.
        wanted: The keys that were asked for.
        home: The keys whose values the client needs, aliases resolved.
        rank: dask's order, in which tasks that are ready go.
    """

    nodes: Mapping[Key, Any]
    work: frozenset[Key]
    stores: frozenset[Key]
    here: frozenset[Key]
    data: frozenset[Key]
    targets: Mapping[Key, Key]
    needs: Mapping[Key, tuple[Key, ...]]
    wanted: frozenset[Key]
    home: frozenset[Key]
    rank: Mapping[Key, int]

    def resolve(self, key: Key) -> Key:
        """The key that `key` stands for: itself, unless it is an alias."""
        return self.targets.get(key, key)

    def helpers(self, key: Key) -> Iterator[Any]:
        """The nodes that a task needs beside it: aliases, and data that is too small to be worth a parcel."""
        for dependency in self.nodes[key].dependencies:
            while dependency in self.targets:
                node = self.nodes[dependency]
                yield node
                dependency = node.target  # noqa: PLW2901  along the chain of aliases
            if self.is_trivial(dependency):
                yield self.nodes[dependency]

    def is_trivial(self, key: Key) -> bool:
        """Whether it is data that may travel within a task."""
        return key in self.data and is_trivial(self.nodes[key].value)


def is_trivial(value: object) -> bool:
    """Whether a value is immutable and small, so that it may be copied into each task."""
    return type(value) in _TRIVIAL and (not isinstance(value, str | bytes) or len(value) <= _TRIVIAL_CHARS)


def make_plan(graph: Mapping[Key, Any], wanted: Collection[Key], *, gather_here: bool = True) -> Plan:
    """Convert, check and sort a graph.

    Args:
        graph: A graph, of nodes or in dask's older form of tuples.
        wanted: The keys that are asked for.
        gather_here: Whether tasks that only gather results run in the client.

    Raises:
        KeyError: A wanted key is not in the graph.
        ValueError: A dependency is not in the graph, or there is a cycle.
        ConfigError: The graph shuffles between a cluster's workers, or through a local disk in an unknown way.
    """
    asked = frozenset(wanted)
    known = {key: _with_its_key(key, node) for key, node in convert_legacy_graph(graph).items()}
    nodes: dict[Key, Any] = dict(cull(known, set(asked))) if asked else {}
    missing = asked - set(nodes)
    if missing:
        raise KeyError(f"not in the graph: {', '.join(map(repr, missing))}")
    nodes, stores = cut_stores(without_disk(nodes))
    nodes = {key: _with_its_key(key, node) for key, node in nodes.items()}
    _check_dependencies(nodes)
    rank = order(nodes)
    targets = _targets(nodes)
    data = frozenset(key for key, node in nodes.items() if isinstance(node, DataNode))
    tasks = [key for key in nodes if key not in targets and key not in data]
    needs = {key: tuple(dict.fromkeys(targets.get(one, one) for one in nodes[key].dependencies)) for key in tasks}
    used = {one for needed in needs.values() for one in needed}
    last = asked - used
    here = frozenset(key for key in tasks if gather_here and key in last and _only_gathers(key, nodes[key]))
    home = {targets.get(key, key) for key in asked}.union(*(needs[key] for key in here))
    return Plan(nodes, frozenset(tasks) - here, stores, here, data, targets, needs, asked, frozenset(home), rank)


def _with_its_key(key: Key, node: Any) -> Any:
    """A node that knows the key it stands at.

    `dask.dataframe.from_delayed` makes aliases with their targets' keys, `isin` of delayed values a list without its
    partition's number.
    """
    if node.key == key:
        return node
    if isinstance(node, Alias):
        return Alias(key, node.target)
    found = copy.copy(node)
    found.key = key
    return found


def kind_of(key: Key, node: Any) -> str:
    """What tasks that are expected to take about as long have in common."""
    return f"{key_split(key)}:{funcname(node.func)}" if hasattr(node, "func") else str(key_split(key))


def _only_gathers(key: Key, node: Any) -> bool:
    """Whether a task puts pieces of the result together: in a worker it would pull in all of it and send it off again.

    The names are those of dask.base's finalize (HLGFinalizeCompute) and of dask.dataframe's last step
    (RepartitionToFewer, whose function is `_concat`).
    """
    prefix = key_split(key)
    return bool(prefix.startswith("finalize-")) or (prefix == "repartitiontofewer" and funcname(node.func) == "_concat")


def _targets(nodes: Mapping[Key, Any]) -> dict[Key, Key]:
    found: dict[Key, Key] = {}
    for key, node in nodes.items():
        if isinstance(node, Alias):
            seen, target = {key}, node.target
            while isinstance(nodes[target], Alias):
                if target in seen:
                    raise ValueError(f"the alias {key!r} stands for itself")
                seen.add(target)
                target = nodes[target].target
            found[key] = target
    return found


def _check_dependencies(nodes: Mapping[Key, Any]) -> None:
    for key, node in nodes.items():
        for dependency in node.dependencies:
            if dependency not in nodes:
                raise ValueError(
                    f"Missing dependency {dependency!r} of {key!r}: it is not in the graph, nor was it persisted here"
                )
