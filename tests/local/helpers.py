"""What several test files here use."""

import io
import stat
import sys
import textwrap
import time
import zipfile

import boto3
from botocore.config import Config

ROLE = "arn:aws:iam::123456789012:role/test"
RUNTIME = f"python{sys.version_info.major}.{sys.version_info.minor}"


def client_of(cloud, service, **more):
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 1},
        max_pool_connections=80,
        signature_version="v4" if service != "s3" else "s3v4",
        s3={"addressing_style": "path"},
    )
    arguments = {
        "endpoint_url": cloud.endpoint_url,
        "aws_access_key_id": cloud.access_key_id,
        "aws_secret_access_key": cloud.secret_access_key,
        "region_name": cloud.region,
        "config": config,
    }
    return boto3.client(service, **{**arguments, **more})


def zipped(files, links=None):
    """Return a zip of text files and symbolic links."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, textwrap.dedent(text))
        for name, target in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)
    return buffer.getvalue()


def eventually(check, limit_s=15.0):
    """Wait for something that AWS does in its own time; return what ``check`` returns once it is true."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"it did not happen within {limit_s} s")
