"""Everything that can be set when a local cloud is started, and its command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields

ACCOUNT_ID = "123456789012"
"""The account of every ARN; moto's own default, so that IAM, STS and Lambda agree."""

REGION = "us-east-1"

BUCKET = "wren-local"
"""A bucket that exists, and has taken its slow first write, soon after the start."""


def _weed_memory_mb() -> int:
    """An eighth of this machine's memory, within bounds.

    Beyond the bound Go collects garbage without end. With 512 MB, 64 environments that write 32 MB each took half as
    long again as with 2,048, and the server took 1.5 GB all the same (`benchmarks/dask_graphs.py --full --latency`).
    """
    physical_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return max(512, min(2048, physical_mb // 8))


@dataclass(frozen=True)
class CloudOptions:
    """How faithful, how slow and how large a local cloud is.

    Attributes:
        account_concurrency: Invocations that may run at once in the whole account.
        idle_ttl_s: An execution environment unused for so long is ended.
        init_limit_s: Time limit of the init phase; AWS's is 10 seconds.
        async_time_scale: Factor on AWS's waits between attempts of an event (1 and 2 minutes) and between
            tries of a throttled one (1 second to 5 minutes).
        event_age_scale: Factor on the age at which an event is given up.
        invoke_latency_ms: Added to every Invoke, before the function runs.
        cold_latency_ms: Added to the start of every execution environment.
        s3_latency_ms: Added to every request to S3.
        weed_memory_mb: Soft bound on the memory of the S3 server (GOMEMLIMIT); an eighth of this machine's by default.
        s3_port: Port on 127.0.0.1 of an S3 server to use in place of SeaweedFS, whose keys are in AWS_ACCESS_KEY_ID and
            AWS_SECRET_ACCESS_KEY; 0: SeaweedFS.
    """

    account_concurrency: int = 1000
    idle_ttl_s: float = 300.0
    init_limit_s: float = 10.0
    async_time_scale: float = 0.01
    event_age_scale: float = 1.0
    invoke_latency_ms: float = 0.0
    cold_latency_ms: float = 0.0
    s3_latency_ms: float = 0.0
    weed_memory_mb: int = _weed_memory_mb()
    s3_port: int = 0

    def arguments(self) -> list[str]:
        """Return these options as command line arguments of the supervisor."""
        return [f"--{field.name.replace('_', '-')}={getattr(self, field.name)}" for field in fields(self)]


@dataclass(frozen=True)
class SupervisorArguments:
    """One parsed command line of ``python -m wren_backends.local``."""

    options: CloudOptions
    directory: str
    private: bool
    client_pid: int


def parse_arguments(arguments: Sequence[str]) -> SupervisorArguments:
    """Parse the supervisor's command line."""
    parser = argparse.ArgumentParser(
        prog="python -m wren_backends.local",
        description="The supervisor process of a local cloud; `wren local up` starts one for you.",
    )
    parser.add_argument("--directory", default="", help="where state and logs lie (default: a new temporary one)")
    parser.add_argument("--private", action="store_true", help="end when stdin reaches its end")
    parser.add_argument("--client-pid", type=int, default=0, help="end when this process ends")
    for field in fields(CloudOptions):
        convert = {"int": int, "float": float}[str(field.type)]
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=convert, default=field.default)
    parsed = vars(parser.parse_args(arguments))
    options = CloudOptions(**{field.name: parsed[field.name] for field in fields(CloudOptions)})
    return SupervisorArguments(options, parsed["directory"], parsed["private"], parsed["client_pid"])
