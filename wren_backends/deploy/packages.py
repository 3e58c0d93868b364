"""Builds the packages that a function has beside the worker: fetched, trimmed, packed, and kept for the next time.

What fits into Lambda together with the function becomes a layer. The rest becomes an archive: zips of at most some
tens of megabytes and a list of them, which workers fetch from the bucket (`lambda_worker/packages.py`).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import Distribution, PathDistribution, distribution, distributions
from importlib.util import cache_from_source
from pathlib import Path

import blake3
from packaging.utils import canonicalize_name

from lambda_worker.protocol import PACKAGES_FORMAT
from wren_backends.deploy import trimming, uv
from wren_backends.deploy.bytecode import compile_below
from wren_backends.deploy.packing import digest_of, files_below, pack
from wren_backends.deploy.publishing import Published, publish
from wren_backends.deploy.requirements import Requirements
from wren_backends.deploy.target import Target
from wren_backends.errors import DeploymentError
from wren_backends.local.paths import cache_directory

__all__ = ["Built", "Piece", "Published", "build", "publish"]

UNZIPPED_BYTES = 262_144_000
"""Most that a function and its layers may take, unzipped (AWS Lambda quotas: 250 MB)."""

COMPILED_RESERVE_BYTES = 10_000_000
"""Room that compiled modules leave beside the function, for its next versions, whose libraries may be larger."""

LAYERS_RESERVE_BYTES = 100_000_000
"""The same where the function has other layers, whose sizes nobody says before the function is given them."""

_BUILD = 2
"""Part of the cache's keys: raised when trimming or packing changes."""

_KEPT = 4
_OWN_PIECE_BYTES = 4_000_000
_PIECE_BYTES = 64_000_000
_PACKERS = 4

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Piece:
    """One zip of an archive.

    Attributes:
        digest: BLAKE3 of it.
        size: Its length in bytes.
        unpacked: What its files take on a disk, in bytes.
    """

    digest: str
    size: int
    unpacked: int


@dataclass(frozen=True)
class Built:
    """Packages, ready to be published.

    Attributes:
        target: What they run on.
        digest: Of names and contents of all files; the same packages have the same one.
        versions: Versions of the distributions by name.
        differing: Those of which the client has another version: its version by name.
        fetched_bytes: What the wheels unpack to.
        trimmed_bytes: What is left of that after trimming.
        unpacked_bytes: That, and what was compiled.
        packed_bytes: What the zips take.
        pieces: Zips of the archive; empty for a layer.
        seconds: How long each step took, by its name.
        notes: What was left out and why, for people.
        folder: Where the files are: `layer.zip`, or one zip for each piece and `list.json`.
        reused: Whether they were there already.
    """

    target: Target
    digest: str
    versions: Mapping[str, str]
    differing: Mapping[str, str]
    fetched_bytes: int
    trimmed_bytes: int
    unpacked_bytes: int
    packed_bytes: int
    pieces: tuple[Piece, ...]
    seconds: Mapping[str, float]
    notes: tuple[str, ...]
    folder: Path = field(default_factory=Path)
    reused: bool = False

    @property
    def fits_layer(self) -> bool:
        """Whether they are a layer."""
        return not self.pieces

    @property
    def summary(self) -> str:
        """One line with sizes and times."""
        steps = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
        return (
            f"{len(self.versions)} packages for {self.target}: {_mb(self.fetched_bytes)} as wheels, "
            f"{_mb(self.trimmed_bytes)} trimmed, {_mb(self.unpacked_bytes)} compiled, {_mb(self.packed_bytes)} packed "
            f"({'there already' if self.reused else steps})"
        )


