"""Fetches the archive of packages that the function is configured with and makes it importable.

Packages that do not fit into a layer lie in the bucket as zips, and a list of them whose hash the function knows from
its environment. They are unpacked to the disk once per execution environment, while it initialises if that is done soon
enough, else when the first event comes. Each zip is verified before anything of it is unpacked, and one that is done
stays done: the next attempt, be it another process's, goes on with the others.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib
import io
import json
import logging
import os
import re
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import blake3

from lambda_worker.objects import DeniedError, MissingObjectError, ObjectStore, ObjectStoreError
from lambda_worker.protocol import PACKAGES_FORMAT, PACKAGES_VARIABLE, RefusalReason

_log = logging.getLogger("lambda_worker")

INIT_S = 7.0
"""How long an environment's initialisation goes on to unpack. Lambda ends it after 10 s and begins it again within the
first invocation (AWS Lambda developer guide, "Understanding the Lambda execution environment lifecycle")."""

_ADDRESS = re.compile(r"s3://(?P<bucket>[^/]+)/(?P<folder>(?:[^/]+/)*)(?P<digest>[0-9a-f]{64})")
_AT_ONCE = 4
_CHUNK_BYTES = 1 << 20
_LOOK_AGAIN_S = 0.05
_GRACE_S = 2.0  # for zips that were begun in time


class PackagesError(Exception):
    """The packages are not there, and without them nothing is run.

    Args:
        reason: As a reply has it.
        detail: A sentence for the user.
    """

    def __init__(self, reason: RefusalReason, detail: str) -> None:
        super().__init__(detail)
        self.reason: RefusalReason = reason


@dataclass(frozen=True)
class _Piece:
    digest: str
    size: int
    unpacked: int


class Packages:
    """The packages of one function.

    Args:
        address: What the function's environment says of them; empty: there is nothing to do.
        open_store: Opens the object store of a bucket and prefix.
        parent: Folder to unpack in; None: the system's for temporary files, `/tmp` in Lambda.
    """

    def __init__(self, address: str, open_store: Callable[[str, str], ObjectStore], parent: str | None = None) -> None:
        self._address = address
        self._open_store = open_store
        self._parent = parent or tempfile.gettempdir()
        self._lock = threading.Lock()
        self._folder: Path | None = None

    @classmethod
    def of_this_function(cls, open_store: Callable[[str, str], ObjectStore]) -> Packages:
        """Those that the environment names."""
        return cls(os.environ.get(PACKAGES_VARIABLE, ""), open_store)

    def begin(self, limit_s: float = INIT_S) -> bool:
        """Unpack what can be in `limit_s` seconds; what fails is left to `ensure`, which can say so to somebody.

        Returns:
            Whether all of it is there.
        """
        if not self._address:
            return True
        try:
            _in_child(lambda: self.ensure(limit_s), limit_s + _GRACE_S)
            self.ensure(limit_s)  # all there is left to do is to find it
        except PackagesError as error:
            _log.warning("packages.not_ready reason=%s detail=%s", error.reason, error)
            return False
        return True

    def ensure(self, limit_s: float) -> None:
        """Have the packages on `sys.path`; costs next to nothing if they are there.

        Args:
            limit_s: After so many seconds no further zip is begun.

        Raises:
            PackagesError: They cannot be had, or not in that time.
        """
        if not self._address:
            return
        with self._lock:
            if self._folder is not None and (self._folder / "complete").exists():  # calls may clear the disk
                _put_on_path(self._folder / "site")
                return
            self._folder = None
            folder = self._install(time.perf_counter() + limit_s)
            _put_on_path(folder / "site")
            self._folder = folder

    def _install(self, deadline: float) -> Path:
        match = _ADDRESS.fullmatch(self._address)
        if match is None:
            raise PackagesError("configuration", f"{PACKAGES_VARIABLE} names no list of packages: {self._address!r}")
        folder = Path(self._parent, f"wren-packages-{match['digest'][:32]}")
        try:
            with _locked(folder, deadline):
                if not (folder / "complete").exists():
                    store = self._open_store(match["bucket"], match["folder"].strip("/"))
                    begun = time.perf_counter()
                    self._unpack(_pieces(_fetched(store, match["digest"])), store, folder, deadline)
                    _log.warning("packages.unpacked folder=%s seconds=%.1f", folder, time.perf_counter() - begun)
                return folder
        except OSError as error:
            raise PackagesError("configuration", self._disk(folder, error)) from None

    def _unpack(self, pieces: list[_Piece], store: ObjectStore, folder: Path, deadline: float) -> None:
        todo = [one for one in pieces if not (folder / one.digest).exists()]
        needed = sum(one.unpacked for one in todo)
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise PackagesError(
                "configuration",
                f"the function's packages take {_mb(needed)} on the disk, and {self._parent} has {_mb(free)} left: it "
                f"needs an ephemeral storage of {512 + _mebibytes(sum(one.unpacked for one in pieces))} MB",
            )

        def one(piece: _Piece) -> bool:
            if time.perf_counter() > deadline:
                return False
            _extract(_fetched(store, piece.digest), folder / "site")
            (folder / piece.digest).touch()
            return True

        with ThreadPoolExecutor(min(_AT_ONCE, max(1, len(todo)))) as pool:
            # The largest first, so that none of them is waited for alone at the end.
            done = list(pool.map(one, sorted(todo, key=lambda piece: -piece.size)))
        if not all(done):
            raise PackagesError(
                "configuration",
                f"{done.count(False)} of the {len(pieces)} zips of the function's packages were not unpacked in time: "
                "it needs a longer time limit, or more memory, which brings more CPU (`timeout_s`, `memory_mb`)",
            )
        (folder / "complete").touch()

    def _disk(self, folder: Path, error: OSError) -> str:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            shutil.rmtree(folder, ignore_errors=True)  # calls that need no packages are not to find the disk full
            return f"the function's packages do not fit on its disk ({error}): it needs more ephemeral storage"
        return f"the function's packages could not be unpacked in {self._parent}: {error}"


def _in_child(work: Callable[[], None], limit_s: float) -> None:
    """Do it in a process of its own, because obstore's threads, once it is used, are not in clones of this one.

    Raises:
        PackagesError: What it raised there, or that it did not end in `limit_s` seconds.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        answer: list[str] = []
        try:
            work()
        except PackagesError as error:
            answer = [error.reason, str(error)]
        except BaseException as error:  # noqa: BLE001  only one of the two processes may go on
            answer = ["configuration", f"the function's packages could not be unpacked: {error!r}"]
        with contextlib.suppress(BaseException):
            os.write(write, json.dumps(answer).encode())
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        in_time = bool(select.select([pipe], [], [], limit_s)[0])
        if not in_time:
            os.kill(child, signal.SIGKILL)  # what it has not marked as done is done again
        said = pipe.read()
    os.waitpid(child, 0)
    if not in_time:
        raise PackagesError("configuration", f"the function's packages were not unpacked within {limit_s:.0f} s")
    if said and (answer := json.loads(said)):
        raise PackagesError(answer[0], answer[1])


