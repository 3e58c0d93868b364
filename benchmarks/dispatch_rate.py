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

from _tables import show
from aiohttp import web
from botocore.credentials import Credentials

from lambda_worker import codec
from lambda_worker.protocol import Frame, Outcome, Reply
from wren_backends import Config, WrenExecutor
from wren_backends.connection import Connection

ANSWER_AFTER_S, AT_ONCE, CALLS = 0.05, 1000, 20_000
KEY = bytes(32)


def serve(port: Any) -> None:
    """Answer every invocation with the value None."""
    payload = codec.dumps(None)

    async def invoke(request: web.BaseRequest) -> web.StreamResponse:
        event = json.loads(await request.read())
        outcomes = tuple(Outcome(call[0], "value", payload) for call in event["calls"])
        frame = Frame(event["job"], outcomes, "request", "stream", "environment", 1)
        await asyncio.sleep(ANSWER_AFTER_S)
        return web.json_response(Reply(codec.seal(frame, codec.job_key(KEY, event["job"]))).to_json())

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(web.Server(invoke, access_log=None), "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def main() -> None:
    """Print the table; with `--profile`, where the event loop's thread spends its time as well."""
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
    rows = []
    for most in (1, 1000):
        with WrenExecutor(AT_ONCE, config=Config(calls_per_invocation=most), connection=connection) as executor:
            list(executor.map(abs, range(2 * AT_ONCE)))  # opens the connections
            before = executor.journal.counts["invocation.started"]
            begun, cpu = time.perf_counter(), _cpu_s()
            list(executor.map(abs, range(CALLS)))
            wall, cpu = time.perf_counter() - begun, _cpu_s() - cpu
            invocations = executor.journal.counts["invocation.started"] - before
        rows.append((most, f"{CALLS / wall:,.0f}", f"{cpu / CALLS * 1000:.3f} ms", f"{invocations:,.0f}"))
    server.terminate()
    server.join()
    show(
        f"{CALLS:,} calls, {AT_ONCE} invocations at once, each answered after {ANSWER_AFTER_S * 1000:.0f} ms",
        ("calls per invocation, at most", "calls/s (goal: 2,500 with 1)", "client CPU per call", "invocations"),
        rows,
    )


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
