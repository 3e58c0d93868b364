"""PyWren's configuration, a nested dictionary, in terms of this library's settings and back."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wren_backends.config import Config
from wren_backends.errors import ConfigError

_PLACES = {
    "region": ("account", "aws_region"),
    "bucket": ("s3", "bucket"),
    "prefix": ("s3", "pywren_prefix"),
    "function": ("lambda", "function_name"),
    "memory_mb": ("lambda", "memory"),
    "timeout_s": ("lambda", "timeout"),
}
"""Where PyWren 0.4.0 keeps what is a setting here (pywren/default_config.yaml)."""

_SECTIONS = {"account", "lambda", "local_run_dir", "runtime", "s3", "scheduler", "standalone"} | {
    "storage_backend",
    "storage_prefix",
}
_warned_of: set[str] = set()


def default() -> dict[str, Any]:
    """The settings in force as PyWren's dictionary, to be changed and given to an executor as `config=`.

    Unlike PyWren's it reads no `.pywren_config`; docs/settings.md says where settings come from.

    Raises:
        ConfigError: A setting is wrong.
    """
    settings, found = asdict(Config.load()), dict[str, Any]()
    for name, (section, key) in _PLACES.items():
        found.setdefault(section, {})[key] = settings[name]
    return {**found, "scheduler": {}, "runtime": {}}


def to_settings(config: Mapping[str, Any] | Config | None) -> tuple[dict[str, Any], int | None]:
    """What a `config=` asks for: fields of `Config`, and the most items that a map may have.

    Args:
        config: PyWren's dictionary, or one with fields of `Config`, or a Config.

    Raises:
        ConfigError: It is none of these.
    """
    if config is None:
        _warn_of_files()
        return {}, None
    if isinstance(config, Config):
        return asdict(config), None
    if not isinstance(config, Mapping):
        raise ConfigError(f"config has to be a dictionary or a wren_backends.Config, not {type(config).__name__}")
    if not _SECTIONS & set(config):
        return dict(config), None
    settings = {
        name: config[section][key]
        for name, (section, key) in _PLACES.items()
        if (config.get(section) or {}).get(key) is not None
    }
    return settings, (config.get("scheduler") or {}).get("map_item_limit")


def _warn_of_files() -> None:
    """A PyWren user's own file is not read: say so once, rather than run elsewhere without a word."""
    named = os.environ.get("PYWREN_CONFIG_FILE")
    places = (Path(named),) if named else (Path(".pywren_config"), Path.home() / ".pywren_config")
    found = next((str(one) for one in places if one.exists()), None)
    if found is not None and found not in _warned_of:
        _warned_of.add(found)
        warnings.warn(
            f"{found} is not read: give its contents as config=, or set WREN_BUCKET, WREN_REGION and WREN_FUNCTION; "
            "`wren config` says what is in force",
            UserWarning,
            stacklevel=4,
        )
