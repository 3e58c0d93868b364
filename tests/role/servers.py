"""Servers that hold callers to policies: SeaweedFS with its IAM for S3, moto for every other service.

SeaweedFS evaluates actions, resources and conditions. moto evaluates the actions of query and JSON services; of REST
services other than S3 (Lambda) it cannot check a signature once it checks policies.
"""

import base64
import http.client
import json
import os
import subprocess
import sys
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from relays import serving
from signals import wait_for

from wren_backends.deploy.policies import Scope
from wren_backends.local.checksum import find_weed
from wren_backends.local.cleanup import SOCKETS, remove_sockets
from wren_backends.local.options import REGION
from wren_backends.local.processes import free_ports, tail
from wren_backends.local.weed import _sockets

ADMIN = {"aws_access_key_id": "AKIAADMINADMINADMIN0", "aws_secret_access_key": "the-administrator-of-this-server"}

SCOPE = Scope("careful", "shared-bucket", "some/project", REGION, "123456789012")
ROLE = "careful-worker"

_ATTEMPTS = 3
_LISTENERS = ("s3", "filer", "master", "volume", "admin")
_LAUNCH = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # ends with the tests, however they end; exec keeps it
os.execv(sys.argv[1], sys.argv[1:])
"""


def client_of(service, url, credentials):
    """A boto3 client; each request is sent once."""
    config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
    return boto3.client(service, REGION, endpoint_url=url, config=config, **credentials)


def answers(attempt):
    """Whether a request is answered at all, be it with an error."""
    try:
        attempt()
    except ClientError:
        return True
    except BotoCoreError:
        return False
    return True


def allows(attempt):
    """Whether a request is granted."""
    try:
        attempt()
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 403:
            return False
        raise
    return True


@contextmanager
def _running(folder, command, ports, environment, ready):
    """A process that listens on ports of the system's choice; should one be taken meanwhile, others are tried."""
    for _ in range(_ATTEMPTS):
        chosen = free_ports(ports)
        with (folder / "output.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", _LAUNCH, *command(chosen)],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            url = f"http://127.0.0.1:{chosen[0]}"
            wait_for(lambda process=process, url=url: process.poll() is not None or ready(url), limit_s=60.0)
            if process.poll() is None:
                yield url
                return
        finally:
            process.kill()
            process.wait()
    raise AssertionError(f"it does not start:\n{tail(folder / 'output.log')}")


@contextmanager
def moto(folder):
    """A moto server; until `enforce` anybody may do anything."""
    with _running(
        folder,
        lambda ports: [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(ports[0])],
        1,
        dict(os.environ),
        lambda url: answers(client_of("sts", url, ADMIN).get_caller_identity),
    ) as url:
        yield url


def enforce(moto_url):
    """From now on moto checks signatures and policies."""
    connection = http.client.HTTPConnection(moto_url.removeprefix("http://"), timeout=10)
    with closing(connection):
        connection.request("POST", "/moto-api/reset-auth", b"0")
        assert connection.getresponse().status == 200


@contextmanager
def seaweedfs(folder, roles):
    """An S3 server with IAM and STS.

    Args:
        folder: Where its data lie.
        roles: The roles that it knows: name, (trust policy, policy).
    """
    (folder / "iam.json").write_text(json.dumps(_iam(roles)))

    def command(ports):
        with (folder / SOCKETS).open("a") as left:
            left.write("\n".join([*_sockets(ports), ""]))
        flags = [
            f"-dir={folder / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            "-admin.ui=false",
            "-webdav=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.iam.readOnly=false",
            f"-s3.iam.config={folder / 'iam.json'}",
        ]
        for listener, port, grpc_port in zip(_LISTENERS, ports[0::2], ports[1::2], strict=True):
            flags += [f"-{listener}.port={port}", f"-{listener}.port.grpc={grpc_port}"]
        return [str(find_weed()), f"-logdir={folder}", "mini", *flags]

    environment = {
        "PATH": os.defpath,
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "AWS_ACCESS_KEY_ID": ADMIN["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": ADMIN["aws_secret_access_key"],
        "GOMEMLIMIT": "512MiB",
    }
    (folder / "data").mkdir()

    def ready(url):
        s3 = client_of("s3", url, ADMIN)
        try:
            s3.create_bucket(Bucket="ready")
            s3.put_object(Bucket="ready", Key="ready", Body=b"")
        except (ClientError, BotoCoreError):
            return False
        return True

    try:
        with _running(folder, command, 2 * len(_LISTENERS), environment, ready) as url:
            yield url
    finally:
        remove_sockets(folder)


def _iam(roles):
    return {
        "sts": {
            "tokenDuration": "1h",
            "maxSessionLength": "12h",
            "issuer": "seaweedfs-sts",
            "signingKey": base64.b64encode(os.urandom(32)).decode(),
        },
        "policy": {"defaultEffect": "Deny", "storeType": "memory"},
        "roles": [
            {
                "roleName": name,
                "roleArn": f"arn:aws:iam::123456789012:role/{name}",
                "trustPolicy": trust,
                "attachedPolicies": [name],
            }
            for name, (trust, _) in roles.items()
        ],
        "policies": [{"name": name, "document": policy} for name, (_, policy) in roles.items()],
    }


class _Gate(BaseHTTPRequestHandler):
    """Passes requests on; of a missing object it says that it is forbidden.

    AWS does so to whoever may not list the whole bucket (S3 API reference, GetObject); SeaweedFS does not.
    """

    protocol_version = "HTTP/1.1"
    upstream = 0

    def log_message(self, *_):
        pass

    def _pass_on(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        upstream = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=60)
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("connection", "expect"):
                upstream.putheader(name, value)
        upstream.endheaders(body)
        answer = upstream.getresponse()
        status, headers, content = answer.status, answer.getheaders(), answer.read()
        upstream.close()
        if status == 404 and self.command in ("GET", "HEAD"):
            status, content = 403, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
            headers = [("content-type", "application/xml")]
        self.send_response_only(status)
        length = str(len(content))
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("content-length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on


@contextmanager
def gate(url):
    """The way to an S3 server on which missing objects are forbidden, as on AWS."""
    handler = type("Gate", (_Gate,), {"upstream": int(url.rpartition(":")[2])})
    with serving(handler) as url:
        yield url
