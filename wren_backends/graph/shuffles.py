"""Shuffles through a local disk, which execution environments do not share, as tasks: what they move goes through S3.

Where no cluster is connected, `dask.dataframe` and `dask.bag` shuffle by partd: a store on the disk (a task of its
own), tasks that append to it, a barrier that waits for them, and tasks that each collect a part from it (DiskShuffle of
`dask.dataframe.dask_expr`, `groupby_disk` of `dask.bag`). Here a task that appends returns what it would have appended,
and one that collects gets the pieces of its part; dask's own functions run in both, with an object in place of the
store. Where there are many pieces they go in two rounds, as dask's own shuffle by tasks has them do in stages: about
2 n sqrt(n) for n inputs and n parts in place of n squared.
"""

from __future__ import annotations

import math
import operator
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

from dask._task_spec import Task, TaskRef
from dask.typing import Key

from wren_backends.errors import ConfigError

_STORES = ("zpartd-", "partd-")
"""How the keys of stores begin, in dask.dataframe and in dask.bag."""

_ONE_ROUND = 32 * 32
"""Pieces up to which one round will do: dask's `max_branch` is 32."""

_BY_TASKS = 'dask.config.set({"dataframe.shuffle.method": "tasks", "array.rechunk.method": "tasks"}) where it is built'

Part = Any


def without_disk(nodes: dict[Key, Any]) -> dict[Key, Any]:
    """The graph with every shuffle through a disk replaced; keys of what comes out of one stay.

    Raises:
        ConfigError: A shuffle is none of those that are known, or one between the workers of a cluster.
    """
    for key, node in nodes.items():
        if str(getattr(getattr(node, "func", None), "__module__", "")).startswith("distributed.shuffle."):
            raise ConfigError(
                f"{key!r} belongs to a shuffle between the workers of a dask cluster (p2p), which is dask's default "
                f"while a distributed client is open: use {_BY_TASKS}"
            )
    for store in [key for key in nodes if isinstance(key, tuple) and len(key) == 1 and str(key[0]).startswith(_STORES)]:
        nodes = _Shuffle(nodes, store).replaced()
    return nodes


class _Shuffle:
    """One shuffle of a graph: its store, what appends to it, what collects from it, and what waits in between."""

    def __init__(self, nodes: dict[Key, Any], store: tuple[Any, ...]) -> None:
        users = {key: node for key, node in nodes.items() if store in node.dependencies}
        self._nodes = nodes
        self._store = store
        self._collects = {key: parts for key, node in users.items() if (parts := list(_collected(node, store)))}
        # A graph has no order of its own, and rows are to stay in that of the inputs.
        self._splits = sorted((key for key in users if key not in self._collects), key=_number)
        # What collecting tasks wait for only to come after those that append; it may be fused with one of them.
        splits = set(self._splits)
        needed = {one for key in self._collects for one in nodes[key].dependencies}
        self._barriers = {one for one in needed if one in splits or splits & nodes[one].dependencies}
        self._parts = list(dict.fromkeys(chain.from_iterable(self._collects.values())))

    def replaced(self) -> dict[Key, Any]:
        if not (self._collects and self._splits):
            raise ConfigError(
                f"this graph keeps values in {self._store!r}, on a local disk, which execution environments do not "
                f"share: use {_BY_TASKS}"
            )
        many = len(self._splits) * len(self._parts) > _ONE_ROUND
        made, pieces = self._two_rounds() if many else self._one_round()
        for key, parts in self._collects.items():
            made[key] = self._collect(key, {part: pieces[part] for part in parts})
        gone = {self._store, *self._barriers}.difference(self._splits)
        return {key: node for key, node in self._nodes.items() if key not in gone} | made

    def _one_round(self) -> tuple[dict[Key, Any], dict[Part, list[Key]]]:
        groups = {part: part for part in self._parts}
        made: dict[Key, Any] = {key: self._split(key, groups) for key in self._splits}
        return made, {part: [_piece(made, key, part) for key in self._splits] for part in self._parts}

    def _two_rounds(self) -> tuple[dict[Key, Any], dict[Part, list[Key]]]:
        """First to groups of parts; then, of some inputs and one group at a time, to the parts."""
        groups = _in_about_root(self._parts)
        group_of = {part: at for at, group in enumerate(groups) for part in group}
        made: dict[Key, Any] = {key: self._split(key, group_of) for key in self._splits}
        pieces: dict[Part, list[Key]] = defaultdict(list)
        for first, inputs in enumerate(_in_about_root(self._splits)):
            for at, group in enumerate(groups):
                key = (f"regroup-{self._store[0]}", first, at)
                made[key] = Task(key, partial(_regroup, group), *(TaskRef(_piece(made, one, at)) for one in inputs))
                for part in group:
                    pieces[part].append(_piece(made, key, part))
        return made, pieces

    def _split(self, key: Key, groups: Mapping[Part, Any]) -> Task:
        node = self._nodes[key]
        needs = [one for one in node.dependencies if one != self._store]
        return Task(key, partial(_split, node, self._store, needs, groups), *map(TaskRef, needs))

    def _collect(self, key: Key, pieces: Mapping[Part, list[Key]]) -> Task:
        node = self._nodes[key]
        known = dict.fromkeys(node.dependencies & self._barriers, 0)
        needs = [one for one in node.dependencies if one != self._store and one not in known]
        counts = {part: len(keys) for part, keys in pieces.items()}
        collect = partial(_collect, node, self._store, needs, known, counts)
        return Task(key, collect, *map(TaskRef, [*needs, *chain.from_iterable(pieces.values())]))


