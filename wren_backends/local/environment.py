"""One execution environment: from the fork of its process to the kill."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from . import invocation as wording
from .forkserver import TemplateEndedError
from .invocation import Invocation, Outcome, Report
from .memory import MemoryGauge
from .output import OutputPipe
from .processes import kill_group
from .runtime_api import RuntimeChannel, header_value, listen

if TYPE_CHECKING:
    from .pool import Pool

logger = logging.getLogger("wren_backends.local")


class InitError(Exception):
    """The init phase failed; carries the error as the invoker is to see it, given his request id."""

    def __init__(self, payload: Callable[[str], bytes], ending: str = "Status: error") -> None:
        super().__init__("init failed")
        self.payload = payload
        self.ending = ending


class Environment:
    """A process that runs one invocation at a time, speaking the runtime API."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.pid = 0
        self.dead = False
        self.last_used = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._stream = pool.cloud.logs.open(pool.function_name, pool.version)
        self._born = time.perf_counter()
        self._init_ms: float | None = None  # until the REPORT line of the first invocation
        self._initialized = False
        self._invocation: Invocation | None = None
        self._running = False
        self._channel: RuntimeChannel | None = None  # set while the runtime waits for its next invocation
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._gauge: MemoryGauge | None = None
        self._output: OutputPipe | None = None
        self._scratch = ""

    # -- from the pool -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Fork the process; its first request for an invocation ends the init phase."""
        try:
            await self._start()
        except InitError as error:
            self._init_ended(error)
        except TemplateEndedError as error:
            status = error.wait_status
            self._init_ended(InitError(lambda request_id: wording.exited(request_id, status)))
        except Exception as error:
            # Out of files or of memory, say: whoever waits must not wait for ever.
            logger.exception("environment.start_failed function=%s", self.pool.function_name)
            text = f"{type(error).__name__}: {error}"
            self._init_ended(InitError(lambda _: wording.error_payload("Sandbox.Failure", text)))

    def assign(self, invocation: Invocation) -> None:
        """Run an invocation as soon as the runtime asks for one."""
        self._invocation = invocation
        self._dispatch()

    def busy_since(self) -> float | None:
        """Return when the running invocation began."""
        return self._invocation.started if self._running and self._invocation is not None else None

    def check_memory(self) -> None:
        """End the environment when it uses more memory than its function has."""
        if self._gauge is None or not self._running:
            return
        if self._gauge.sample_tree() > self.pool.memory_mb << 20:
            assert self._invocation is not None
            self._kill_with(
                wording.out_of_memory(self._invocation.request_id, self._gauge.peak >> 20),
                "Status: error\tError Type: Runtime.OutOfMemory",
            )

    def process_ended(self, wait_status: int) -> None:
        """The process is gone; whoever waits for it is told."""
        if self.dead:
            return
        if not self._initialized:
            self._init_ended(InitError(lambda request_id: wording.exited(request_id, wait_status)))
        elif self._running and self._invocation is not None:
            payload = wording.exited(self._invocation.request_id, wait_status)
            self._kill_with(payload, "Status: error\tError Type: Runtime.ExitError")
        else:
            self.end()

    def end(self) -> None:
        """Kill the process group and let go of everything; an invocation that had not begun goes elsewhere."""
        if self.dead:
            return
        self.dead = True
        if self.pid:
            kill_group(self.pid)
        self._cancel_timer()
        if self._output is not None:
            self._output.finish()
        self._stream.end_partial_line()
        if self._server is not None:
            self._server.close()
        if self._gauge is not None:
            self._gauge.close()
        if self._scratch:
            self._loop.run_in_executor(None, lambda: shutil.rmtree(self._scratch, ignore_errors=True))
        waiting, self._invocation = self._invocation, None
        self.pool.ended(self, waiting)

    # -- from the runtime ----------------------------------------------------------------------------------------

    def runtime_is_idle(self, channel: RuntimeChannel) -> None:
        """The runtime asked for its next invocation."""
        self._channel = channel
        if not self._initialized:
            self._initialized = True
            self._cancel_timer()
            self._init_ms = (time.perf_counter() - self._born) * 1000
            self.pool.cloud.counters.cold_starts += 1
        self._dispatch()

    def runtime_responded(self, request_id: str, body: bytes) -> None:
        """The handler returned."""
        if self._is_current(request_id):
            self._finish(body, failed=False)

    def runtime_failed(self, request_id: str, body: bytes) -> None:
        """The handler raised."""
        if self._is_current(request_id):
            self._finish(body, failed=True)

    def runtime_overflowed(self, request_id: str) -> None:
        """The handler returned more than 6 MB: awslambdaric does not survive the refusal, so it ends here."""
        if self._is_current(request_id):
            self._kill_with(wording.response_too_large(), "Status: error\tError Type: Function.ResponseSizeTooLarge")

    def init_failed(self, body: bytes) -> None:
        """The handler could not be imported; awslambdaric says why."""
        error = json.loads(body)
        self._init_ended(InitError(lambda request_id: json.dumps({**error, "requestId": request_id}).encode()))

    # -- inside --------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        self._server, port = await listen(self)
        self._output = OutputPipe(self._printed)
        try:
            template = await self.pool.template(self._log_init)
            if self.pool.cloud.options.cold_latency_ms:
                await asyncio.sleep(self.pool.cloud.options.cold_latency_ms / 1000)
            self._scratch = tempfile.mkdtemp(prefix="tmp-", dir=self.pool.cloud.scratch)
            variables = {
                "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}",
                "AWS_LAMBDA_LOG_STREAM_NAME": self._stream.name,
                "TMPDIR": self._scratch,
                "HOME": self._scratch,
            }
            self.pid = await template.fork(variables, self._output.writer)
        finally:
            os.close(self._output.writer)
        if self.dead:
            kill_group(self.pid)
            return
        self._gauge = MemoryGauge(self.pid)
        self.pool.forked(self)
        limit = self.pool.cloud.options.init_limit_s
        self._timer = self._loop.call_later(limit, self._init_timed_out)

    def _log_init(self, data: bytes) -> None:
        """What the template prints while it imports the handler belongs to the first environment."""
        self._stream.feed(data)
        if self._invocation is not None:
            self._invocation.log(data)

    def _is_current(self, request_id: str) -> bool:
        return self._running and self._invocation is not None and self._invocation.request_id == request_id

    def _dispatch(self) -> None:
        invocation, channel = self._invocation, self._channel
        if invocation is None or channel is None or self._running or self.dead:
            return
        self._channel = None
        self._running = True
        invocation.started = time.perf_counter()
        timeout_s = self.pool.timeout_s
        self._line(f"START RequestId: {invocation.request_id} Version: {self.pool.version}")
        headers = {
            "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + timeout_s) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": invocation.arn,
            "Lambda-Runtime-Trace-Id": _trace_id(invocation.request_id),
        }
        if invocation.client_context:
            headers["Lambda-Runtime-Client-Context"] = header_value(invocation.client_context)
        self._timer = self._loop.call_later(timeout_s, self._timed_out)
        channel.send_invocation(headers, invocation.event)

    def _finish(self, payload: bytes, *, failed: bool, ending: str = "") -> None:
        invocation = self._invocation
        assert invocation is not None
        duration_ms = (time.perf_counter() - invocation.started) * 1000 if invocation.started else 0.0
        self._cancel_timer()
        if self._output is not None:
            self._output.drain()
        self._stream.end_partial_line()
        used = self._gauge.sample() if self._gauge is not None else 0
        if "OutOfMemory" in ending:
            used = self.pool.memory_mb << 20
        init_ms, self._init_ms = self._init_ms, None
        report = Report(duration_ms, init_ms, self.pool.memory_mb, -(-used >> 20), ending)
        self._line(f"END RequestId: {invocation.request_id}")
        self._line(report.line(invocation.request_id))
        self.pool.cloud.counters.billed_ms += report.billed_ms
        self._invocation = None
        self._running = False
        self.last_used = time.monotonic()
        if not invocation.outcome.done():
            invocation.outcome.set_result(Outcome(payload, failed, self.pool.version))
        self.pool.finished(self)

    def _kill_with(self, payload: bytes, ending: str) -> None:
        """End the environment, and with it its running invocation."""
        if self.pid:
            kill_group(self.pid)
        self.pool.forget(self)
        self._finish(payload, failed=True, ending=ending)
        self.end()

    def _timed_out(self) -> None:
        assert self._invocation is not None
        request_id = self._invocation.request_id
        self._line(f"{_now()} {request_id} Task timed out after {self.pool.timeout_s:.2f} seconds")
        self._kill_with(wording.timed_out(request_id, self.pool.timeout_s), "Status: timeout")

    def _init_timed_out(self) -> None:
        timeout_s = self.pool.timeout_s
        self._init_ended(InitError(lambda request_id: wording.timed_out(request_id, timeout_s), "Status: timeout"))

    def _init_ended(self, error: InitError) -> None:
        """The init phase failed, so the environment ends and its invocation with it."""
        if self.dead:
            return
        self.pool.forget(self)
        if self._invocation is not None:
            self._line(f"START RequestId: {self._invocation.request_id} Version: {self.pool.version}")
            self._init_ms = (time.perf_counter() - self._born) * 1000
            self._finish(error.payload(self._invocation.request_id), failed=True, ending=error.ending)
        self.end()

    def _line(self, text: str) -> None:
        self._stream.write(text)
        if self._invocation is not None:
            self._invocation.log(text.encode() + b"\n")

    def _printed(self, data: bytes) -> None:
        self._stream.feed(data)
        if self._invocation is not None:
            self._invocation.log(data)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _trace_id(request_id: str) -> str:
    return f"Root=1-{int(time.time()):08x}-{request_id.replace('-', '')[:24]};Sampled=0"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() // 1_000_000 % 1000:03d}Z"
