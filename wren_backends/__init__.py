"""Run joblib, dask and `concurrent.futures` code on AWS Lambda, coordinated through S3.

Importing this package registers the joblib backend "wren" and does nothing else; the rest is imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from wren_backends.joblib import register as _register_joblib

if TYPE_CHECKING:
    from wren_backends.attached import AttachedJob
    from wren_backends.calls import not_repeatable
    from wren_backends.config import Config
    from wren_backends.dask import wren_get
    from wren_backends.errors import (
        BrokenWrenExecutor,
        CallExitedError,
        CallStoppedError,
        ConfigError,
        DeploymentError,
        EnvironmentLostError,
        InvocationError,
        InvocationTimeoutError,
        OutOfMemoryError,
        ProtocolMismatchError,
        SerializationError,
        StorageError,
        TamperedObjectError,
        ThrottledError,
        UnknownJobError,
        WrenError,
    )
    from wren_backends.executor import WrenExecutor
    from wren_backends.progress import progress
    from wren_backends.report import Report, measure

__all__ = [
    "AttachedJob",
    "BrokenWrenExecutor",
    "CallExitedError",
    "CallStoppedError",
    "Config",
    "ConfigError",
    "DeploymentError",
    "EnvironmentLostError",
    "InvocationError",
    "InvocationTimeoutError",
    "OutOfMemoryError",
    "ProtocolMismatchError",
    "Report",
    "SerializationError",
    "StorageError",
    "TamperedObjectError",
    "ThrottledError",
    "UnknownJobError",
    "WrenError",
    "WrenExecutor",
    "measure",
    "not_repeatable",
    "progress",
    "wren_get",
]

_HOMES = {
    "AttachedJob": "attached",
    "Config": "config",
    "Report": "report",
    "WrenExecutor": "executor",
    "measure": "report",
    "not_repeatable": "calls",
    "progress": "progress",
    "wren_get": "dask",
}


def __dir__() -> list[str]:
    return sorted((*__all__, *(name for name in globals() if name.startswith("__"))))


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    return found


_register_joblib()
