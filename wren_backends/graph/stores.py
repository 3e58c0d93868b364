"""Warns of graphs that store into an array of this process's memory, of which tasks get copies: `x.store(array)`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from typing import Any

from dask._task_spec import DataNode, TaskRef
from dask.typing import Key


def warn_of_lost_stores(nodes: Mapping[Key, Any], targets: Mapping[Key, Key]) -> None:
    """Warn (UserWarning) once if `dask.array.store` writes to a numpy array here; it would stay as it is.

    Args:
        nodes: A graph of dask's nodes.
        targets: For each alias the key that it stands for in the end.
    """
    numpy = sys.modules.get("numpy")
    for key, node in nodes.items():
        # The name is that of dask.array.core.store's layer, whatever was fused into it.
        if numpy and isinstance(key, tuple) and "store-map-" in str(key[0]):
            target = _target(node)
            if isinstance(target, TaskRef):
                target = _value(nodes.get(targets.get(target.key, target.key)))
            if isinstance(target, numpy.ndarray):
                warnings.warn(
                    f"{key[0]} stores into an array in this process, of {target.nbytes:,} bytes. Calls get copies of "
                    "it: what they store there is lost. Have the values come here, target[...] = x.compute(), or store "
                    "into what workers can write to, such as Zarr in S3",
                    UserWarning,
                    stacklevel=2,
                )
                return


def _target(node: Any) -> Any:
    """What a task of `dask.array.store` writes to, or the key of that; None if it is no such task."""
    inside, given = {node.key: node}, {}
    if isinstance(inner := next(iter(getattr(node, "args", ())), None), dict):  # several tasks that dask made one
        inside, given = inner, dict(zip(node.args[2], node.args[3:], strict=True))
    for task in inside.values():
        if getattr(getattr(task, "func", None), "__name__", "") == "load_store_chunk":
            target = task.args[1]
            if isinstance(target, TaskRef):
                target = (inside | given).get(target.key, target)
            return _value(target)
    return None


def _value(node: Any) -> Any:
    return node.value if isinstance(node, DataNode) else node
