"""IAM, STS and CloudWatch Logs: a moto server, started when one of them is first asked for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .checksum import WAYS_OUT
from .errors import LocalCloudError
from .http11 import Body, Request
from .logs import LogStore
from .processes import free_ports, tail
from .proxy import Upstream

_START_LIMIT_S = 60.0
_ATTEMPTS = 3
_BATCH = 1000  # PutLogEvents takes 10,000 events or 1 MB
# The same as `processes.die_with`, without importing this package and all that registers itself with it.
_SERVE = """
import ctypes, os, signal, sys
parent = int(sys.argv.pop(1))
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
from moto.server import main
main(sys.argv[1:])
"""


@dataclass
class Moto:
    """The moto process and what has been put into it."""

    directory: Path
    logs: LogStore
    region: str
    _upstream: Upstream | None = None
    _process: subprocess.Popen[bytes] | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _known: set[str] = field(default_factory=set)

    async def handle(self, request: Request, service: str, body: bytes) -> None:
        """Answer one request; a question about logs finds all that was printed until now."""
        try:
            async with self._lock:
                upstream = await self._running()
                if service == "logs":
                    await self._sync_logs(upstream, _log_group(body))
        except LocalCloudError as error:
            headers = {"content-type": "application/json", "x-amzn-ErrorType": "ServiceUnavailableException"}
            request.respond(503, headers, json.dumps({"message": str(error)}).encode())
            return
        request.body = _body(body)
        await upstream.forward(request)

    async def _running(self) -> Upstream:
        if self._upstream is not None and self._process is not None and self._process.poll() is None:
            return self._upstream
        if find_spec("moto") is None:
            raise LocalCloudError(f"IAM, STS and CloudWatch Logs need the package moto[server]. {WAYS_OUT}")
        for _ in range(_ATTEMPTS):
            self._upstream = await self._start()
            if self._upstream is not None:
                return self._upstream
        raise LocalCloudError(f"moto does not start. The end of its log:\n{tail(self._log)}")

    @property
    def _log(self) -> Path:
        return self.directory / "moto.log"

    async def _start(self) -> Upstream | None:
        (port,) = free_ports(1)
        self._known.clear()
        for stream in self.logs.streams:
            stream.synced_bytes = 0
        with self._log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, str(os.getpid()), "-H", "127.0.0.1", "-p", str(port)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._process = process
        deadline = asyncio.get_running_loop().time() + _START_LIMIT_S
        while process.poll() is None and asyncio.get_running_loop().time() < deadline:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return Upstream(port)
            await asyncio.sleep(0.02)
        return None

    async def _sync_logs(self, upstream: Upstream, group: str | None) -> None:
        """Hand on what was printed to one group; without one, which groups there are.

        A cloud that has run for long has printed much, and a list of groups has to do without all of it.
        """
        for name in {stream.group for stream in self.logs.streams} - self._known:
            await self._call(upstream, "CreateLogGroup", {"logGroupName": name})
            self._known.add(name)
        for stream in self.logs.streams:
            if stream.group != group:
                continue
            events = [{"timestamp": moment, "message": text} for moment, text in stream.unsynced()]
            if not events:
                continue
            names = {"logGroupName": stream.group, "logStreamName": stream.name}
            if stream.name not in self._known:
                await self._call(upstream, "CreateLogStream", names)
            self._known.add(stream.name)
            for start in range(0, len(events), _BATCH):
                await self._call(upstream, "PutLogEvents", {**names, "logEvents": events[start : start + _BATCH]})

    async def _call(self, upstream: Upstream, operation: str, parameters: dict[str, Any]) -> None:
        body = json.dumps(parameters).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
        scope = f"local/20260101/{self.region}/logs/aws4_request"  # moto looks at nothing else
        head = (
            f"POST / HTTP/1.1\r\nhost: 127.0.0.1\r\nx-amz-target: Logs_20140328.{operation}\r\n"
            f"authorization: AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0\r\n"
            f"content-type: application/x-amz-json-1.1\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await reader.read(-1)
        writer.close()

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _log_group(body: bytes) -> str | None:
    """The log group that a request to CloudWatch Logs names; None if it is about no single one."""
    try:
        found = json.loads(body or b"{}")
    except ValueError:
        return None
    name = found.get("logGroupName") if isinstance(found, dict) else None
    return name if isinstance(name, str) else None


def _body(data: bytes) -> Body:
    """Return a body that has been read as one that can be read again."""
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return Body(reader, len(data))
