"""What the local cloud costs by itself: its start, cold starts, warm invocations, with a function that does nothing."""

from __future__ import annotations

import asyncio
import io
import json
import time
import zipfile
from collections.abc import Sequence
from typing import Any

import boto3
from _shared import quantile, show
from botocore.credentials import Credentials

from lambda_worker.protocol import python_version
from wren_backends.connection import Connection
from wren_backends.invoker import Invoker
from wren_backends.local.cloud import LocalCloud, start_private, stop_private
from wren_backends.local.options import BUCKET

SOURCE = "import time\ndef handler(event, context):\n    time.sleep(event)\n    return event\n"
STARTS, COLD, WARM, EACH = 3, 20, 500, 1500


def create_function(cloud: LocalCloud) -> Connection:
    """A function that sleeps as long as its event says."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as bundle:
        bundle.writestr("sleeper.py", SOURCE)
    session = boto3.session.Session(cloud.access_key_id, cloud.secret_access_key, region_name=cloud.region)
    session.client("lambda", endpoint_url=cloud.endpoint_url).create_function(
        FunctionName="sleeper",
        Runtime="python{}.{}".format(*python_version()),
        Role="arn:aws:iam::123456789012:role/any",
        Handler="sleeper.handler",
        Code={"ZipFile": packed.getvalue()},
        Timeout=60,
    )
    credentials = Credentials(cloud.access_key_id, cloud.secret_access_key)
    return Connection(
        is_local=True,
        region=cloud.region,
        bucket=BUCKET,
        prefix="",
        function="sleeper",
        lambda_url=cloud.lambda_endpoint_url,
        s3_url=cloud.s3_endpoint_url,
        credentials=lambda: credentials,
        s3_credentials={},
        function_key=bytes(32),
        memory_mb=128,
        timeout_s=60,
        max_workers=1,
    )


async def timed(invoker: Invoker, sleep_s: float) -> float:
    """Milliseconds of one invocation, without its sleep."""
    begun = time.perf_counter()
    response = await invoker.invoke(json.dumps(sleep_s).encode(), wait=True)
    assert not response.function_error, response.body
    return (time.perf_counter() - begun - sleep_s) * 1000


async def measure(connection: Connection) -> list[Sequence[Any]]:
    """Rows about the function."""
    invoker = Invoker(connection)
    try:
        rows: list[Sequence[Any]] = [
            ("first invocation, with the template's start", f"{await timed(invoker, 0):.0f} ms")
        ]
        cold = []
        held = [asyncio.ensure_future(timed(invoker, 3.0))]
        for _ in range(COLD):  # each finds all environments before it taken
            held.append(asyncio.ensure_future(timed(invoker, 3.0)))
            await asyncio.sleep(0.1)
        cold = [await one for one in held]
        rows.append((f"cold start by fork, median of {COLD}", f"{quantile(cold, 0.5):.0f} ms"))
        warm = [await timed(invoker, 0) for _ in range(WARM)]
        rows.append((f"warm invocation, median of {WARM}", f"{quantile(warm, 0.5):.2f} ms"))
        for at_once in (2, 16):
            begun = time.perf_counter()
            await asyncio.gather(*(_several(invoker, EACH // at_once) for _ in range(at_once)))
            rows.append((f"invocations/s, {at_once} at once", f"{EACH / (time.perf_counter() - begun):,.0f}"))
        return rows
    finally:
        await invoker.close()


async def _several(invoker: Invoker, count: int) -> None:
    for _ in range(count):
        await timed(invoker, 0)


def main() -> None:
    """Print the table."""
    starts = []
    for _ in range(STARTS):
        stop_private()
        begun = time.perf_counter()
        cloud = start_private()
        starts.append(time.perf_counter() - begun)
    rows = [(f"start until ready, median of {STARTS}", f"{quantile(starts, 0.5):.2f} s")]
    rows += asyncio.run(measure(create_function(cloud)))
    show("The local cloud, with a function that does nothing", ("what", "measured"), rows)


if __name__ == "__main__":
    main()
