"""Where settings come from: arguments, the environment and files.

An argument beats the environment variable `WREN_<FIELD>`, which beats `wren.toml`, which beats `[tool.wren]` in
`pyproject.toml` beside it, which beats `$XDG_CONFIG_HOME/wren/wren.toml` (`~/.config`), which beats the default. The
files of a project lie in the working directory, or in the nearest folder above it that has any.
"""

from __future__ import annotations

import difflib
import functools
import os
import stat
import tomllib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from lambda_worker.protocol import FUNCTION_KEY_VARIABLE, IN_WORKER_VARIABLE, PACKAGES_VARIABLE, PRELOAD_VARIABLE
from wren_backends.errors import ConfigError

_OTHER_VARIABLES = frozenset(
    {
        "WREN_LOGLEVEL",
        "WREN_LOCAL_WEED_SHA256",
        FUNCTION_KEY_VARIABLE,
        IN_WORKER_VARIABLE,
        PACKAGES_VARIABLE,
        PRELOAD_VARIABLE,
    }
)
"""Variables with our prefix that are no settings."""

_OF_PROCESS_POOLS = {
    "mp_context": "Lambda starts execution environments, no multiprocessing does. Leave it out",
    "max_tasks_per_child": "execution environments are reused as Lambda likes. Leave it out",
}
"""Parameters of `ProcessPoolExecutor` that have no counterpart, and why."""


def collect(arguments: Mapping[str, Any], kinds: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """What is set, from its strongest source, and that source; what is None counts as not set.

    Args:
        arguments: The strongest of them.
        kinds: Type of each setting.

    Raises:
        ConfigError: A name is unknown, or a value has the wrong type; it says where it stands.
    """
    found: dict[str, tuple[Any, str]] = {}
    for where, values in _sources(arguments, kinds):
        for name, value in values.items():
            if value is None and name in _OF_PROCESS_POOLS:
                continue
            if name not in kinds:
                raise ConfigError(f"{where}: {_unknown(name, kinds)}")
            if value is not None:
                found.setdefault(name, (_convert(value, kinds[name], f"{stated(where, name)}: {name}"), where))
    return found


def stated(where: str, name: str) -> str:
    """Where exactly a setting stands."""
    return f"environment variable WREN_{name.upper()}" if where == "environment" else where


def _unknown(name: str, known: Iterable[str]) -> str:
    if name in _OF_PROCESS_POOLS:
        return f"{name!r} has no meaning here: {_OF_PROCESS_POOLS[name]}"
    return f"there is no setting {name!r}{_meant(name, known) or '; there are ' + ', '.join(known)}"


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f" (is it {close[0]!r}?)" if close else ""


def _sources(arguments: Mapping[str, Any], known: Iterable[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Where settings come from, the strongest first."""
    yield "argument", arguments
    names = {f"WREN_{name.upper()}": name for name in known}
    _warn_of_unknown_variables(names)
    yield "environment", {name: os.environ[variable] for variable, name in names.items() if os.environ.get(variable)}
    yield from _project_files()
    yield str(user_file()), _read(user_file())


def user_file() -> Path:
    """Where the settings lie that count for all of the user's projects."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return home / "wren" / "wren.toml"


_warned_of: set[str] = set()


def _warn_of_unknown_variables(names: Iterable[str]) -> None:
    """They may be somebody else's, so this is no error; once per process, since settings are loaded often."""
    for variable in sorted(os.environ):
        ours = variable.startswith("WREN_") and variable not in _OTHER_VARIABLES
        if ours and variable not in names and variable not in _warned_of:
            _warned_of.add(variable)
            text = f"environment variable {variable} is no setting of wren-backends{_meant(variable, names)}"
            warnings.warn(f"{text} and is ignored; `wren config` shows all of them", UserWarning, stacklevel=2)


def _project_files() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Settings of the nearest folder that has any."""
    for folder in _folders():
        own, project = folder / "wren.toml", folder / "pyproject.toml"
        tool = _table(_read(project), "tool", project)
        if own.exists() or "wren" in tool:
            yield str(own), _read(own)
            yield f"{project} [tool.wren]", _table(tool, "wren", project)
            return


def _folders() -> Iterator[Path]:
    """The working directory and those above it, up to one where everybody may leave files, such as /tmp."""
    try:
        here = Path.cwd()
    except FileNotFoundError:  # somebody removed it
        return
    yield here
    for folder in here.parents:
        if folder.stat().st_mode & stat.S_IWOTH:
            return
        yield folder


def _table(parent: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    found = parent.get(name, {})
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: {name!r} has to be a table")
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        return _parsed(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


@functools.lru_cache(maxsize=8)
def _parsed(text: str) -> dict[str, Any]:
    """By content, since settings are loaded with each computation: 200 lines take 2 ms to parse."""
    return tomllib.loads(text)


def _convert(value: Any, kind: Any, where: str) -> Any:
    """Turn what a file or the environment says into the field's type."""
    if get_origin(kind) is tuple:
        return _convert_each(value, get_args(kind)[0], where)
    wanted = next((one for one in get_args(kind) if one is not type(None)), kind)
    if wanted is bool and isinstance(value, str):
        lowered = value.lower()
        if lowered in ("1", "true", "yes", "on", "0", "false", "no", "off"):
            return lowered in ("1", "true", "yes", "on")
    elif wanted in (int, float) and not isinstance(value, bool):
        try:
            number = wanted(value)
        except (TypeError, ValueError, OverflowError):
            number = None
        if number is not None and (isinstance(value, str) or number == value):
            return number
    elif isinstance(value, wanted) and not (wanted is not bool and isinstance(value, bool)):
        return value
    raise ConfigError(f"{where}={value!r}: has to be of type {wanted.__name__}")


def _convert_each(value: Any, kind: Any, where: str) -> tuple[Any, ...]:
    """Several of them: a list in a file, separated by commas in the environment."""
    if isinstance(value, str):
        value = [one.strip() for one in value.split(",") if one.strip()]
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where}={value!r}: has to be a list")
    return tuple(_convert(one, kind, where) for one in value)