def build(
    requirements: Requirements,
    target: Target,
    progress: Progress | None = None,
    *,
    refresh: bool = False,
    reserve: int = COMPILED_RESERVE_BYTES,
) -> Built:
    """Make the packages, or find them in the cache.

    Args:
        requirements: What is wanted.
        target: What it has to run on.
        progress: Called with a line of text at each step.
        refresh: Look for newer versions where the requirements leave them open.
        reserve: Bytes of a function and its layers that compiled modules leave free, if they are a layer.

    Raises:
        DeploymentError: Something has no wheel for the target, or all of it is too large, or there is no network.
    """
    say = progress or (lambda _: None)
    place = _builds() / f"{requirements.digest[:32]}-{target.runtime}-{target.architecture}-{reserve}-{_BUILD}"
    if not refresh:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            found = replace(_read(place), folder=place, reused=True)
            place.touch()
            return found
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix="making-", dir=place.parent) as making:
        made = _make(requirements, target, Path(making), say, reserve)
        shutil.rmtree(place, ignore_errors=True)
        with contextlib.suppress(OSError):  # somebody else has just made the same
            Path(making, "made").rename(place)
    _forget_old()
    return replace(made, folder=place)


def _builds() -> Path:
    return cache_directory() / "packages"


def _read(place: Path) -> Built:
    raw = json.loads((place / "built.json").read_text("utf-8"))
    target = Target((raw["target"]["python"][0], raw["target"]["python"][1]), raw["target"]["architecture"])
    pieces = tuple(Piece(**one) for one in raw["pieces"])
    names = [f"{one.digest}.zip" for one in pieces] or ["layer.zip"]
    if not all((place / name).is_file() for name in names):
        raise FileNotFoundError(place)
    return Built(**{**raw, "target": target, "pieces": pieces, "notes": tuple(raw["notes"]), "folder": place})


def _forget_old() -> None:
    builds = [one for one in _builds().iterdir() if (one / "built.json").is_file()]
    for old in sorted(builds, key=lambda one: one.stat().st_mtime_ns)[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def _make(requirements: Requirements, target: Target, making: Path, say: Progress, reserve: int) -> Built:
    timed = _Timed(say)
    tree, made = making / "tree", making / "made"
    tree.mkdir()
    made.mkdir()
    with timed("resolve", f"looking for wheels that run on {target}"):
        text = _resolved(requirements, target)
    with timed("fetch", "fetching them"):
        deps = requirements.deps and requirements.hashed  # else the text names them all
        uv.install(text, target, tree, deps=deps, constraints=requirements.constraints)
        for name in requirements.copied:
            _copy(name, target, tree)
    with timed("trim", f"trimming {_mb(trimming.size(tree))}"):
        before, after = trimming.trim(tree)
        versions = {canonicalize_name(one.metadata["Name"]): one.version for one in distributions(path=[str(tree)])}
    room = UNZIPPED_BYTES - _unzipped_function(target) - after
    digest = digest_of(files_below(tree))
    with timed("compile", "compiling them"):
        compile_below(tree, target, max(0, room - reserve) if room >= 0 else None)
    with timed("pack", f"packing {_mb(trimming.size(tree))} as {'an archive' if room < 0 else 'a layer'}"):
        if room >= 0:
            pack(((f"python/{name}", path) for name, path in files_below(tree)), made / "layer.zip")
        pieces = () if room >= 0 else tuple(_pieces(tree, made))
    here = dict(requirements.preferred)
    built = Built(
        target=target,
        digest=digest,
        versions=dict(sorted(versions.items())),
        differing={name: here[name] for name in versions if here.get(name, versions[name]) != versions[name]},
        fetched_bytes=before,
        trimmed_bytes=after,
        unpacked_bytes=trimming.size(tree),
        packed_bytes=sum(one.stat().st_size for one in made.iterdir()),
        pieces=pieces,
        seconds=timed.seconds,
        notes=requirements.notes,
    )
    if pieces:
        (made / "list.json").write_bytes(listing(built))
    raw = {**asdict(built), "folder": ""}
    del raw["folder"], raw["reused"]
    (made / "built.json").write_text(json.dumps(raw, indent=1), "utf-8")
    return built


def listing(built: Built) -> bytes:
    """The list that an archive is found by: workers know its hash and trust nothing else."""
    found = {"format": PACKAGES_FORMAT, "pieces": [[one.digest, one.size, one.unpacked] for one in built.pieces]}
    return json.dumps(found, separators=(",", ":")).encode()


def _resolved(requirements: Requirements, target: Target) -> str:
    """A requirements file with exact versions; one that names files by hash is left as it is."""
    lines = list(requirements.lines)
    if requirements.hashed or not lines:
        return "\n".join(lines)
    pins = uv.resolve(
        lines,
        target,
        deps=requirements.deps,
        preferred=dict(requirements.preferred),
        constraints=requirements.constraints,
    )
    return "\n".join([*requirements.options, *pins])


def _copy(name: str, target: Target, tree: Path) -> None:
    """Take a distribution's files from this environment, since no index has it."""
    found = distribution(name)
    if not _is_pure(found):
        raise DeploymentError(
            f"{name} {found.version} was built on this machine, from a folder or a repository, and does not run on "
            f"{target}: put a wheel of it for Lambda into a folder that UV_FIND_LINKS names and install it from there, "
            "or leave it out"
        )
    for file in found.files or ():
        if ".." not in file.parts and file.suffix != ".pyc":
            place = tree / file
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(found.locate_file(file)), place)


