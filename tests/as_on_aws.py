"""The `wren` command and a function that is deployed as on AWS, for tests of what goes by the way that leads there."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import boto3
from relays import serving

from wren_backends import Config
from wren_backends.connection import connect
from wren_backends.deploy.function import FunctionSpec, deploy
from wren_backends.local.options import BUCKET

WREN = Path(sys.executable).with_name("wren")
ROLE = "arn:aws:iam::123456789012:role/anybody"


class Wren:
    """Runs the command in a folder and a HOME of its own.

    Args:
        folder: That folder.
        environment: Environment variables for all its runs.
    """

    def __init__(self, folder, environment):
        self.folder = folder
        self.environment = {
            "HOME": str(folder),
            "PATH": os.environ["PATH"],
            "AWS_EC2_METADATA_DISABLED": "true",
            **environment,
        }

    def __call__(self, *arguments, **environment):
        return subprocess.run(
            [WREN, *arguments],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def lines(self, *arguments):
        """What `logs --json` prints."""
        done = self("logs", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    @contextmanager
    def running(self, *arguments):
        """The command while it runs."""
        command = [WREN, *arguments]
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env={**self.environment, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def client_of(cloud, service):
    """A client of the local cloud that is boto3's own."""
    return boto3.client(
        service,
        cloud.region,
        endpoint_url=cloud.s3_endpoint_url if service == "s3" else cloud.endpoint_url,
        aws_access_key_id=cloud.access_key_id,
        aws_secret_access_key=cloud.secret_access_key,
    )


def deploy_function(cloud, name, *, memory_mb=256, layers=(), variables=()):
    """Make a function as on AWS, whose packages are those of this environment."""
    client = client_of(cloud, "lambda")
    local = client.get_function_configuration(FunctionName=connect(Config(cloud="local")).function)
    all_layers = (*layers, *(layer["Arn"] for layer in local["Layers"]))
    deploy(client, FunctionSpec(name, ROLE, BUCKET, memory_mb, 60, all_layers, dict(variables)))
    return {**cloud.environment(), "WREN_CLOUD": "aws", "WREN_BUCKET": BUCKET, "WREN_FUNCTION": name}


class _Refusing(BaseHTTPRequestHandler):
    """Answers as CloudWatch Logs does to whoever may not read."""

    def log_message(self, *_):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        body = b'{"__type": "AccessDeniedException", "message": "not for you"}'
        self.send_response(400)
        self.send_header("content-type", "application/x-amz-json-1.1")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def refusing():
    """The URL of a service that refuses everything."""
    with serving(_Refusing) as url:
        yield url
