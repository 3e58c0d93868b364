"""Runs uv, which finds and unpacks wheels for another machine than this one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from wren_backends.deploy.indexes import indexes_for_uv
from wren_backends.deploy.target import Target
from wren_backends.errors import DeploymentError

_LIMIT_S = 1800.0
_LAST_LINES = 15

_NO_WHEEL = re.compile(
    r"(?:Wheels are required for `([A-Za-z0-9._-]+)`|\b([A-Za-z0-9._-]+)\S* has no (?:usable )?wheels)"
)
_UNKNOWN = re.compile(r"\b([A-Za-z0-9._-]+) was not found in")
_AWAY = ("Failed to fetch", "error sending request", "Request failed")


class UvError(Exception):
    """uv ended with an error; the message is what it printed."""


@dataclass(frozen=True)
class _Question:
    """What uv is asked to find versions for."""

    lines: tuple[str, ...]
    target: Target
    deps: bool
    preferred: Mapping[str, str] = field(default_factory=dict)
    constraints: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


def resolve(
    lines: Iterable[str],
    target: Target,
    *,
    deps: bool,
    preferred: Mapping[str, str],
    constraints: Iterable[str] = (),
) -> list[str]:
    """Find a version with a wheel for everything that is asked for.

    Args:
        lines: Requirements, as in a requirements file.
        target: What the wheels have to run on.
        deps: Whether what they depend on is wanted too.
        preferred: Versions by name to take where nothing speaks against it.
        constraints: Requirements that count only for what is wanted anyway.

    Returns:
        Requirements with exact versions.

    Raises:
        DeploymentError: Something has no wheel for that target, is not there, or the index does not answer.
    """
    question = _Question(tuple(lines), target, deps, preferred, tuple(constraints))
    try:
        return _compile(question)
    except UvError as error:
        raise _explained(question, str(error)) from None


def install(text: str, target: Target, folder: Path, *, deps: bool, constraints: Iterable[str] = ()) -> None:
    """Unpack the wheels of what `text`, a requirements file, names into `folder`.

    Raises:
        DeploymentError: uv does not do it: no wheel, a wrong hash, no network.
    """
    arguments = ["pip", "install", *_target(target), "--target", str(folder), *([] if deps else ["--no-deps"])]
    try:
        with tempfile.TemporaryDirectory(prefix="wren-") as temporary:
            bounds = Path(temporary, "bounds.txt")
            bounds.write_text("".join(f"{line}\n" for line in constraints))
            # Each file is removed or read, never written to: links to uv's cache will do.
            _uv([*arguments, "--constraints", str(bounds), "--requirements", "-"], text)
    except UvError as error:
        raise DeploymentError(f"the packages for {target} could not be fetched:\n{_last_lines(str(error))}") from None


def export(folder: Path, groups: Iterable[str]) -> str:
    """Text of a requirements file with everything that `uv.lock` in `folder` pins, but what is built from source there.

    Raises:
        DeploymentError: It cannot be read.
    """
    chosen = [f"--extra={one}" for one in groups]
    arguments = ["export", "--frozen", "--no-dev", "--no-emit-project", "--no-emit-workspace", "--no-emit-local"]
    try:
        return _uv([*arguments, "--no-header", "--no-annotate", *chosen, "--project", str(folder)], cwd=folder)
    except UvError as error:
        raise DeploymentError(f"{folder / 'uv.lock'} could not be read:\n{_last_lines(str(error))}") from None


def _compile(question: _Question) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="wren-") as folder:
        found, bounds, left_out = (Path(folder, name) for name in ("found.txt", "bounds.txt", "left-out.txt"))
        # What the output file says already is what uv prefers, but does not insist on.
        found.write_text("".join(f"{name}=={version}\n" for name, version in question.preferred.items()))
        bounds.write_text("".join(f"{line}\n" for line in question.constraints))
        left_out.write_text("".join(f"{name} ; python_version < '0'\n" for name in question.without))
        arguments = ["pip", "compile", *_target(question.target), "--no-header", "--no-annotate"]
        arguments += ["--constraint", str(bounds), "--override", str(left_out), "--output-file", str(found), "-"]
        _uv([*arguments, *([] if question.deps else ["--no-deps"])], "".join(f"{line}\n" for line in question.lines))
        return [line for line in found.read_text().splitlines() if line and not line.startswith("#")]


def _explained(question: _Question, said: str) -> DeploymentError:
    """The error that names all packages at once: uv names one, so it is asked again without that one, and so on."""
    lacking: dict[str, str] = {}
    while True:
        names = {one or other: "no-wheel" for one, other in _NO_WHEEL.findall(said)}
        names |= dict.fromkeys(_UNKNOWN.findall(said), "unknown")
        new = {name: why for name, why in names.items() if name not in lacking}
        if not new:
            break
        lacking |= new
        try:
            _compile(replace(question, without=tuple(lacking)))
        except UvError as error:
            said = str(error)
        else:
            said = ""
    if said and any(one in said for one in _AWAY):
        return DeploymentError(
            f"the package index does not answer, or refuses:\n{_last_lines(said)}\nCheck the network, and the index "
            "that uv or pip is configured with (UV_DEFAULT_INDEX, PIP_INDEX_URL)"
        )
    if not lacking:
        return DeploymentError(f"there are no packages for {question.target} that fit together:\n{_last_lines(said)}")
    told = [_told(name, why, question) for name, why in sorted(lacking.items())]
    rest = f"\nBeside that:\n{_last_lines(said)}" if said else ""
    return DeploymentError(
        f"{len(told)} of the packages cannot be had for {question.target}, for which they have to be wheels:\n"
        + "\n".join(f"  {one}" for one in told)
        + rest
        + "\nLeave out what your calls do not need, name another version of it, or use a newer Python here and there"
    )


def _told(name: str, why: str, question: _Question) -> str:
    wanted = next(
        (line for line in question.lines if re.match(rf"{re.escape(name)}(?![\w.-])", line, re.IGNORECASE)), name
    )
    wanted = wanted.split(" --hash")[0].split(";")[0].strip(" \\")
    if why == "unknown":
        return f"{wanted}: the package index does not know it"
    try:
        [other] = _compile(_Question((name,), question.target, deps=False))
    except (UvError, ValueError):
        return f"{wanted}: no version of it has a wheel"
    return f"{wanted}: no wheel; the newest version with one is {other.partition('==')[2].split()[0]}"


def _target(target: Target) -> list[str]:
    return ["--only-binary", ":all:", "--python-platform", target.uv_platform, "--python-version", target.python_text]


def _uv(arguments: list[str], text: str = "", cwd: Path | None = None) -> str:
    """What uv prints; it is found where pip has put it, in this environment."""
    import uv

    try:
        binary = uv.find_uv_bin()
    except FileNotFoundError:
        raise DeploymentError("uv is not installed: `pip install uv` brings it") from None
    indexes = indexes_for_uv(folder=cwd)
    environment = {**os.environ, **indexes.variables}
    command = [binary, "--quiet", "--color", "never", *arguments]
    if arguments[0] == "pip":
        command += ["--python", sys.executable, *indexes.arguments]
    try:
        done = subprocess.run(
            command, input=text, cwd=cwd, env=environment, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise UvError(f"uv did not end within {_LIMIT_S:.0f} s") from None
    if done.returncode != 0:
        raise UvError(done.stderr.strip() or f"uv ended with status {done.returncode}")
    return done.stdout


def _last_lines(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines()[-_LAST_LINES:])
