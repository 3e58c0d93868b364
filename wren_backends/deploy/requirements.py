"""What packages are wanted, wherever that is written down: this environment, names, a requirements file, `uv.lock`."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from wren_backends.deploy import environment, uv
from wren_backends.errors import ConfigError

_DEEPEST = 10
_LOCAL = re.compile(r"(-e|--editable)[ =]|[./~]|[A-Za-z]:\\|file:")
_COMMENT = re.compile(r"(^|\s)#.*$")
_NESTED = re.compile(r"(-r|--requirements?|-c|--constraints?)(?:\s*=\s*|\s+|(?<=-[rc]))(.+)")


@dataclass(frozen=True)
class Requirements:
    """What is wanted.

    Attributes:
        origin: Where that is written, for people.
        lines: As in a requirements file.
        constraints: Versions that count only if something wants the package, as in a constraints file.
        deps: Whether what they depend on is wanted too; False: the lines name all of it.
        preferred: Versions to take where nothing speaks against it, (name, version): those of the client.
        copied: Names of installed distributions whose files are taken from here, since no index has them.
        notes: What was left out and why, for people.
    """

    origin: str
    lines: tuple[str, ...]
    constraints: tuple[str, ...] = ()
    deps: bool = True
    preferred: tuple[tuple[str, str], ...] = ()
    copied: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Changes with everything that changes what is found for it."""
        # Of what is copied the version may stay while the files change: RECORD has their hashes.
        copied = [(one.name, one.version, one.read_text("RECORD")) for one in map(distribution, self.copied)]
        content = [self.lines, self.constraints, self.deps, self.preferred, copied]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def options(self) -> tuple[str, ...]:
        """Those lines that name no package but, say, an index."""
        return tuple(line for line in self.lines if line.startswith("-"))

    @property
    def hashed(self) -> bool:
        """Whether the lines say by hash which files are meant."""
        return any("--hash" in line for line in self.lines)


def from_environment(*, exact: bool = True, without: Iterable[str] = ()) -> Requirements:
    """What is installed here and calls need, in the same versions.

    Args:
        exact: Whether another version than the one here is an error; False: where it has no wheel for Lambda, the
            newest that has one is taken.
        without: Names of distributions to leave out, and with them what nothing else depends on.
    """
    chosen = environment.choose(without=without)
    index = {name: version for name, version in chosen.versions.items() if name not in chosen.copied}
    pins = tuple(f"{name}=={version}" for name, version in index.items())
    notes = [f"{', '.join(chosen.editable)}: editable, travels with the calls that use it"] if chosen.editable else []
    wanted = Requirements("this environment", pins, deps=False, copied=chosen.copied, notes=tuple(notes))
    roots = tuple(name for name in chosen.roots if name in index)
    if not exact:
        return replace(wanted, lines=roots, deps=True, preferred=tuple(index.items()))
    if sys.platform != "linux":
        # Some of what is here is for this system only, and Lambda's may need others: uv knows which.
        return replace(wanted, lines=tuple(f"{name}=={index[name]}" for name in roots), constraints=pins, deps=True)
    return wanted


def from_names(names: Iterable[str]) -> Requirements:
    """Packages by name, such as `numpy` or `pandas==2.2.*`, and what they depend on.

    Where a name leaves the version open, it is that of this environment if it has a wheel for Lambda.

    Raises:
        ConfigError: One is not a requirement.
    """
    names = tuple(sorted({name.strip() for name in names if name.strip()}))
    for name in names:
        try:
            Requirement(name)
        except InvalidRequirement as error:
            raise ConfigError(
                f"{name!r} does not name a package ({str(error).splitlines()[0]}): write it as pip does, "
                'such as numpy or "pandas==2.2.*"'
            ) from None
    if not names:
        raise ConfigError("no package is named: name some, such as numpy, or take those of this environment")
    return Requirements("names", names, preferred=_here())


def from_file(path: str | Path) -> Requirements:
    """A requirements file, with the files that it names, and what its packages depend on.

    Folders and editable installs in it are left out: the user's own modules travel with the calls.

    Raises:
        ConfigError: It cannot be read.
    """
    lines: list[str] = []
    constraints: list[str] = []
    notes: list[str] = []
    for line, is_constraint in _read(Path(path), 0, is_constraint=False):
        if _LOCAL.match(line):
            notes.append(f"{line}: a folder, or editable; travels with the calls that use it")
        else:
            (constraints if is_constraint else lines).append(line)
    return Requirements(str(path), tuple(lines), tuple(constraints), preferred=_here(), notes=tuple(notes))


def from_lock(path: str | Path, extras: Iterable[str] = ()) -> Requirements:
    """What a `uv.lock` pins, without its development groups and the projects that it belongs to.

    Args:
        path: The file, or its folder.
        extras: Extras of the project to take along.

    Raises:
        ConfigError: There is none.
        DeploymentError: uv cannot read it.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    if not (folder / "uv.lock").is_file() or path.name not in ("uv.lock", folder.name):
        raise ConfigError(f"{path} is no uv.lock: make one with `uv lock`, or name its folder")
    if not (folder / "pyproject.toml").is_file():
        raise ConfigError(f"{folder / 'uv.lock'} has no pyproject.toml beside it, which uv needs to read it")
    text = uv.export(folder.resolve(), extras)
    return Requirements(str(folder / "uv.lock"), tuple(_joined(text)), deps=False)


def _here() -> tuple[tuple[str, str], ...]:
    return tuple(sorted(environment.versions_here().items()))


def _read(path: Path, depth: int, *, is_constraint: bool) -> Iterator[tuple[str, bool]]:
    """Lines of a file and of those that it names, relative to itself as pip has it."""
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"the requirements file {path} cannot be read: {error}") from None
    if depth > _DEEPEST:
        raise ConfigError(f"the requirements file {path} names files that name files, more than {_DEEPEST} deep")
    for line in _joined(text):
        nested = _NESTED.fullmatch(line)
        if nested:
            yield from _read(path.parent / nested[2], depth + 1, is_constraint=is_constraint or "c" in nested[1][:3])
        else:
            yield line, is_constraint


def _joined(text: str) -> list[str]:
    """Lines without comments; what a backslash continues is one line."""
    lines = [_COMMENT.sub("", line).rstrip() for line in text.splitlines()]
    whole = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    return [line.strip() for line in whole.splitlines() if line.strip()]
