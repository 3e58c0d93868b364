"""How many calls a second one client can dispatch: a stand-in for Lambda answers after 50 ms, with 1,000 at once.

The stand-in is a process of its own that checks nothing and runs nothing, so that the client is what is measured.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import resource
import time
from typing import Any

from _shared import show
from botocore.credentials import Credentials

from lambda_worker import codec
from lambda_worker.protocol import EVENT_BUDGET_BYTES, Event, Frame, Outcome, Reply, WireCall
from wren_backends import Config, WrenExecutor
from wren_backends.connection import Connection
from wren_backends.invoker import Invoker
from wren_backends.local.http11 import Request, start_server

ANSWER_AFTER_S, AT_ONCE, CALLS = 0.05, 1000, 20_000
KEY = bytes(32)


def serve(port: Any) -> None:
    """Answer every invocation with the value None."""
    payload = codec.dumps(None)

    async def invoke(request: Request) -> None:
        event = json.loads(await request.read_body(EVENT_BUDGET_BYTES["direct"]))
        outcomes = tuple(Outcome(call[0], "value", payload) for call in event["calls"])
        frame = Frame(event["job"], outcomes, "request", "stream", "environment", 1)
        await asyncio.sleep(ANSWER_AFTER_S)
        reply = Reply(codec.seal(frame, codec.job_key(KEY, event["job"]))).to_json()
        request.respond(200, {"content-type": "application/json"}, json.dumps(reply).encode())

    async def run() -> None:
        server, number = await start_server(invoke)
        port.send(number)
        await server.serve_forever()

    asyncio.run(run())


async def http_alone(connection: Connection) -> tuple[float, float]:
    """The same requests without the engine: calls a second, and CPU seconds for each."""
    arguments = codec.dumps(((1,), {}))
    event = Event("job", (WireCall(0, 0, arguments),), (codec.dumps(abs),), connection.bucket, connection.prefix)
    body, invoker, gate = json.dumps(event.to_json()).encode(), Invoker(connection), asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with gate:
            await invoker.invoke(body, wait=True)

    try:
        await asyncio.gather(*(one() for _ in range(2 * AT_ONCE)))
        begun, cpu = time.perf_counter(), _cpu_s()
        await asyncio.gather(*(one() for _ in range(CALLS)))
        return CALLS / (time.perf_counter() - begun), (_cpu_s() - cpu) / CALLS
    finally:
        await invoker.close()


def through_the_engine(connection: Connection, calls_per_invocation: int) -> tuple[float, float, float]:
    """Calls a second, CPU seconds for each, and invocations, through `WrenExecutor.map`."""
    config = Config(calls_per_invocation=calls_per_invocation)
    with WrenExecutor(AT_ONCE, config=config, connection=connection) as executor:
        list(executor.map(abs, range(2 * AT_ONCE)))  # opens the connections
        before = executor.journal.counts["invocation.started"]
        begun, cpu = time.perf_counter(), _cpu_s()
        list(executor.map(abs, range(CALLS)))
        rate, each = CALLS / (time.perf_counter() - begun), (_cpu_s() - cpu) / CALLS
        return rate, each, executor.journal.counts["invocation.started"] - before


def main() -> None:
    """Print the table."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ours.recv()}"
    credentials = Credentials("key", "secret")
    connection = Connection(
        is_local=True,
        region="us-east-1",
        bucket="bucket",
        prefix="wren",
        function="function",
        lambda_url=url,
        s3_url=url,
        credentials=lambda: credentials,
        s3_credentials={"credentials": {"access_key_id": "key", "secret_access_key": "secret"}},
        function_key=KEY,
        memory_mb=1769,
        timeout_s=900,
        max_workers=AT_ONCE,
    )
    rows = [("signed HTTP requests alone", *asyncio.run(http_alone(connection)), CALLS)]
    rows.append(("one call per invocation", *through_the_engine(connection, 1)))
    rows.append(("up to 1,000 per invocation", *through_the_engine(connection, 1000)))
    server.terminate()
    server.join()
    base = rows[0][2]
    show(
        f"{CALLS:,} calls, {AT_ONCE:,} invocations at once, each answered after {ANSWER_AFTER_S * 1000:.0f} ms",
        ("how", "calls/s (goal: 2,500)", "client CPU per call", "times HTTP's", "invocations"),
        [
            (how, f"{rate:,.0f}", f"{cpu * 1000:.3f} ms", f"{cpu / base:.2f}", f"{sent:,.0f}")
            for how, rate, cpu, sent in rows
        ],
    )


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