def _number(key: Key) -> tuple[int, str]:
    """By the number of the partition, which is the last of the key."""
    last = key[-1] if isinstance(key, tuple) else key
    return (last if isinstance(last, int) else -1), str(key)


def _in_about_root(of: Sequence[Any]) -> list[Sequence[Any]]:
    """Slices, as many as each is long, about."""
    each = math.ceil(math.sqrt(len(of)))
    return [of[start : start + each] for start in range(0, len(of), each)]


def _collected(node: Any, store: Key) -> Iterator[Part]:
    """The parts that a task collects: the second argument of both functions named `collect`, perhaps in a fused one."""
    args: Sequence[Any] = getattr(node, "args", ())
    if getattr(getattr(node, "func", None), "__name__", "") == "collect" and store in node.dependencies:
        yield args[1]
    for one in args:
        if isinstance(one, Mapping):
            for inner in one.values():
                yield from _collected(inner, store)


def _piece(made: dict[Key, Any], of: Key, name: Any) -> Key:
    """Key of the piece `name` of what the task `of` returns, for which there is a task now."""
    head, *rest = of if isinstance(of, tuple) else (of,)
    key = (f"split-{head}", *rest, name)
    made[key] = Task(key, operator.getitem, TaskRef(of), name)
    return key


class _Appended:
    """Stands for the store of a task that appends: keeps what is appended, by group and part."""

    def __init__(self, groups: Mapping[Part, Any]) -> None:
        self._groups = groups
        self.kept: dict[Any, dict[Part, list[Any]]] = {group: {} for group in groups.values()}

    def append(self, data: Mapping[Part, Any], **_: Any) -> None:
        for part, value in data.items():
            if part in self._groups:  # nobody asks for others
                self.kept[self._groups[part]].setdefault(part, []).append(value)

    def drop(self) -> None:
        """What dask does to a store when a task fails."""


class _Pieces:
    """Stands for the store of a task that collects."""

    def __init__(self, found: Mapping[Part, list[Mapping[Part, list[Any]]]]) -> None:
        self._found = found

    def get(self, part: Part, **_: Any) -> Any:
        values = [value for piece in self._found[part] for value in piece.get(part, ())]
        if not values or isinstance(values[0], list):  # of a bag
            return list(chain.from_iterable(values))
        from dask.dataframe.dispatch import concat

        return concat(values)

    def drop(self) -> None:
        """What dask does to a store when a task fails."""


def _split(node: Any, store: Key, needs: Sequence[Key], groups: Mapping[Part, Any], *values: Any) -> dict[Any, Any]:
    """Run a task that appends; returns what it has appended, for each group a dict of lists by part."""
    appended = _Appended(groups)
    node({**dict(zip(needs, values, strict=True)), store: appended})
    return appended.kept


def _collect(
    node: Any, store: Key, needs: Sequence[Key], known: Mapping[Key, Any], counts: Mapping[Part, int], *values: Any
) -> Any:
    """Run a task that collects, on `counts` pieces for each part, which come behind the values of `needs`."""
    pieces = iter(values[len(needs) :])
    found = {part: [next(pieces) for _ in range(count)] for part, count in counts.items()}
    return node({**known, **dict(zip(needs, values, strict=False)), store: _Pieces(found)})


def _regroup(parts: Sequence[Part], *pieces: Mapping[Part, list[Any]]) -> dict[Part, dict[Part, list[Any]]]:
    """Pieces of a group of parts, from several inputs, part by part."""
    return {part: {part: [value for piece in pieces for value in piece.get(part, ())]} for part in parts}
