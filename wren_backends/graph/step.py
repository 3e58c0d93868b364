"""A step: tasks that one call runs, with the nodes that travel for them, what they need and what comes back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dask.typing import Key

from wren_backends.graph.plan import Plan, kind_of

_KIND_CHARS = 200


@dataclass(frozen=True, eq=False)
class Step:
    """Tasks that one call runs.

    Attributes:
        keys: The tasks, in the order in which they run.
        nodes: They, and the aliases and small data that they need, in an order that works.
        needs: Keys of values that are made elsewhere and travel as parcels.
        outputs: Keys of the values that come back, and how many bytes of each may come to the client.
        promised: Those of them for which that was set aside.
        patience_s: Once they have taken so long, in seconds, the rest comes back undone.
    """

    keys: tuple[Key, ...]
    nodes: tuple[Any, ...]
    needs: tuple[Key, ...]
    outputs: Mapping[Key, int]
    promised: Collection[Key]
    patience_s: float

    @property
    def name(self) -> str:
        """How messages name it."""
        rest = len(self.keys) - 1
        return f"dask key {self.keys[-1]!r}" + (f" and {rest} before it" if rest else "")

    def kind(self, plan: Plan) -> str:
        """What steps that are expected to take about as long have in common."""
        kinds = dict.fromkeys(kind_of(key, plan.nodes[key]) for key in self.keys)
        return f"{len(self.keys)} {'+'.join(kinds)}"[:_KIND_CHARS]

    def seconds(self, of_nodes: Iterable[float]) -> dict[Key, float]:
        """How long each task took that was run, from how long each node did."""
        tasks, took = set(self.keys), zip(self.nodes, of_nodes, strict=False)
        return {node.key: float(took_s) for node, took_s in took if node.key in tasks}


def is_one_branch(keys: Collection[Key], plan: Plan) -> bool:
    """Whether all tasks come of one of them, so that to run the rest elsewhere would be to send its value there."""
    inside = set(keys)
    return sum(inside.isdisjoint(plan.needs[key]) for key in keys) < 2


def nodes_of(keys: Collection[Key], plan: Plan) -> tuple[Any, ...]:
    """The nodes of tasks, each behind the aliases and small data that it needs."""
    found: dict[Key, Any] = {}
    for key in keys:
        # What an alias stands for comes after it.
        for node in reversed(list(plan.helpers(key))):
            found.setdefault(node.key, node)
        found[key] = plan.nodes[key]
    return tuple(found.values())