@contextlib.contextmanager
def _locked(folder: Path, deadline: float) -> Iterator[None]:
    """Keep other processes away from a folder; the system lets go of it when this one ends, however it does."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.perf_counter() > deadline:
                    detail = "another process was still unpacking the function's packages at the end of the time limit"
                    raise PackagesError("configuration", detail) from None
                time.sleep(_LOOK_AGAIN_S)
        yield


def _fetched(store: ObjectStore, digest: str) -> memoryview:
    try:
        data = store.get(digest)
    except MissingObjectError:
        detail = f"the function's packages are gone from the bucket: there is no {store.where}/{digest}"
        raise PackagesError("configuration", detail) from None
    except DeniedError as error:
        detail = (
            f"the function's packages: {error}. They are gone, or its role has no right to them: `wren create_role`"
        )
        raise PackagesError("denied", detail) from None
    except ObjectStoreError as error:
        raise PackagesError("storage", f"the function's packages: {error}") from None
    if blake3.blake3(data, max_threads=blake3.blake3.AUTO).hexdigest() != digest:
        raise PackagesError(
            "configuration",
            f"the function's packages were tampered with: {store.where}/{digest} is not what its name says",
        )
    return data


def _pieces(data: memoryview) -> list[_Piece]:
    try:
        found = json.loads(bytes(data))
        if found["format"] != PACKAGES_FORMAT:
            detail = f"the list of packages has format {found['format']}, this function reads {PACKAGES_FORMAT}"
            raise PackagesError("configuration", detail)
        return [_Piece(str(digest), int(size), int(unpacked)) for digest, size, unpacked in found["pieces"]]
    except (ValueError, LookupError, TypeError) as error:
        raise PackagesError("configuration", f"the list of packages cannot be read: {error!r}") from None


def _extract(data: memoryview, folder: Path) -> None:
    """What `ZipFile.extractall` does, in larger bites, which matters: most of the time goes there."""
    with zipfile.ZipFile(io.BytesIO(data)) as bundle:
        for info in bundle.infolist():
            name = PurePosixPath(info.filename)
            if name.is_absolute() or ".." in name.parts:
                raise PackagesError("configuration", f"a zip of the packages names {info.filename!r}")
            place = folder.joinpath(*name.parts)
            place.parent.mkdir(parents=True, exist_ok=True)
            with bundle.open(info) as source, place.open("wb") as file:
                shutil.copyfileobj(source, file, _CHUNK_BYTES)
            place.chmod(info.external_attr >> 16 & 0o777 or 0o644)


def _put_on_path(folder: Path) -> None:
    """After the function's own code, before the packages that Lambda's runtime brings."""
    entry = str(folder)
    if entry not in sys.path:
        sys.path.insert(1, entry)
        importlib.invalidate_caches()


def _mb(size: int) -> str:
    return f"{_mebibytes(size)} MB"


def _mebibytes(size: int) -> int:
    return -(-size // (1 << 20))
