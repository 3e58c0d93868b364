"""PyWren's factories of executors; the rest of what its module `wren` had can be had here as well."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from wren_backends.config import Config
from wren_backends.errors import ConfigError
from wren_backends.events import set_log_level_from_environment
from wren_backends.pywren.executor import Executor
from wren_backends.pywren.invokers import DummyInvoker, LambdaInvoker
from wren_backends.pywren.wait import ALL_COMPLETED, ALWAYS, ANY_COMPLETED, get_all_results, wait
from wren_backends.pywren.wrenconfig import to_settings

__all__ = [
    "ALL_COMPLETED",
    "ALWAYS",
    "ANY_COMPLETED",
    "default_executor",
    "dummy_executor",
    "get_all_results",
    "lambda_executor",
    "local_executor",
    "remote_executor",
    "standalone_executor",
    "wait",
]

Settings = Mapping[str, Any] | Config | None


def default_executor(config: Settings = None, job_max_runtime: int | None = None, **settings: Any) -> Executor:
    """The executor that `PYWREN_EXECUTOR` names: `lambda` (also if it is unset), `local`, `dummy`, `remote`.

    Args:
        config: PyWren's dictionary (see `wrenconfig.default`), or one with fields of `wren_backends.Config`.
        job_max_runtime: Time limit of a call in seconds, at most 900. On AWS that of the deployed function counts.
        settings: Any field of `Config`; they go before `config`.

    Raises:
        ConfigError: A setting is wrong.
        DeploymentError, StorageError: There is nothing to run on; the message says what to do.
    """
    named = os.environ.get("PYWREN_EXECUTOR", "lambda")
    factories: dict[str, Callable[..., Executor]] = {
        "dummy": dummy_executor,
        "lambda": lambda_executor,
        "local": local_executor,
        "remote": remote_executor,
        "standalone": remote_executor,
    }
    if named not in factories:
        raise ConfigError(f"PYWREN_EXECUTOR={named}: has to be lambda, local, dummy, remote or standalone")
    return factories[named](config=config, job_max_runtime=job_max_runtime, **settings)


def lambda_executor(config: Settings = None, job_max_runtime: int | None = None, **settings: Any) -> Executor:
    """Runs calls on AWS Lambda, or on the local cloud where no bucket is configured; see `default_executor`."""
    set_log_level_from_environment("PYWREN_LOGLEVEL")
    given, map_item_limit = to_settings(config)
    given |= {"timeout_s": job_max_runtime} if job_max_runtime is not None else {}
    given |= settings
    if "mode" not in given and "mode" not in Config.origins():
        given["mode"] = "s3"  # PyWren's: futures outlive the process that made them
    invoker = LambdaInvoker(Config.load(**given))
    return Executor(invoker, config, job_max_runtime, map_item_limit)


def local_executor(
    invoker_object: object = None, config: Settings = None, job_max_runtime: int | None = None, **settings: Any
) -> Executor:
    """As `lambda_executor`, on the local cloud whatever is configured.

    Raises:
        ConfigError: `invoker_object` is given: there are none to choose from.
    """
    if invoker_object is not None:
        raise ConfigError("local_executor takes no invoker_object: the local cloud runs its calls")
    return lambda_executor(config, job_max_runtime, **{**settings, "cloud": "local"})


def dummy_executor(config: Settings = None, job_max_runtime: int | None = None, **settings: Any) -> Executor:
    """Runs calls in this process, when `executor.invoker.run_jobs()` is called or a result is asked for.

    The settings are checked, and mean nothing.
    """
    set_log_level_from_environment("PYWREN_LOGLEVEL")
    given, map_item_limit = to_settings(config)
    Config.load(**{**given, **settings})
    return Executor(DummyInvoker(), config, job_max_runtime, map_item_limit)


def remote_executor(config: Settings = None, job_max_runtime: int | None = None, **settings: Any) -> Executor:
    """As `lambda_executor`: there are no machines of one's own as PyWren had them, and 900 seconds are the limit."""
    return lambda_executor(config, job_max_runtime, **settings)


standalone_executor = remote_executor
