"""Compiles packages beforehand: a layer is read-only, so that functions would do it again at each cold start.

Importing numpy, scipy, pandas, dask and scikit-learn takes less than a third of the CPU time then
(`benchmarks/package_formats.py`). The files say that their source is not to be looked at, as its date is another there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from lambda_worker.protocol import python_version
from wren_backends.deploy.target import Target

_LIMIT_S = 900.0


def compile_below(folder: Path, target: Target, room: int | None) -> None:
    """Compile all modules below `folder`, if this is the target's Python, which alone can.

    Args:
        folder: It stands on `sys.path`.
        target: What they are to run on.
        room: How many bytes it may take; None: any. Modules near the top come first, being more likely to be imported.
    """
    if target.python != python_version():
        return
    options = ["-q", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "-s", str(folder)]
    subprocess.run(
        # Sources that do not compile, such as templates, are none of ours: the status tells of them.
        [sys.executable, "-I", "-m", "compileall", *options, str(folder)],
        check=False,
        timeout=_LIMIT_S,
        capture_output=True,
    )
    if room is not None:
        _keep_within(folder, room)


def _keep_within(folder: Path, room: int) -> None:
    found = sorted(folder.rglob("__pycache__/*.pyc"), key=lambda path: (len(path.parts), str(path)))
    for path in found:
        room -= path.stat().st_size
        if room < 0:
            path.unlink()
    for cache in folder.rglob("__pycache__"):
        if not os.listdir(cache):
            cache.rmdir()
