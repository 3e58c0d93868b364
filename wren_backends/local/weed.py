"""The S3 server: one SeaweedFS process, with a port for every listener and everything on 127.0.0.1."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from .checksum import check, find_weed
from .cleanup import SOCKETS, remove_sockets
from .errors import LocalCloudError
from .options import BUCKET
from .processes import die_with, free_ports, tail
from .signing import Signer

logger = logging.getLogger("wren_backends.local")

_LISTENERS = ("s3", "filer", "master", "volume", "admin")
_START_LIMIT_S = 30.0
_ATTEMPTS = 4
_COUNTER = re.compile(r'^SeaweedFS_s3_request_total\{bucket="(.*?)",code="(\d+)",type="(\w+)"\} (\S+)$', re.MULTILINE)
_ITS_OWN_PROBE = ("", "403", "LIST")  # `weed mini` asks its own S3 port until it is up


@dataclass
class Weed:
    """A SeaweedFS process in one directory.

    Attributes:
        port: Where S3 is spoken, once it has started.
    """

    directory: Path
    signer: Signer
    memory_mb: int
    cache: Path
    port: int = 0
    _metrics_port: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _own_requests: Counter[str] = field(default_factory=Counter)

    def launch(self) -> None:
        """Start the process; it needs most of a second, so do other things before `wait_ready`.

        Raises:
            LocalCloudError: The binary is missing or is not the one we know.
        """
        binary = find_weed()
        check(binary, self.cache)
        ports = free_ports(2 * len(_LISTENERS) + 1)
        self._metrics_port = ports.pop()
        self.port = ports[0]
        log = self.directory / "weed"
        for folder in (self.directory / "s3", log):
            folder.mkdir(parents=True, exist_ok=True)
        (self.directory / SOCKETS).write_text("\n".join(_sockets(ports)))
        with (log / "output.log").open("ab") as output:
            self._process = subprocess.Popen(
                [str(binary), f"-logdir={log}", "mini", *self._flags(ports)],
                cwd=log,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Safe: the supervisor has no threads yet when the first S3 server is started.
                preexec_fn=partial(die_with, os.getpid()),  # noqa: PLW1509
            )

    def _flags(self, ports: list[int]) -> list[str]:
        flags = [
            f"-dir={self.directory / 's3'}",
            "-ip=127.0.0.1",  # without both of these it listens on the network
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            "-admin.ui=false",
            "-webdav=false",
            "-s3.iam=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-metricsPort={self._metrics_port}",
        ]
        for listener, port, grpc_port in zip(_LISTENERS, ports[0::2], ports[1::2], strict=True):
            flags += [f"-{listener}.port={port}", f"-{listener}.port.grpc={grpc_port}"]
        return flags

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.defpath,
            "HOME": str(self.directory / "weed"),  # it looks for configuration there
            "TMPDIR": str(self.directory),
            "AWS_ACCESS_KEY_ID": self.signer.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.signer.secret_access_key,
            "GOMEMLIMIT": f"{self.memory_mb}MiB",
        }

    async def wait_ready(self) -> None:
        """Wait until S3 answers; a port that was taken in the meantime costs another attempt.

        Raises:
            LocalCloudError: It does not come up.
        """
        for _ in range(_ATTEMPTS):
            if await self._came_up():
                return
            logger.info("weed.start_failed port=%d", self.port)
            self.stop()
            self.launch()
        raise LocalCloudError(f"SeaweedFS does not start. The end of its log:\n{tail(self._log)}")

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def _log(self) -> Path:
        return self.directory / "weed" / "output.log"

    async def _came_up(self) -> bool:
        deadline = asyncio.get_running_loop().time() + _START_LIMIT_S
        while asyncio.get_running_loop().time() < deadline:
            if self._process is None or self._process.poll() is not None:
                return False
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
                if await self._request("PUT", f"/{BUCKET}", b"") in (200, 409):
                    return True
            await asyncio.sleep(0.01)
        raise LocalCloudError(f"SeaweedFS did not answer in {_START_LIMIT_S:.0f} s. Its log:\n{tail(self._log)}")

    async def warm_up(self) -> None:
        """Write once: a bucket's first write allocates its volumes, which takes 0.2 s."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
            await self._request("PUT", f"/{BUCKET}/.warm", b"warm")
            await self._request("DELETE", f"/{BUCKET}/.warm", b"")

    async def _request(self, method: str, target: str, body: bytes) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._own_requests[method] += 1
        try:
            headers = self.signer.sign(method, target, f"127.0.0.1:{self.port}", "s3", body)
            lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items()), "connection: close"]
            lines.append(f"content-length: {len(body)}")
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
            return int((await reader.readline()).split(b" ")[1])
        except IndexError:
            raise ValueError("no status line") from None
        finally:
            writer.close()

    async def stats(self) -> dict[str, int]:
        """Count S3 requests by type, as the server itself counts them; ours are taken off."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._metrics_port, limit=2**20)
        try:
            writer.write(b"GET /metrics HTTP/1.0\r\nhost: 127.0.0.1\r\n\r\n")
            text = (await reader.read(-1)).decode()
        finally:
            writer.close()
        counted: Counter[str] = Counter()
        for bucket, code, kind, value in _COUNTER.findall(text):
            if (bucket, code, kind) != _ITS_OWN_PROBE:
                counted[kind] += int(float(value))
        counts = {kind: n - self._own_requests[kind] for kind, n in counted.items()}
        counts = {kind: n for kind, n in counts.items() if n > 0}
        return {**counts, "total": sum(counts.values())}

    def stop(self) -> None:
        """End the process at once: its data is not meant to outlive it, and SIGTERM takes 2 s."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        remove_sockets(self.directory)


def _sockets(ports: list[int]) -> list[str]:
    """Return the Unix sockets that SeaweedFS makes: in /tmp, whatever TMPDIR says."""
    names = [f"{listener}-{port}" for listener, port in zip(_LISTENERS, ports[0::2], strict=True)]
    names += [f"{listener}-grpc-{port}" for listener, port in zip(_LISTENERS, ports[1::2], strict=True)]
    return [f"/tmp/seaweedfs-{name}.sock" for name in names]