def _is_pure(found: Distribution) -> bool:
    return "Root-Is-Purelib: true" in (found.read_text("WHEEL") or "")


def _unzipped_function(target: Target) -> int:
    from wren_backends.deploy.package import function_zip

    with zipfile.ZipFile(io.BytesIO(function_zip(target))) as bundle:
        return sum(one.file_size for one in bundle.infolist())


def _pieces(tree: Path, made: Path) -> Iterator[Piece]:
    """One or more for each large distribution, so that a change of one leaves the others' zips as they are."""

    def one(number: int, files: list[tuple[str, Path]]) -> Piece:
        place = made / f"{number}.part"
        pack(files, place)
        digest = blake3.blake3().update_mmap(place).hexdigest()
        size = place.stat().st_size
        place.rename(made / f"{digest}.zip")
        return Piece(digest, size, sum(_on_disk(path) for _, path in files))

    with ThreadPoolExecutor(min(_PACKERS, os.cpu_count() or 1)) as pool:  # zlib works without Python's lock
        yield from pool.map(one, *zip(*enumerate(_cut(tree)), strict=True))


def _cut(tree: Path) -> Iterator[list[tuple[str, Path]]]:
    rest: list[tuple[str, Path]] = []
    groups: list[list[tuple[str, Path]]] = []
    for group in _by_distribution(tree):
        if sum(path.stat().st_size for _, path in group) < _OWN_PIECE_BYTES:
            rest += group
        else:
            groups.append(group)
    for group in [*groups, sorted(rest)]:
        files: list[tuple[str, Path]] = []
        taken = 0
        for name, path in group:
            size = path.stat().st_size
            if files and taken + size > _PIECE_BYTES:
                yield files
                files, taken = [], 0
            files.append((name, path))
            taken += size
        if files:
            yield files


def _by_distribution(tree: Path) -> Iterator[list[tuple[str, Path]]]:
    left = dict(files_below(tree))
    for folder in sorted(tree.glob("*.dist-info")):
        names = [file.as_posix() for file in PathDistribution(folder).files or ()]
        names += [cache_from_source(name) for name in names if name.endswith(".py")]
        yield sorted((name, left.pop(name)) for name in names if name in left)
    yield sorted(left.items())


def _on_disk(path: Path) -> int:
    return -(-path.stat().st_size // 4096) * 4096  # a file takes whole blocks


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


class _Timed:
    """Says each step and remembers how long it took."""

    def __init__(self, say: Progress) -> None:
        self._say = say
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str, text: str) -> Iterator[None]:
        self._say(text)
        begun = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - begun, 2)
