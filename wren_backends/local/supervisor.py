"""The process that is a local cloud: starts the S3 server, serves the front door, and leaves nothing behind.

::

    client --stdin pipe--> supervisor --+-- weed         (S3)
                                        +-- moto         (IAM, STS, Logs; when first asked for)
                                        +-- template --+-- execution environment
                                            ...        +-- execution environment ...

Each arrow is also a death signal: what is right of it ends when what is left of it ends.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .async_events import AsyncEvents
from .cleanup import PRIVATE_PREFIX, lock, remove
from .environment import Environment
from .errors import LocalCloudError
from .functions import Functions
from .gateway import Gateway
from .http11 import Request, start_server
from .invoke import Invoker
from .lambda_api import LambdaApi
from .layers import Layers
from .logs import LogStore
from .moto import Moto
from .object_store import ObjectStore
from .options import REGION, CloudOptions, SupervisorArguments
from .other_s3 import OtherS3, keys
from .paths import cache_directory
from .pool import ComputeContext
from .processes import raise_open_file_limit
from .proxy import Upstream
from .revisions import RevisionMaker
from .runtime_files import check_installed
from .signing import Signer
from .sigv4 import Verifier
from .weed import Weed

logger = logging.getLogger("wren_backends.local")

_MEMORY_CHECK_S = 0.05
_LOG_FLUSH_S = 0.5


@dataclass
class Supervisor:
    """All parts of a running local cloud."""

    arguments: SupervisorArguments
    directory: Path
    signer: Signer
    weed: Weed
    _gateway: Gateway | None = None

    def __post_init__(self) -> None:
        scratch = self.directory / "scratch"
        scratch.mkdir(exist_ok=True)
        self.logs = LogStore(self.directory / "logs")
        self.compute = ComputeContext(self.options, self.logs, scratch)
        self.functions = Functions(self.options.account_concurrency)

    @property
    def options(self) -> CloudOptions:
        """What was asked for at the start."""
        return self.arguments.options

    async def run(self) -> None:
        """Serve until told to stop, or until the client is gone."""
        stop = asyncio.Event()
        self._watch_for_the_end(stop)
        moto = Moto(self.directory, self.logs, REGION)
        server, port = await start_server(self._handle)
        endpoint_url = f"http://127.0.0.1:{port}"
        sweeps: list[asyncio.Task[None]] = []
        try:
            await self._until(self.weed.wait_ready(), stop)
            if stop.is_set():
                return
            self._gateway = self._build(endpoint_url, moto)
            sweeps = [
                asyncio.create_task(one) for one in (self._watch_memory(), self._sweep(stop), self.weed.warm_up())
            ]
            gc.freeze()  # what is here now stays: the collector need not look at it between invocations
            _announce(self._description(endpoint_url))
            await stop.wait()
        finally:
            for sweep in sweeps:
                sweep.cancel()
            server.close()
            for pool in list(self.compute.pools):
                pool.stop()
            self.logs.flush()
            moto.stop()

    async def _until(self, work: Awaitable[None], stop: asyncio.Event) -> None:
        """Await some work, unless the client is gone first."""
        working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if working.done():
            working.result()
        else:
            working.cancel()

    async def _handle(self, request: Request) -> None:
        if self._gateway is None:
            request.respond(503, {})
        else:
            await self._gateway.handle(request)

    def _build(self, endpoint_url: str, moto: Moto) -> Gateway:
        objects = ObjectStore(f"http://127.0.0.1:{self.weed.port}", self.signer)
        variables = {
            "AWS_ACCESS_KEY_ID": self.signer.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.signer.secret_access_key,
            "AWS_ENDPOINT_URL": endpoint_url,
            "AWS_ENDPOINT_URL_S3": self._s3_url(endpoint_url),
        }
        layers = Layers()
        maker = RevisionMaker(self.compute, layers, self.directory, variables, objects.get)
        events = AsyncEvents(self.options.async_time_scale, self.options.event_age_scale, objects.put)
        invoker = Invoker(self.compute, self.functions, events)
        events.start = invoker.start
        api = LambdaApi(self.functions, layers, maker, invoker, endpoint_url)
        signer = self.signer
        verifier = Verifier(signer.access_key_id, signer.secret_access_key, signer.region)
        packages, latency_ms = self.directory / "packages", self.options.s3_latency_ms
        return Gateway(verifier, Upstream(self.weed.port), api, moto, packages, self._stats, s3_latency_ms=latency_ms)

    def _s3_url(self, endpoint_url: str) -> str:
        """Where S3 is: with the S3 server itself, or behind the front door, which can make requests wait."""
        return endpoint_url if self.options.s3_latency_ms else f"http://127.0.0.1:{self.weed.port}"

    def _description(self, endpoint_url: str) -> dict[str, Any]:
        return {
            "endpoint_url": endpoint_url,
            "lambda_endpoint_url": endpoint_url,
            "s3_endpoint_url": self._s3_url(endpoint_url),
            "access_key_id": self.signer.access_key_id,
            "secret_access_key": self.signer.secret_access_key,
            "region": REGION,
            "directory": str(self.directory),
            "pid": os.getpid(),
        }

    async def _stats(self) -> dict[str, Any]:
        counters = self.compute.counters
        return {
            "s3": await self.weed.stats(),
            "lambda": {
                "invocations": counters.invocations,
                "cold_starts": counters.cold_starts,
                "throttles": counters.throttles,
                "environments": sum(len(pool) for pool in self.compute.pools),
                "running": sum(1 for pool in self.compute.pools for _ in pool.busy()),
                "billed_ms": counters.billed_ms,
            },
        }

    async def _watch_memory(self) -> None:
        """Look at the memory of what has been running for at least one round, 20 times a second."""
        pause = _MEMORY_CHECK_S
        while True:
            await asyncio.sleep(pause)
            began = time.perf_counter()
            long_running: list[Environment] = [
                environment
                for pool in self.compute.pools
                for since, environment in pool.busy()
                if began - since > _MEMORY_CHECK_S / 2
            ]
            for environment in long_running:
                environment.check_memory()
            # With hundreds of environments the watching must not become the work.
            pause = max(_MEMORY_CHECK_S, 5 * (time.perf_counter() - began))

    async def _sweep(self, stop: asyncio.Event) -> None:
        """End idle environments, write logs out, and give up when the S3 server has died."""
        while True:
            await asyncio.sleep(min(_LOG_FLUSH_S, self.options.idle_ttl_s / 4))
            for pool in list(self.compute.pools):
                pool.end_idle(self.options.idle_ttl_s)
            self.logs.flush()
            if not self.weed.running:
                logger.error("weed.died directory=%s", self.directory)
                stop.set()

    def _watch_for_the_end(self, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if not self.arguments.private:
            return
        # The write end of the pipe may live on in a child of the client, so that its end alone does not tell.
        if hasattr(os, "pidfd_open") and self.arguments.client_pid:
            try:
                loop.add_reader(os.pidfd_open(self.arguments.client_pid), stop.set)
            except ProcessLookupError:
                stop.set()
        loop.add_reader(0, _on_stdin, loop, stop)


def _on_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    if not os.read(0, 4096):
        loop.remove_reader(0)
        stop.set()


def _announce(description: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(description) + "\n")
    sys.stdout.flush()


def serve(arguments: SupervisorArguments) -> int:
    """Run a supervisor until its end and return the exit status of the process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    directory = Path(arguments.directory or tempfile.mkdtemp(prefix=PRIVATE_PREFIX))
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    held = lock(directory)
    raise_open_file_limit()
    for name in ("http_proxy", "https_proxy", "all_proxy"):  # everything here is on 127.0.0.1
        os.environ.pop(name, None)
        os.environ.pop(name.upper(), None)
    weed: Weed | None = None
    try:
        weed = _s3_server(arguments.options, directory)
        check_installed()
        weed.launch()
        asyncio.run(Supervisor(arguments, directory, weed.signer, weed).run())
    except LocalCloudError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    finally:
        if weed is not None:
            weed.stop()
        remove(directory)
        held.close()
    return 0


def _s3_server(options: CloudOptions, directory: Path) -> Weed:
    cache = cache_directory() / "weed.json"
    if options.s3_port:
        return OtherS3(directory, Signer(*keys(), REGION), options.weed_memory_mb, cache, options.s3_port)
    signer = Signer(f"AKIALOCAL{secrets.token_hex(5).upper()}Q", secrets.token_urlsafe(30), REGION)
    return Weed(directory, signer, options.weed_memory_mb, cache)
