"""Everything that can be set when a local cloud is started, and its command line."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

ACCOUNT_ID = "123456789012"
"""The account of every ARN; moto's own default, so that IAM, STS and Lambda agree."""

REGION = "us-east-1"

BUCKET = "wren-local"
"""A bucket that exists, and has taken its slow first write, soon after the start."""


def memory_for_weed_mb(machine_bytes: int) -> int:
    """An eighth of a machine's memory, within bounds.

    Beyond its bound Go collects garbage without end: with 512 MB, map_overlap of `benchmarks/dask_graphs.py --full
    --latency` took 23 s, with 2,048 17 s, and the server took 1.5 and 1.9 GB.
    """
    return max(512, min(2048, machine_bytes // 8 // 2**20))


def _memory_bytes() -> int:
    """The memory of this machine, or of the container that this is."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # there is no cgroup v2 here, or no limit ("max")
        return min(physical, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return physical


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
    weed_memory_mb: int = memory_for_weed_mb(_memory_bytes())
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
