"""Which differences between the packages of client and function matter, and how versions are found out.

The rule: a difference is **hard** where what one side pickles the other is known not to unpickle. Python's own minor
version and the protocol are (`runner.py`); so is another major version of the few packages whose private modules and
functions are named by nearly every pickle (`_HARD`). It is **soft**, and worth one warning, where a package that
pickles are made of differs in its first two numbers. All else may differ.

A package counts once the client has imported it. Nothing is imported to learn a version.
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_HARD = frozenset({"cloudpickle", "numpy", "pandas"})
"""cloudpickle's pickles name its private functions; numpy's of 2 name `numpy._core`, which 1 does not have; pandas'
name the internals of its frames and, since 3, a string type that 2 does not have."""

WATCHED: Mapping[str, str] = {
    "PIL": "pillow",
    "cloudpickle": "cloudpickle",
    "dask": "dask",
    "distributed": "distributed",
    "joblib": "joblib",
    "lightgbm": "lightgbm",
    "networkx": "networkx",
    "numba": "numba",
    "numpy": "numpy",
    "pandas": "pandas",
    "polars": "polars",
    "pyarrow": "pyarrow",
    "scipy": "scipy",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "statsmodels": "statsmodels",
    "sympy": "sympy",
    "torch": "torch",
    "xarray": "xarray",
    "xgboost": "xgboost",
}
"""Modules whose versions are compared, and the distributions that they are from."""

_NUMBERS = re.compile(r"(\d+)(?:\.(\d+))?")

_found: dict[str, str] = {}

Differences = dict[str, tuple[str, str]]
"""Versions by package: the client's, the function's."""


def loaded() -> frozenset[str]:
    """Distributions that are compared and that this process has imported."""
    return frozenset(name for module, name in WATCHED.items() if module in sys.modules)


def versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of those distributions that are installed here."""
    for name in names:
        if name not in _found:
            try:
                _found[name] = version(name)
            except (PackageNotFoundError, ValueError, KeyError, OSError):  # none, or its metadata are damaged
                _found[name] = ""
    return {name: _found[name] for name in names if _found[name]}


def hard_differences(clients: Mapping[str, str], functions: Mapping[str, str]) -> Differences:
    """Those that keep one side from unpickling what the other has pickled."""
    return {name: pair for name, pair in _pairs(clients, functions) if _is_hard(name, *pair)}


def soft_differences(clients: Mapping[str, str], functions: Mapping[str, str]) -> Differences:
    """Those under which results may differ, or some pickles fail."""
    return {
        name: pair
        for name, pair in _pairs(clients, functions)
        if _numbers(pair[0]) != _numbers(pair[1]) and not _is_hard(name, *pair)
    }


def worded(differences: Differences) -> str:
    """Differences as a sentence without its end."""
    clients = ", ".join(f"{name} {theirs}" for name, (theirs, _) in sorted(differences.items()))
    functions = ", ".join(f"{name} {ours}" for name, (_, ours) in sorted(differences.items()))
    return f"the client has {clients}, this function {functions}"


def install_command(differences: Differences) -> str:
    """What to type for the client to have the function's versions."""
    return "pip install " + " ".join(f"'{name}=={ours}'" for name, (_, ours) in sorted(differences.items()))


def _is_hard(name: str, client: str, function: str) -> bool:
    return name in _HARD and _numbers(client)[0] != _numbers(function)[0]


def _pairs(clients: Mapping[str, str], functions: Mapping[str, str]) -> list[tuple[str, tuple[str, str]]]:
    return [(name, (clients[name], functions[name])) for name in sorted(clients) if functions.get(name)]


def _numbers(text: str) -> tuple[int, int]:
    found = _NUMBERS.search(text.rpartition("!")[2])
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


def installed() -> dict[str, Any]:
    """Python's version here, and those of all distributions that are compared; `wren doctor` calls it on both sides."""
    return {"python": platform.python_version(), "packages": versions(WATCHED.values())}
