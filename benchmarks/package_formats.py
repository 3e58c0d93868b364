"""How an archive of packages is best packed, and what compiling them beforehand saves at a cold start.

Everything is in CPU seconds of one core, which is what a function with 1769 MB has. The packages are downloaded.
"""

from __future__ import annotations

import importlib.metadata
import resource
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from _shared import show

from wren_backends.deploy import requirements, trimming, uv
from wren_backends.deploy.bytecode import compile_below
from wren_backends.deploy.packing import files_below, pack
from wren_backends.deploy.target import Target

NAMES = ["numpy", "scipy", "scikit-learn", "pandas", "dask[array,dataframe]", "joblib"]
Files = list[tuple[str, Path]]
IMPORTS = "import numpy, scipy.stats, pandas, dask.array, joblib, sklearn.svm, sklearn.model_selection"


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of this process and of its children that `work` takes."""
    before = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    work()
    after = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime for a, b in zip(before, after, strict=True))


def fetch(folder: Path, target: Target) -> tuple[int, int]:
    """The trimmed tree."""
    wanted = requirements.from_names(NAMES)
    pins = uv.resolve(wanted.lines, target, deps=True, preferred=dict(wanted.preferred))
    uv.install("\n".join(pins), target, folder, deps=False)
    return trimming.trim(folder)


def unzip(path: Path, into: str) -> None:
    """As the worker does it."""
    with zipfile.ZipFile(path) as bundle:
        bundle.extractall(into)


def untar(path: Path, into: str) -> None:
    """All of it, one file after the other, as the format wants it."""
    with tarfile.open(path) as bundle:
        bundle.extractall(into, filter="fully_trusted")


def make_tar(files: Files, path: Path, mode: Any, **more: int) -> None:
    """A compressed tar."""
    with tarfile.open(path, mode, **more) as bundle:
        for name, file in files:
            bundle.add(file, name)


def store(files: Files, path: Path) -> None:
    """A zip without compression."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as bundle:
        for name, file in files:
            bundle.write(file, name)


def formats(files: Files, work: Path) -> Iterator[tuple[str, str, str, str]]:
    """A row for each format."""
    ways = {
        "zip, stored": (lambda path: store(files, path), unzip),
        **{f"zip, deflate {level}": (lambda path, level=level: pack(files, path, level), unzip) for level in (1, 4, 6)},
        "tar, gzip 6": (lambda path: make_tar(files, path, "w:gz", compresslevel=6), untar),
        "tar, xz 0": (lambda path: make_tar(files, path, "w:xz", preset=0), untar),
    }
    for name, (make, take) in ways.items():
        path = work / "archive"
        packing = cpu(lambda make=make, path=path: make(path))
        with tempfile.TemporaryDirectory(dir=work) as into:
            unpacking = cpu(lambda take=take, path=path, into=into: take(path, into))
        yield name, f"{path.stat().st_size / 1e6:.0f}", f"{packing:.1f}", f"{unpacking:.1f}"


def importing(folder: Path) -> float:
    """CPU seconds of a fresh interpreter that sees nothing but these packages."""
    source = f"import sys; sys.path.insert(0, {str(folder)!r}); sys.dont_write_bytecode = True; {IMPORTS}"
    return cpu(lambda: subprocess.run([sys.executable, "-I", "-S", "-c", source], check=True))


def main() -> None:
    """Print both tables."""
    target = Target.here()
    with tempfile.TemporaryDirectory(prefix="wren-") as name:
        work = Path(name)
        tree = work / "tree"
        before, after = fetch(tree, target)
        uv_version = importlib.metadata.version("uv")
        print(
            f"{', '.join(NAMES)} for {target} (uv {uv_version}): {before / 1e6:.0f} MB, trimmed {after / 1e6:.0f} MB\n"
        )
        show("Formats", ("format", "MB", "pack, CPU s", "unpack, CPU s"), list(formats(files_below(tree), work)))
        plain = [importing(tree) for _ in range(2)][-1]
        compile_below(tree, target, None)
        compiled = [importing(tree) for _ in range(2)][-1]
        more = (trimming.size(tree) - after) / 1e6
        print(f"\n{IMPORTS}")
        rows = [("as source", "0", f"{plain:.1f}"), ("compiled", f"{more:.0f}", f"{compiled:.1f}")]
        show("Imports", ("modules", "MB more", "CPU s"), rows)


if __name__ == "__main__":
    main()
