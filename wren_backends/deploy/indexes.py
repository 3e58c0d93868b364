"""Passes the indexes that pip is configured with on to uv, which does not read them, where uv has none of its own."""

from __future__ import annotations

import configparser
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_UVS_OWN = ("UV_INDEX", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
"""Variables that say where uv finds packages (uv documentation, "Environment variables")."""

_KEYS = {"index", "index-url", "default-index", "extra-index-url", "find-links", "no-index"}


@dataclass(frozen=True)
class Indexes:
    """What uv is to be told.

    Attributes:
        variables: Environment variables beside those of this process. An index's address may hold a password, which
            others would see in a command line.
        arguments: Arguments, for what has no variable.
    """

    variables: Mapping[str, str]
    arguments: tuple[str, ...] = ()


def indexes_for_uv(environment: Mapping[str, str] | None = None, folder: Path | None = None) -> Indexes:
    """Find out what uv has to be told of indexes.

    Args:
        environment: Instead of this process's.
        folder: Where uv looks for its configuration, and in the folders above; None: the current one.
    """
    environment = os.environ if environment is None else environment
    found = {"UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}
    if any(environment.get(name) for name in _UVS_OWN) or _uv_has_its_own(environment, folder or Path.cwd()):
        return Indexes(found)
    pip = _pips(environment)
    no_index = pip.get("no-index", "").lower() in ("1", "true", "yes", "on")
    if pip.get("index-url"):
        found["UV_DEFAULT_INDEX"] = pip["index-url"]
    if pip.get("extra-index-url"):
        found["UV_INDEX"] = " ".join(pip["extra-index-url"].split())
        # pip takes the best of all indexes, uv by default what the first one has that knows the name.
        found["UV_INDEX_STRATEGY"] = environment.get("UV_INDEX_STRATEGY", "unsafe-best-match")
    if pip.get("find-links"):
        found["UV_FIND_LINKS"] = ",".join(pip["find-links"].split())
    if pip.get("trusted-host"):
        found["UV_INSECURE_HOST"] = " ".join(pip["trusted-host"].split())
    if pip.get("cert") and not environment.get("SSL_CERT_FILE"):
        found["SSL_CERT_FILE"] = pip["cert"]
    return Indexes(found, ("--no-index",) if no_index else ())


def _uv_has_its_own(environment: Mapping[str, str], folder: Path) -> bool:
    return any(_names_an_index(path) for path in _uv_files(environment, folder))


def _uv_files(environment: Mapping[str, str], folder: Path) -> Iterator[Path]:
    """Where uv reads its configuration (uv documentation, "Configuration files"): it merges all of these."""
    if environment.get("UV_CONFIG_FILE"):
        yield Path(environment["UV_CONFIG_FILE"])
    for one in (folder, *folder.parents):
        yield from (one / "uv.toml", one / "pyproject.toml")
    yield from (_configuration_folder(environment) / "uv" / "uv.toml", Path("/etc/uv/uv.toml"))


def _names_an_index(path: Path) -> bool:
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return False  # uv says so itself if it is one of its own
    if path.name == "pyproject.toml":
        content = content.get("tool", {}).get("uv", {})
    return not _KEYS.isdisjoint({*content, *content.get("pip", {})})


def _pips(environment: Mapping[str, str]) -> dict[str, str]:
    """Pip's options by name: its variables beat its files, of which the later beats the earlier (pip's user guide)."""
    found: dict[str, str] = {}
    for path in _pip_files(environment):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, ValueError):
            continue  # pip says so itself
        for section in ("global", "install"):
            if parser.has_section(section):
                found |= {name.replace("_", "-"): value for name, value in parser.items(section)}
    prefix = "PIP_"
    found |= {
        name.removeprefix(prefix).lower().replace("_", "-"): value
        for name, value in environment.items()
        if name.startswith(prefix) and value
    }
    return found


def _pip_files(environment: Mapping[str, str]) -> Iterator[Path]:
    named = environment.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return
    name = "pip.ini" if os.name == "nt" else "pip.conf"
    home = Path(environment.get("HOME") or Path.home())
    if os.name == "nt":
        yield Path(environment.get("PROGRAMDATA", "C:/ProgramData"), "pip", name)
        yield Path(environment.get("APPDATA", home), "pip", name)
    else:
        yield from (Path("/etc/xdg/pip", name), Path("/etc", name))
        yield from (home / ".pip" / name, _configuration_folder(environment) / "pip" / name)
        yield home / "Library" / "Application Support" / "pip" / name
    yield Path(sys.prefix, name)
    if named:
        yield Path(named)


def _configuration_folder(environment: Mapping[str, str]) -> Path:
    if os.name == "nt":
        return Path(environment.get("APPDATA") or Path.home())
    return Path(environment.get("XDG_CONFIG_HOME") or Path(environment.get("HOME") or Path.home(), ".config"))
