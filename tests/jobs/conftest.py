"""The bucket as somebody else sees it, and a client in a process of its own that can be killed."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import boto3
import pytest
from signals import wait_for

from wren_backends.local.options import BUCKET

PREFIX = "wren"


class Bucket:
    """Reads and writes the objects of jobs with a client that is not ours.

    Args:
        s3: boto3's client of S3.
    """

    def __init__(self, s3):
        self.s3 = s3

    def keys(self, prefix):
        """Keys below a prefix of the project."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{PREFIX}/{prefix}")
        return [one["Key"].removeprefix(f"{PREFIX}/") for page in pages for one in page.get("Contents", [])]

    def get(self, key):
        return self.s3.get_object(Bucket=BUCKET, Key=f"{PREFIX}/{key}")["Body"].read()

    def put(self, key, data):
        self.s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{key}", Body=data)

    def delete(self, key):
        self.s3.delete_object(Bucket=BUCKET, Key=f"{PREFIX}/{key}")

    def written_at(self, key):
        """When an object was last written, by S3's clock."""
        return self.s3.head_object(Bucket=BUCKET, Key=f"{PREFIX}/{key}")["LastModified"]

    def failed_at(self, function, job_id):
        """When Lambda put its first failure of a job on record."""
        listed = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"aws/lambda/async/{function}/")
        for one in listed["Contents"]:
            text = self.s3.get_object(Bucket=BUCKET, Key=one["Key"])["Body"].read()
            if f'"{job_id}"'.encode() in text:  # other tests leave all kinds of things there
                return one["LastModified"]
        raise AssertionError("no failure is on record")

    def record(self, job_id):
        """The record of a job as JSON, or None."""
        key = f"jobs/{job_id}/job.json"
        return json.loads(self.get(key)) if key in self.keys(key) else None

    def frames(self, job_id):
        """Numbers under which outcomes of a job are committed."""
        return [int(key.rsplit("/", 1)[1]) for key in self.keys(f"jobs/{job_id}/outcomes/")]

    def wait_recorded(self, job_id, calls):
        """Wait until the record of a job knows so many calls."""
        wait_for(lambda: (self.record(job_id) or {}).get("calls") == calls)


@pytest.fixture
def bucket(cloud):
    return Bucket(
        boto3.client(
            "s3",
            endpoint_url=cloud.s3_endpoint_url,
            aws_access_key_id=cloud.access_key_id,
            aws_secret_access_key=cloud.secret_access_key,
            region_name=cloud.region,
        )
    )


class Client:
    """A client of a job in a process of its own.

    Args:
        process: The process; the first line that it prints is the job's id.
    """

    def __init__(self, process):
        self.process = process
        self.job_id = process.stdout.readline().decode().strip()
        assert self.job_id.startswith("j-")

    def kill(self):
        """End it as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def start_client(cloud, tmp_path):
    """Start source as a client; `executor` is one of mode `s3`, and this folder's `signals` can be imported."""
    started = []

    def start(body, **settings):
        source = f"""
            import os, sys, time
            sys.path.insert(0, {os.path.dirname(os.path.dirname(__file__))!r})
            from signals import Gate, mark, marks
            from wren_backends import WrenExecutor

            gate = Gate({str(tmp_path)!r})
            if __name__ == "__main__":
                executor = WrenExecutor(mode="s3", **{settings!r})
                print(executor.job_id, flush=True)
        """
        path = tmp_path / "client.py"
        path.write_text(textwrap.dedent(source) + textwrap.indent(textwrap.dedent(body), "    "))
        process = subprocess.Popen([sys.executable, str(path)], cwd=tmp_path, stdout=subprocess.PIPE)
        started.append(process)
        return Client(process)

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
