"""Settings: one frozen dataclass, filled from arguments, the environment and files, in this order.

`sources.py` says where they lie. Credentials, region and profile are those of boto3.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_type_hints

from lambda_worker.protocol import ProtocolError, check_bucket, check_prefix, shown
from wren_backends.errors import ConfigError
from wren_backends.sources import collect, stated

_LEAST_MEMORY_MB, _MOST_MEMORY_MB = 128, 10240
_MOST_TIMEOUT_S = 900
"""AWS Lambda quotas: function memory allocation, function timeout."""

_FUNCTION = re.compile(r"[A-Za-z0-9_-]{1,64}")  # AWS Lambda API reference, CreateFunction, FunctionName
_MOST_EPHEMERAL_MB = 10240
"""AWS Lambda quotas: /tmp directory storage."""

DEFAULT_MEMORY_MB, DEFAULT_TIMEOUT_S = 1769, 900
"""What a new function gets where nothing is set: 1769 MB is one vCPU, and the longest that Lambda lets a call run."""


def _setting(
    default: Any, text: str, choices: tuple[str, ...] = (), least: float | None = None, most: float | None = None
) -> Any:
    return field(default=default, metadata={"text": text, "choices": choices, "least": least, "most": most})


@dataclass(frozen=True)
class Config:
    """Everything that can be set. `docs/settings.md` has the same as a table, made by `Config.table`."""

    cloud: str = _setting(
        "auto", "`aws`, `local`, or `auto`: AWS where a bucket is configured, else local.", ("auto", "aws", "local")
    )
    region: str | None = _setting(None, "AWS region; unset: boto3's.")
    bucket: str | None = _setting(None, "S3 bucket that coordinates, in the same region; `wren setup` makes it.")
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
        "Calls that ran out of memory run once more with this much, on a function that `wren setup` makes too.",
        least=_LEAST_MEMORY_MB,
        most=_MOST_MEMORY_MB,
    )
    calls_per_invocation: int = _setting(1000, "Most waiting calls that one invocation carries.", least=1)
    inline_limit_bytes: int = _setting(
        128 * 1024, "Pickles and buffers above this go to S3 as blobs, once each.", least=0
    )
    commit_after_s: float = _setting(
        10.0, "In `direct`, a call that ran longer commits its outcome to S3 before it answers.", least=0
    )
    forward_output: bool = _setting(True, "Show in the client what calls print and warn.")
    echo_output: bool = _setting(
        False,
        "Show each line that calls print while they run, from the function's log, with the call's number before it.",
    )
    memory_mb: int | None = _setting(
        None,
        f"Memory of the function that runs calls. Unset: what function `function` has, {DEFAULT_MEMORY_MB} MB (one "
        "vCPU) if it is new.",
        least=_LEAST_MEMORY_MB,
        most=_MOST_MEMORY_MB,
    )
    sizes_mb: tuple[int, ...] = _setting(
        (),
        "Memory of further functions that are deployed beside it, for `memory_mb=` to choose from.",
        least=_LEAST_MEMORY_MB,
        most=_MOST_MEMORY_MB,
    )
    timeout_s: int | None = _setting(
        None,
        f"Time limit of a function that is deployed, in seconds. Unset: what it has, {DEFAULT_TIMEOUT_S} if it is new.",
        least=1,
        most=_MOST_TIMEOUT_S,
    )
    architecture: str | None = _setting(
        None,
        "`x86_64` or `arm64`, of a function that is deployed. Unset: this machine's.",
        ("x86_64", "arm64"),
    )
    ephemeral_mb: int | None = _setting(
        None,
        "Disk at /tmp of a function that is deployed. Unset: what it has, or 512 MB, or what the packages need.",
        least=512,
        most=_MOST_EPHEMERAL_MB,
    )
    reserved_concurrency: int | None = _setting(
        None, "Invocations that are kept free for, and allowed to, each function that is deployed.", least=0
    )
    subnets: tuple[str, ...] = _setting((), "Subnets of a VPC that deployed functions are put into.")
    security_groups: tuple[str, ...] = _setting((), "Security groups that they have there.")
    layers: tuple[str, ...] = _setting(
        (), "ARNs of layer versions for deployed functions, beside that of the packages."
    )
    tags: tuple[str, ...] = _setting((), "Tags for what is made on AWS, each as KEY=VALUE.")

    def __post_init__(self) -> None:
        for one in fields(self):
            value, choices = getattr(self, one.name), one.metadata["choices"]
            least, most = one.metadata["least"], one.metadata["most"]
            if choices and value not in choices and value != one.default:
                meant = f" (is it {value.lower()!r}?)" if isinstance(value, str) and value.lower() in choices else ""
                raise ConfigError(f"{one.name}={value!r}: has to be one of {', '.join(choices)}{meant}")
            for each in value if isinstance(value, tuple) else (value,):
                if least is not None and each is not None and not each >= least:
                    raise ConfigError(f"{one.name}={value!r}: has to be at least {least}")
                if most is not None and each is not None and each > most:
                    raise ConfigError(f"{one.name}={value!r}: has to be at most {most}, Lambda's limit")
        self._check_names()
        self._check_deployed()

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

    def _check_deployed(self) -> None:
        for name in self.sizes_beside(None):
            if not _FUNCTION.fullmatch(name):
                raise ConfigError(
                    f"function: {self.function!r} is too long for functions of other sizes beside it, such as "
                    f"{name!r}, which may have 64 characters: set WREN_FUNCTION to a shorter name, or leave out "
                    "sizes_mb and retry_memory_mb"
                )
        if bool(self.subnets) != bool(self.security_groups):
            raise ConfigError("subnets and security_groups: a function in a VPC needs both, one outside neither")
        for tag in self.tags:
            if not all(tag.partition("=")):
                raise ConfigError(f"tags: {tag!r} has to be KEY=VALUE")

    @classmethod
    def load(cls, **arguments: Any) -> Config:
        """Collect the settings; arguments that are None count as not given.

        Raises:
            ConfigError: A name is unknown, or a value has the wrong type or is out of bounds; it says where it stands.
        """
        found = collect(arguments, _kinds())
        try:
            return cls(**{name: value for name, (value, _) in found.items()})
        except ConfigError as error:
            name = re.split("[=:]", str(error), maxsplit=1)[0]
            where = found.get(name, (None, "argument"))[1]
            if where == "argument":
                raise
            raise ConfigError(f"{stated(where, name)}: {error}") from None

    @classmethod
    def origins(cls) -> dict[str, str]:
        """Where each setting that is not the default comes from, without arguments; raises as `load` does."""
        return {name: where for name, (_, where) in collect({}, _kinds()).items()}

    def of_size(self, memory_mb: int) -> Config:
        """These settings for the function of another size that stands beside the one named `function`."""
        return replace(self, function=self.name_of_size(memory_mb), memory_mb=memory_mb, retry_memory_mb=None)

    def of_larger_function(self) -> Config | None:
        """Settings of the function that runs calls again which ran out of memory; None if there is to be none."""
        return None if self.retry_memory_mb is None else self.of_size(self.retry_memory_mb)

    def each_function(self, there: Mapping[str, int] | None = None) -> list[Config]:
        """Settings of the function named `function` and of those of other sizes, each under its own name.

        Args:
            there: Name and memory of those that are there, whatever the settings say.
        """
        beside = {**self.sizes_beside(self.memory_mb), **(there or {})}
        ordered = sorted(beside.items(), key=lambda one: one[1])
        base = replace(self, sizes_mb=(), retry_memory_mb=None)
        return [base, *(replace(base, function=name, memory_mb=memory_mb) for name, memory_mb in ordered)]

    def sizes_beside(self, base_mb: int | None) -> dict[str, int]:
        """Names and memory of the functions that these settings want beside the one named `function`.

        Args:
            base_mb: Memory of that one, if it is known.
        """
        wanted = {*self.sizes_mb} - {base_mb} | {*([self.retry_memory_mb] if self.retry_memory_mb else [])}
        return {self.name_of_size(one): one for one in sorted(wanted)}

    def name_of_size(self, memory_mb: int) -> str:
        """Name of the function of another size that stands beside the one named `function`."""
        return f"{self.function}-{memory_mb}mb"

    @classmethod
    def table(cls) -> str:
        """The settings as a Markdown table."""
        lines = ["| setting | environment | default | what it does |", "|---|---|---|---|"]
        for one in fields(cls):
            default = "" if one.default in (None, ()) else f"`{one.default}`"
            lines.append(f"| `{one.name}` | `WREN_{one.name.upper()}` | {default} | {one.metadata['text']} |")
        return "\n".join(lines)


@functools.cache
def _kinds() -> Mapping[str, Any]:
    """Type of each setting; to find them takes a millisecond, and settings are loaded with each computation."""
    return get_type_hints(Config)


def _function(name: str) -> str:
    if not isinstance(name, str) or not _FUNCTION.fullmatch(name):
        raise ProtocolError(f"not the name of a function: {shown(name)} (1-64 letters, digits, '_' and '-')")
    return name
