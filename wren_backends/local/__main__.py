"""Starts the supervisor of a local cloud: ``python -m wren_backends.local --help``.

The client runs this file by its path: then the package above it is not imported, which would cost joblib and all
that comes with it.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

if not __package__:
    _package = types.ModuleType("wren_backends")
    _package.__path__ = [str(Path(__file__).resolve().parents[1])]
    sys.modules["wren_backends"] = _package
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]


def main() -> int:
    """Parse the command line and serve."""
    from wren_backends.local.options import parse_arguments

    arguments = parse_arguments(sys.argv[1:])
    from wren_backends.local.supervisor import serve

    return serve(arguments)


if __name__ == "__main__":
    sys.exit(main())
