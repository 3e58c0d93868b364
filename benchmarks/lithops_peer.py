"""Small calls beside Lithops on the same local cloud: the same S3 server, the same Lambda service, in the same run.

    python benchmarks/lithops_peer.py [--latency]      (needs the extra `peers`, which `make bench` installs)

Lithops is configured as its documentation says for AWS Lambda and S3, with its default of learning by S3 of what has
ended: once looking as often as by default, each second or two, and once more often. Two things are done for it that AWS
would do: its invocations are sent to the local cloud, as it writes AWS's host into them, and its layer is put together
by uv, as the function with which it builds one has no pip here. Its calls travel in the fewest invocations that use all
environments, and it is not asked to clean up. CPU is that of the client, the local cloud and all environments.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import psutil
import uv
from _shared import LATENCIES, quantile, show

from wren_backends import WrenExecutor
from wren_backends.local import cloud as local_cloud
from wren_backends.local.options import BUCKET, CloudOptions

CALLS, ROUNDS, WORKERS, MEMORY_MB = 100, 5, 2, 1769
Map = Callable[[Callable[[int], int], range], list[int]]


def same(value: int) -> int:
    """The least that a call can do."""
    return value


@dataclass
class Figures:
    """What `calls` took: median seconds, and for each call the S3 requests, invocations and CPU seconds."""

    wall_s: float
    s3_requests: float
    invocations: float
    cpu_s: float

    def row(self, how: str, calls: int, peer: Figures) -> tuple[str, ...]:
        """Cells of the table."""
        return (
            how,
            str(calls),
            f"{self.wall_s * 1000:,.1f}",
            f"{self.s3_requests:.2f}",
            f"{self.invocations:.2f}",
            f"{self.cpu_s * 1000:,.1f}",
            f"{self.wall_s / peer.wall_s:,.1f}",
        )


def measured(run: Map, calls: int, cloud: local_cloud.LocalCloud) -> Figures:
    """Map over so many calls, again and again; the first time warms up and does not count."""
    items, taken = range(calls), []
    assert run(same, items) == list(items)
    cpu, before = cpu_seconds(), cloud.stats()
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        assert run(same, items) == list(items)
        taken.append(time.perf_counter() - begun)
    after, all_calls = cloud.stats(), ROUNDS * calls
    return Figures(
        quantile(taken, 0.5),
        (after["s3"]["total"] - before["s3"]["total"]) / all_calls,
        (after["lambda"]["invocations"] - before["lambda"]["invocations"]) / all_calls,
        (cpu_seconds() - cpu) / all_calls,
    )


def cpu_seconds() -> float:
    """CPU of this process and all below it, those that have ended included."""
    me, found = psutil.Process(), 0.0
    for one in [me, *me.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # it ended in between; its parent has its time
            found += sum(one.cpu_times()[:4])
    return found


def layer(backend: Any, runtime_name: str) -> str:
    """Publish the layer of packages that a function of Lithops's has; returns its ARN."""
    from lithops.serverless.backends.aws_lambda.config import DEFAULT_REQUIREMENTS

    with tempfile.TemporaryDirectory() as folder:
        packages = [*DEFAULT_REQUIREMENTS, "boto3"]  # which AWS's runtimes bring along
        into = ("--python", sys.executable, "--target", f"{folder}/layer/python")
        subprocess.run([uv.find_uv_bin(), "pip", "install", "--quiet", *into, *packages], check=True)
        zipped = Path(shutil.make_archive(f"{folder}/layer", "zip", f"{folder}/layer"))
        boto3.client("s3").put_object(Bucket=BUCKET, Key="lithops-layer.zip", Body=zipped.read_bytes())
    content = {"S3Bucket": BUCKET, "S3Key": "lithops-layer.zip"}
    name = backend._format_layer_name(runtime_name)
    return str(backend.lambda_client.publish_layer_version(LayerName=name, Content=content)["LayerVersionArn"])


class Detour:
    """The HTTP session of Lithops's invocations, which go to the local cloud."""

    def __init__(self, session: Any, host: str, url: str) -> None:
        self._session, self._host, self._url = session, host, url

    def send(self, request: Any) -> Any:
        """Send a request that is signed for AWS."""
        request.url = request.url.replace(f"https://{self._host}", self._url)
        return self._session.send(request)


@contextmanager
def lithops_map(cloud: local_cloud.LocalCloud, pause_s: float | None) -> Iterator[Map]:
    """Lithops's map on the local cloud, which looks for what has ended so often; None is its default."""
    import lithops
    from lithops.serverless.backends.aws_lambda.aws_lambda import AWSLambdaBackend

    AWSLambdaBackend._create_layer = layer
    keys = {"access_key_id": cloud.access_key_id, "secret_access_key": cloud.secret_access_key}
    role = {"execution_role": "arn:aws:iam::123456789012:role/lithops", "env_vars": {}}
    services = {"backend": "aws_lambda", "storage": "aws_s3"}
    looks = {} if pause_s is None else {"monitoring_interval": pause_s}
    config = {
        "lithops": {**services, **looks, "log_level": "WARNING", "data_cleaner": False},
        "aws": {"region": cloud.region, **keys},
        "aws_lambda": {**role, "runtime_memory": MEMORY_MB, "max_workers": WORKERS},
        "aws_s3": {"storage_bucket": BUCKET},
    }
    with lithops.FunctionExecutor(config=config) as executor:
        backend = executor.compute_handler.backend
        backend.session = Detour(backend.session, backend.host, cloud.lambda_endpoint_url)

        def run(function: Callable[[int], int], items: range) -> list[int]:
            futures = executor.map(function, items, chunksize=-(-len(items) // WORKERS))
            return list(executor.get_result(futures, show_progressbar=False, wait_dur_sec=pause_s))

        yield run


@contextmanager
def own_folder() -> Iterator[None]:
    """Let Lithops, which is not imported before, keep its files and its home in a folder that goes."""
    with tempfile.TemporaryDirectory(prefix="lithops-") as folder:
        os.environ |= {"HOME": folder, "TMPDIR": folder}
        tempfile.tempdir = None  # it is asked for once
        yield


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--latency", action="store_true", help="wait as AWS does")
    asked = parser.parse_args()
    if importlib.util.find_spec("lithops") is None:
        parser.error("Lithops is not installed: pip install 'lithops>=3.8,<4'")
    cloud = local_cloud.start_private(CloudOptions(**LATENCIES if asked.latency else {}))
    os.environ |= cloud.environment()
    found: dict[tuple[str, int], Figures] = {}
    for mode in ("direct", "s3"):
        with WrenExecutor(WORKERS, mode=mode) as executor:
            for calls in (1, CALLS):
                found[f"wren, {mode}", calls] = measured(
                    lambda function, items, to=executor: list(to.map(function, items)), calls, cloud
                )
    with own_folder():
        for how, pause_s in {"Lithops": None, "Lithops, looks each 0.1 s": 0.1}.items():
            with lithops_map(cloud, pause_s) as run:
                for calls in (1, CALLS):
                    found[how, calls] = measured(run, calls, cloud)
    rows = [figures.row(how, calls, found["wren, direct", calls]) for (how, calls), figures in found.items()]
    header = ("map of", "calls", "wall ms", "S3 requests/call", "invocations/call", "CPU ms/call", "times ours")
    latency = "AWS-like latencies" if asked.latency else "no added latency"
    show(f"Trivial calls, {WORKERS} environments, {latency}, median of {ROUNDS}", header, rows)


if __name__ == "__main__":
    main()
