"""Starts S3 servers other than the local cloud's: Ceph's gateway, from Debian's packages, and MiniStack, from PyPI."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from conformance_tests.interpreters import ROOT

MINISTACK = "1.5.33"

_READY_LIMIT_S = 120.0
_CEPH_PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
_CEPH_CONFIGURATION = """[global]
fsid = {fsid}
mon_host = [v1:127.0.0.1:{port}]
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_bind_ipv4 = true
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
osd_objectstore = memstore
memstore_device_bytes = 4294967296
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_data = {folder}/mon
osd_data = {folder}/osd
run_dir = {folder}
admin_socket = {folder}/$name.asok
log_file = {folder}/$name.log
pid_file = {folder}/$name.pid
rgw_data = {folder}/rgw
crash_dir = {folder}/crash
"""


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        name: What it is, with its version.
        port: Where on 127.0.0.1.
        access_key_id: A key whose signatures it checks.
        secret_access_key: The secret that goes with it.
    """

    name: str
    port: int
    access_key_id: str
    secret_access_key: str


@contextlib.contextmanager
def ceph(folder: Path) -> Iterator[Server]:
    """Ceph's S3 gateway with one monitor and one OSD, whose objects are in memory.

    Raises:
        SystemExit: A program of it is missing.
    """
    missing = [one for one in _CEPH_PROGRAMS if not shutil.which(one)]
    if missing:
        raise SystemExit(
            f"Ceph's {', '.join(missing)} not found: apt-get install ceph-mon ceph-osd ceph-common radosgw"
        )
    for name in ("mon", "osd", "rgw", "crash"):
        (folder / name).mkdir()
    monitor, port = _free_port(), _free_port()
    fsid, identity = str(uuid.uuid4()), str(uuid.uuid4())
    configuration = folder / "ceph.conf"
    configuration.write_text(_CEPH_CONFIGURATION.format(fsid=fsid, port=monitor, folder=folder))

    def tell(program: str, *arguments: str) -> str:
        return _tell(folder, program, "-c", str(configuration), *arguments)

    _tell(folder, "monmaptool", "--create", "--addv", "a", f"[v1:127.0.0.1:{monitor}]", "--fsid", fsid, "monmap")
    tell("ceph-mon", "--mkfs", "-i", "a", "--monmap", "monmap")
    with contextlib.ExitStack() as stack:

        def serve(program: str, *arguments: str) -> None:
            stack.enter_context(_running(folder, program, "-c", str(configuration), "-f", *arguments))

        serve("ceph-mon", "-i", "a")
        tell("ceph", "--connect-timeout", "60", "osd", "new", identity)
        tell("ceph", "osd", "crush", "add", "osd.0", "1", "root=default", "host=here")
        tell("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", identity)
        serve("ceph-osd", "-i", "0")
        key, secret = f"WREN{secrets.token_hex(8).upper()}", secrets.token_urlsafe(30)
        serve("radosgw", "-n", "client.rgw", f"--rgw-frontends=beast endpoint=127.0.0.1:{port} tcp_nodelay=1")
        _wait_for(lambda: _answers(port), "Ceph's gateway", folder)
        tell(
            "radosgw-admin",
            "user",
            "create",
            "--uid=wren",
            "--display-name=wren",
            f"--access-key={key}",
            f"--secret-key={secret}",
        )
        yield Server("Ceph RGW " + tell("radosgw", "--version").split()[2], port, key, secret)


@contextlib.contextmanager
def ministack(folder: Path) -> Iterator[Server]:
    """MiniStack in an environment of its own, as it wants its own botocore, with a user whose signatures it checks."""
    environment = ROOT / ".venv-ministack"
    program = environment / "bin" / "ministack"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
        pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, f"ministack=={MINISTACK}"], check=True)
    port = _free_port()
    variables = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "AUTH": "true",
        "S3_PERSIST": "0",
        "STATE_DIR": str(folder),
        "TMPDIR": str(folder),  # where it leaves a file with its process id
        "S3_DATA_DIR": str(folder / "s3"),
    }
    with _running(folder, str(program), **variables):
        _wait_for(lambda: _answers(port), "MiniStack", folder)
        key, secret = _user_of_ministack(port)
        yield Server(f"MiniStack {MINISTACK}", port, key, secret)


SERVERS: dict[str, Callable[[Path], contextlib.AbstractContextManager[Server]]] = {"ceph": ceph, "ministack": ministack}


def _user_of_ministack(port: int) -> tuple[str, str]:
    """Its root's signatures are not checked, a user's are."""
    import boto3

    root = boto3.client(
        "iam",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    root.create_user(UserName="wren")
    policy = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'
    root.put_user_policy(UserName="wren", PolicyName="all", PolicyDocument=policy)
    made = root.create_access_key(UserName="wren")["AccessKey"]
    return made["AccessKeyId"], made["SecretAccessKey"]


def _tell(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=_READY_LIMIT_S)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


@contextlib.contextmanager
def _running(folder: Path, *command: str, **variables: str) -> Iterator[None]:
    name = Path(command[0]).name
    with (folder / f"{name}.out").open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **variables}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _wait_for(condition: Callable[[], bool], what: str, folder: Path) -> None:
    deadline = time.monotonic() + _READY_LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            said = "".join(path.read_text(errors="replace")[-2000:] for path in folder.glob("*.out"))
            raise SystemExit(f"{what} did not answer in {_READY_LIMIT_S:.0f} s. It said:\n{said}")
        time.sleep(0.1)


def _answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
        except (OSError, HTTPException):
            return False
    return True


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
