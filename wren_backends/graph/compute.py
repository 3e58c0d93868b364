"""Computes keys of a graph: for the client, or to stay where they are made; anew where what was persisted is lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from dask._task_spec import DataNode, convert_legacy_graph
from dask.typing import Key

from wren_backends.errors import StorageError
from wren_backends.executor import WrenExecutor
from wren_backends.graph import persisted
from wren_backends.graph.annotations import Annotations
from wren_backends.graph.holdings import LostPersistedError
from wren_backends.graph.persisted import Persisted
from wren_backends.graph.plan import Plan, make_plan
from wren_backends.graph.run import Computation
from wren_backends.graph.watch import Watch

T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """What is asked for.

    Attributes:
        dsk: A graph: a mapping, or an expression with `__dask_graph__`.
        wanted: The keys.
        executor: Runs the calls.
        callbacks: dask's callbacks, as tuples.
        rerun_locally: Run what failed again in this process.
        keep: Leave intermediate values in S3.
    """

    dsk: Any
    wanted: Collection[Key]
    executor: WrenExecutor
    callbacks: Iterable[Any] = ()
    rerun_locally: bool = False
    keep: bool = False


def compute(asked: Asked) -> dict[Key, Any]:
    """Values of keys; see `wren_get`."""

    def run(graph: Mapping[Key, Any], watch: Watch) -> dict[Key, Any]:
        return _computation(asked, make_plan(graph, asked.wanted), watch).values()

    return _attempt(asked, run)


def leave(asked: Asked) -> dict[Key, Any]:
    """For each key what stands for its value, or the value itself where it was in the client already."""

    def run(graph: Mapping[Key, Any], watch: Watch) -> dict[Key, Any]:
        plan = make_plan(graph, asked.wanted, gather_here=False)
        left = _computation(asked, plan, watch, leave=True).leave()
        recipe = _recipe(plan.nodes)
        found: dict[Key, Any] = {}
        for key, value in left.items():
            if isinstance(value, DataNode):
                found[key] = value.value
            else:
                persisted.own(value, value.own_refs, asked.executor)
                found[key] = Persisted(key, value, recipe, asked.executor)
        return found

    return _attempt(asked, run)


def _computation(asked: Asked, plan: Plan, watch: Watch, *, leave: bool = False) -> Computation:
    watch.planned(plan)
    return Computation(
        plan,
        asked.executor,
        watch,
        Annotations.of(asked.dsk),
        rerun_locally=asked.rerun_locally,
        keep=asked.keep,
        leave=leave,
    )


def _attempt(asked: Asked, run: Callable[[Mapping[Key, Any], Watch], T]) -> T:
    """Run a graph, and once more with the recipes of what was persisted and is lost."""
    watch, dsk = Watch(asked.callbacks), asked.dsk
    graph = dict(dsk if isinstance(dsk, Mapping) else dsk.__dask_graph__())
    failed = True
    try:
        watch.begin(graph)
        nodes = _with_persisted(graph, asked.wanted)
        lost: dict[Key, Persisted] = {}
        while True:
            try:
                found = run(nodes, watch)
            except LostPersistedError as error:
                if any(one.key in lost for one in error.lost):
                    names = ", ".join(repr(one.key) for one in error.lost)
                    raise StorageError(
                        f"what was persisted is gone from the bucket: {names}. Persist it again"
                    ) from None
                lost |= {one.key: one for one in error.lost}
                asked.executor.journal.say("persisted.lost", logging.INFO, keys=len(error.lost))
                recipes = {id(one.recipe): one.recipe for one in error.lost}.values()
                nodes = {key: node for recipe in recipes for key, node in recipe.items()} | {
                    key: node for key, node in nodes.items() if key not in lost
                }
            else:
                failed = False
                return found
    finally:
        watch.end(failed=failed)


def _with_persisted(graph: Mapping[Key, Any], wanted: Collection[Key]) -> dict[Key, Any]:
    """The graph's nodes, and as data what was persisted of them; dask's own conversion leaves that out."""
    futures = {value.key: value for value in graph.values() if isinstance(value, Persisted)}
    nodes: dict[Key, Any] = dict(convert_legacy_graph(graph))
    # dask's optimisations leave it out of the graph too: what is wanted may be all that there is to know of it.
    for key in [*wanted, *(one for node in nodes.values() for one in node.dependencies)]:
        if key not in nodes and (found := futures.get(key) or persisted.find(key)) is not None:
            nodes[key] = DataNode(key, found)
    for key, found in futures.items():
        nodes.setdefault(key, DataNode(key, found))
    return nodes


def _recipe(nodes: Mapping[Key, Any]) -> dict[Key, Any]:
    """Nodes that make values again, with nothing in them that is persisted: that would keep it from being let go of."""
    found: dict[Key, Any] = {}
    merged: set[int] = set()  # what was persisted together has one recipe
    for key, node in nodes.items():
        if isinstance(node, DataNode) and isinstance(node.value, Persisted):
            recipe = node.value.recipe
            if id(recipe) not in merged:
                merged.add(id(recipe))
                found |= {one: made for one, made in recipe.items() if one not in found}
        else:
            found[key] = node
    return found
