"""What `dask.annotate` asks for: `retries`, `priority`, and memory."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dask.base import get_annotations
from dask.typing import Key

from wren_backends.connection import Connection
from wren_backends.errors import ConfigError

_MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Traits:
    """How the call of a task is to be made; tasks in one call have the same.

    Attributes:
        retries: Further attempts if it raises; None: as configured.
        enlarged: Whether it runs on the function with more memory.
    """

    retries: int | None = None
    enlarged: bool = False


@dataclass(frozen=True)
class Annotations:
    """Of one graph.

    Attributes:
        everywhere: Annotations that are active where the graph is computed.
        by_key: For each annotation its values by key, set where the graph was built.
    """

    everywhere: Mapping[str, Any] = field(default_factory=dict)
    by_key: Mapping[str, Mapping[Key, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Any) -> Annotations:
        """Those of a graph or expression that is being computed; what its layers say goes before what is active."""
        layered: Mapping[str, Mapping[Key, Any]] = getattr(graph, "__dask_annotations__", dict)() or {}
        return cls(dict(get_annotations()), dict(layered))

    def get(self, name: str, key: Key) -> Any:
        """An annotation's value for a task; None if it has none.

        A function of the key is called with it, as `dask.annotate` promises; dask itself does that for layers only.
        """
        layered = self.by_key.get(name, {})
        if key in layered:
            return layered[key]
        found = self.everywhere.get(name)
        return found(key) if callable(found) else found

    @property
    def is_empty(self) -> bool:
        """Whether nothing is annotated."""
        return not self.everywhere and not self.by_key

    def priorities(self, keys: Iterable[Key]) -> dict[Key, float]:
        """What is said of `priority`: the higher goes first, as with dask.distributed.

        Raises:
            ConfigError: It is no number.
        """
        found = {key: self.get("priority", key) for key in keys} if not self.is_empty else {}
        for key, priority in found.items():
            if priority is not None and not isinstance(priority, numbers.Real):
                raise ConfigError(f"annotation priority={priority!r} of dask key {key!r} has to be a number")
        return {key: float(priority) for key, priority in found.items() if priority}

    def traits(self, keys: Collection[Key], connection: Connection, larger_mb: int | None) -> dict[Key, Traits]:
        """How the calls of tasks are to be made, where it differs from the usual.

        Args:
            keys: The tasks.
            connection: The function.
            larger_mb: Memory of the larger function in MB, if there is one.

        Raises:
            ConfigError: Something is malformed, or no function has the memory.
        """
        found = {}
        for key in keys if not self.is_empty else ():
            traits = Traits(self._retries(key), self._needs_larger(key, connection, larger_mb))
            if traits != Traits():
                found[key] = traits
        self._warn_of_resources(keys)
        return found

    def _retries(self, key: Key) -> int | None:
        retries = self.get("retries", key)
        if retries is not None and (not isinstance(retries, int) or retries < 0):
            raise ConfigError(f"annotation retries={retries!r} of dask key {key!r} has to be a whole number from 0 on")
        return retries

    def _needs_larger(self, key: Key, connection: Connection, larger_mb: int | None) -> bool:
        wanted_mb = self._memory_mb(key)
        if wanted_mb is None or wanted_mb <= connection.memory_mb:
            return False
        if larger_mb is None or larger_mb < wanted_mb:
            functions = f"{connection.memory_mb} MB" + (f" and {larger_mb} MB" if larger_mb else "")
            raise ConfigError(
                f"dask key {key!r} is annotated to need {wanted_mb:.0f} MB, and there are functions with {functions}: "
                f"set retry_memory_mb={wanted_mb:.0f} (WREN_RETRY_MEMORY_MB) and deploy again"
            )
        return True

    def _memory_mb(self, key: Key) -> float | None:
        """`memory=` in MB, as Lambda counts, or `resources={"memory": ...}` in bytes, as dask.distributed does."""
        memory_mb = self.get("memory", key)
        resources = self.get("resources", key) or {}
        for name, amount in resources.items():
            if str(name).lower() == "memory":
                memory_mb = amount / _MB if isinstance(amount, numbers.Real) else amount
        if memory_mb is not None and (not isinstance(memory_mb, numbers.Real) or isinstance(memory_mb, bool)):
            raise ConfigError(f"annotation memory={memory_mb!r} of dask key {key!r} has to be a number of MB")
        return None if memory_mb is None else float(memory_mb)

    def _warn_of_resources(self, keys: Iterable[Key]) -> None:
        is_stated = "resources" in self.everywhere or "resources" in self.by_key
        stated = [self.get("resources", key) or {} for key in keys] if is_stated else []
        others = sorted({str(name) for one in stated for name in one if str(name).lower() != "memory"})
        if others:
            warnings.warn(
                f"execution environments have no resources {', '.join(others)}: only memory counts", stacklevel=2
            )
