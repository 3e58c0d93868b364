"""Settings: one frozen dataclass, filled from arguments, the environment and files, in this order.

An argument beats the environment variable `WREN_<FIELD>`, which beats `wren.toml` in the working directory, which beats
`[tool.wren]` in `pyproject.toml` there, which beats `$XDG_CONFIG_HOME/wren/wren.toml` (`~/.config`), which beats the
default. Credentials, region and profile are those of boto3.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from lambda_worker.protocol import ProtocolError, check_bucket, check_prefix, shown
from wren_backends.errors import ConfigError

_FUNCTION = re.compile(r"[A-Za-z0-9_-]{1,64}")  # AWS Lambda API reference, CreateFunction, FunctionName


def _setting(default: Any, text: str, choices: tuple[str, ...] = (), least: float | None = None) -> Any:
    return field(default=default, metadata={"text": text, "choices": choices, "least": least})


@dataclass(frozen=True)
class Config:
    """Everything that can be set. `README.md` has the same as a table, made by `Config.table`."""

    cloud: str = _setting(
        "auto", "`aws`, `local`, or `auto`: AWS where a bucket is configured, else local.", ("auto", "aws", "local")
    )
    region: str | None = _setting(None, "AWS region; unset: boto3's.")
    bucket: str | None = _setting(None, "S3 bucket that coordinates; made beforehand, in the same region.")
    prefix: str = _setting("wren", "Key prefix in the bucket.")
    function: str = _setting("wren", "Name of the Lambda function.")
    mode: str = _setting("direct", "`direct`: outcomes in the response; `s3`: through S3.", ("direct", "s3"))
    max_workers: int | None = _setting(
        None, "Most invocations in flight; unset: 1000 on AWS, the number of CPUs on the local cloud.", least=1
    )
    max_attempts: int = _setting(3, "Attempts at a call whose execution environment died.", least=1)
    retries: int = _setting(0, "Further attempts at a call that raised an exception.", least=0)
    retry_budget_s: float = _setting(
        300.0, "Longest that a call is re-sent because Lambda or S3 refused it, in seconds.", least=0
    )
    backups: bool = _setting(
        True, "Whether a straggler gets a second attempt beside the first; whichever answers first counts."
    )
    backup_after_s: float = _setting(
        5.0, "Least that an invocation has to have been running for that, in seconds.", least=0.01
    )
    retry_exhausted: bool = _setting(
        False, "Whether `max_attempts` goes for calls that ran out of memory or time, too."
    )
    retry_memory_mb: int | None = _setting(
        None,
        "Calls that ran out of memory run once more with this much, on a function that `wren deploy_lambda` makes too.",
        least=128,
    )
    calls_per_invocation: int = _setting(1000, "Most waiting calls that one invocation carries.", least=1)
    inline_limit_bytes: int = _setting(
        128 * 1024, "Pickles and buffers above this go to S3 as blobs, once each.", least=0
    )
    commit_after_s: float = _setting(
        10.0, "In `direct`, a call that ran longer commits its outcome to S3 before it answers.", least=0
    )
    forward_output: bool = _setting(True, "Show in the client what calls print and warn.")
    memory_mb: int = _setting(1769, "Memory of a function that is deployed: 1769 MB is one vCPU.", least=128)
    timeout_s: int = _setting(900, "Time limit of a function that is deployed, in seconds.", least=1)

    def __post_init__(self) -> None:
        for one in fields(self):
            value, choices, least = getattr(self, one.name), one.metadata["choices"], one.metadata["least"]
            if choices and value not in choices:
                raise ConfigError(f"{one.name}={value!r}: has to be one of {', '.join(choices)}")
            if least is not None and value is not None and not value >= least:
                raise ConfigError(f"{one.name}={value!r}: has to be at least {least}")
        self._check_names()

    def _check_names(self) -> None:
        """They become parts of URLs and keys, and nothing in them may lead elsewhere."""
        checks: dict[str, Callable[[str], str]] = {
            "bucket": check_bucket,
            "prefix": check_prefix,
            "function": _function,
        }
        for name, check in checks.items():
            value = getattr(self, name)
            try:
                if value is not None:
                    check(value)
            except ProtocolError as error:
                raise ConfigError(f"{name}: {error}. Set WREN_{name.upper()} or the argument {name}=") from None

    @classmethod
    def load(cls, **arguments: Any) -> Config:
        """Collect the settings; arguments that are None count as not given.

        Raises:
            ConfigError: A name is unknown, or a value has the wrong type or is out of bounds; it says where it stands.
        """
        kinds = get_type_hints(cls)
        found: dict[str, Any] = {}
        for where, values in _sources(arguments):
            for name, value in values.items():
                if name not in kinds:
                    raise ConfigError(f"{where}: there is no setting {name!r}; there are {', '.join(kinds)}")
                if value is not None:
                    found.setdefault(name, _convert(value, kinds[name], f"{where}: {name}"))
        return cls(**found)

    @classmethod
    def table(cls) -> str:
        """The settings as a Markdown table."""
        lines = ["| setting | environment | default | what it does |", "|---|---|---|---|"]
        for one in fields(cls):
            default = "" if one.default is None else f"`{one.default}`"
            lines.append(f"| `{one.name}` | `WREN_{one.name.upper()}` | {default} | {one.metadata['text']} |")
        return "\n".join(lines)


def _function(name: str) -> str:
    if not isinstance(name, str) or not _FUNCTION.fullmatch(name):
        raise ProtocolError(f"not the name of a function: {shown(name)} (1-64 letters, digits, '_' and '-')")
    return name


def _sources(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Where settings come from, the strongest first."""
    yield "argument", arguments
    names = [one.name for one in fields(Config)]
    yield "environment", {n: os.environ[f"WREN_{n.upper()}"] for n in names if os.environ.get(f"WREN_{n.upper()}")}
    yield "wren.toml", _read(Path("wren.toml"))
    yield "pyproject.toml [tool.wren]", _table(_table(_read(Path("pyproject.toml")), "tool"), "wren")
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    yield str(home / "wren" / "wren.toml"), _read(home / "wren" / "wren.toml")


def _table(parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = parent.get(name, {})
    if not isinstance(found, dict):
        raise ConfigError(f"pyproject.toml: {name!r} has to be a table")
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _convert(value: Any, kind: Any, where: str) -> Any:
    """Turn what a file or the environment says into the field's type."""
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
