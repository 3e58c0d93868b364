"""The client's side of the local cloud: starts one that lives as long as this process, or finds a shared one."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .cleanup import PRIVATE_PREFIX, SHARED_PREFIX, remove, remove_dead
from .errors import LocalCloudError
from .options import CloudOptions
from .paths import state_directory
from .processes import alive

logger = logging.getLogger("wren_backends.local")

_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 10.0
_SUPERVISOR = Path(__file__).with_name("__main__.py")


@dataclass(frozen=True)
class LocalCloud:
    """A running local cloud.

    Attributes:
        endpoint_url: One URL for S3, Lambda, IAM, STS and CloudWatch Logs (AWS_ENDPOINT_URL).
        lambda_endpoint_url: The shortest way to Lambda.
        s3_endpoint_url: The S3 server itself.
        access_key_id: Its one access key.
        secret_access_key: The secret that goes with it.
        region: Its one region.
        directory: Where its state and its logs lie.
        pid: The supervisor process.
    """

    endpoint_url: str
    lambda_endpoint_url: str
    s3_endpoint_url: str
    access_key_id: str
    secret_access_key: str
    region: str
    directory: str
    pid: int

    def environment(self) -> dict[str, str]:
        """Return the environment variables with which any AWS client talks to this cloud."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
        }

    def stats(self) -> dict[str, Any]:
        """Return how many S3 requests and invocations the cloud has answered.

        S3 requests are counted by the S3 server, by type, invocations by the Lambda service.
        """
        # Not urllib: it would ask the proxies of the environment for the way to 127.0.0.1.
        from http.client import HTTPConnection

        connection = HTTPConnection(self.endpoint_url.removeprefix("http://"), timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/_wren/stats")
            return dict(json.loads(connection.getresponse().read()))

    def answers(self) -> bool:
        """Tell whether it still runs."""
        if not alive(self.pid):
            return False
        from http.client import HTTPException

        with contextlib.suppress(OSError, ValueError, HTTPException):
            return bool(self.stats())
        return False


@dataclass
class _Private:
    """This process's own cloud, or after a fork the parent's."""

    cloud: LocalCloud
    process: subprocess.Popen[bytes] | None


_lock = threading.Lock()
_private: _Private | None = None


def start_private(options: CloudOptions | None = None) -> LocalCloud:
    """Start a local cloud that ends with this process, or return the one that was started before.

    The options count for the first call. A forked child uses its parent's cloud.

    Raises:
        LocalCloudError: It does not start.
    """
    global _private  # noqa: PLW0603  one per process is what it is
    with _lock:
        if _private is not None and (_is_running(_private.process) or _private.cloud.answers()):
            return _private.cloud
        began = time.monotonic()
        directory = Path(tempfile.mkdtemp(prefix=PRIVATE_PREFIX))
        arguments = ["--private", f"--client-pid={os.getpid()}"]
        process, cloud = _launch(directory, arguments, options or CloudOptions(), subprocess.PIPE)
        _private = _Private(cloud, process)
    logger.info(
        "cloud.started endpoint_url=%s directory=%s seconds=%.2f: this is a local cloud, nothing runs on AWS",
        cloud.endpoint_url,
        cloud.directory,
        time.monotonic() - began,
    )
    return cloud


def runs_private() -> bool:
    """Whether this process has a cloud of its own."""
    with _lock:
        return _private is not None and (_is_running(_private.process) or _private.cloud.answers())


def is_gone(cloud: LocalCloud) -> bool:
    """Tell, without asking it, whether a cloud's process has ended."""
    return not alive(cloud.pid)


def stop_private() -> None:
    """End this process's own cloud, if there is one, and remove its directory."""
    global _private
    with _lock:
        private, _private = _private, None
    if private is None or private.process is None:
        return
    process = private.process
    with contextlib.suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    try:
        process.wait(_STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    remove(Path(private.cloud.directory))
    logger.info("cloud.stopped endpoint_url=%s", private.cloud.endpoint_url)


def start_shared(options: CloudOptions | None = None) -> LocalCloud:
    """Start a local cloud that outlives this process, or return the one that runs already.

    Its directory is new at every start and is removed when it stops.

    Raises:
        LocalCloudError: It does not start.
    """
    running = find_shared()
    if running is not None:
        return running
    file = _shared_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise LocalCloudError(
            f"{file.parent} cannot be made ({error.strerror}), so that no program would find the local cloud. Set "
            "XDG_STATE_HOME to a folder of yours"
        ) from None
    remove_dead()
    directory = Path(tempfile.mkdtemp(prefix=SHARED_PREFIX))
    process, cloud = _launch(directory, [], options or CloudOptions(), subprocess.DEVNULL)
    process.returncode = 0  # it outlives us: nobody is to wait for it, or to warn that nobody has
    try:
        _leave_word(cloud, file)
    except OSError as error:
        _stop(cloud)
        file.with_name(f"{file.name}.{os.getpid()}").unlink(missing_ok=True)
        raise LocalCloudError(f"{file} cannot be written ({error.strerror}): make room for it, or allow it") from None
    logger.info("cloud.started endpoint_url=%s directory=%s shared=true", cloud.endpoint_url, cloud.directory)
    return cloud


def _leave_word(cloud: LocalCloud, file: Path) -> None:
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as output:
        json.dump(asdict(cloud), output)
    temporary.replace(file)


def find_shared() -> LocalCloud | None:
    """Return the shared local cloud, or None when there is none or it does not answer."""
    try:
        cloud = LocalCloud(**json.loads(_shared_file().read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return cloud if cloud.answers() else None


def stop_shared() -> bool:
    """Stop the shared local cloud, and remove what killed ones left; return whether there was one."""
    cloud = find_shared()
    if cloud is not None:
        _stop(cloud)
        logger.info("cloud.stopped endpoint_url=%s shared=true", cloud.endpoint_url)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        _shared_file().unlink()
    for directory in remove_dead():
        logger.info("cloud.removed directory=%s", directory)
    return cloud is not None


def _stop(cloud: LocalCloud) -> None:
    os.kill(cloud.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_LIMIT_S
    while alive(cloud.pid) and time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(cloud.pid, os.WNOHANG)  # it may have been started by this very process
        time.sleep(0.02)
    if alive(cloud.pid):
        os.kill(cloud.pid, signal.SIGKILL)
    remove(Path(cloud.directory))


def _shared_file() -> Path:
    return state_directory() / "local.json"


def _is_running(process: subprocess.Popen[bytes] | None) -> bool:
    return process is not None and process.poll() is None


def _launch(
    directory: Path, arguments: list[str], options: CloudOptions, stdin: int
) -> tuple[subprocess.Popen[bytes], LocalCloud]:
    if sys.platform == "win32":
        raise LocalCloudError("The local cloud forks, so it needs Linux or macOS (or WSL). Or use AWS.")
    command = [sys.executable, str(_SUPERVISOR), f"--directory={directory}", *arguments, *options.arguments()]
    with (directory / "supervisor.log").open("a+b") as log:
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # Ctrl-C in the client's terminal is the client's
        )
        assert process.stdout is not None
        with process.stdout as stdout:
            line = _first_line(stdout.fileno())
        try:
            return process, LocalCloud(**json.loads(line))
        except (ValueError, TypeError):
            _end(process)
            said = _tail(log).strip()
    remove(directory)
    raise LocalCloudError(f"The local cloud did not start. It said:\n{said}")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_LIMIT_S)
    process.kill()
    process.wait()


def _tail(log: BinaryIO, size: int = 3000) -> str:
    """The end of a log that is open: the supervisor removes its directory when it ends, and the file's name with it."""
    log.seek(max(0, log.seek(0, os.SEEK_END) - size))
    return log.read().decode(errors="replace")


def _first_line(descriptor: int) -> bytes:
    """Read the line by which the supervisor says that it is ready; an empty one when it never does."""
    deadline = time.monotonic() + _START_LIMIT_S
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while not line.endswith(b"\n") and selector.select(max(0.0, deadline - time.monotonic())):
            data = os.read(descriptor, 65536)
            if not data:
                return b""
            line += data
    return line


def _after_fork_in_child() -> None:
    """Let go of the parent's cloud without ending it: close our copy of the pipe that keeps it alive."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    if _private is not None and _private.process is not None:
        stdin = _private.process.stdin
        if stdin is not None:
            stdin.close()
        _private.process.returncode = 0  # not ours to wait for
        _private.process = None


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(stop_private)
