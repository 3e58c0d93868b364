"""The execution environments of one function version: reuse of warm ones, start of cold ones, their template."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from . import invocation as wording
from .environment import Environment, InitError
from .errors import LocalCloudError
from .forkserver import Template, TemplateSettings
from .invocation import Invocation
from .logs import LogStore
from .options import CloudOptions


@dataclass
class Counters:
    """What `LocalCloud.stats` shows of Lambda."""

    invocations: int = 0
    cold_starts: int = 0
    throttles: int = 0
    billed_ms: int = 0


@dataclass
class ComputeContext:
    """What all pools of a cloud share."""

    options: CloudOptions
    logs: LogStore
    scratch: Path
    counters: Counters = field(default_factory=Counters)
    pools: set[Pool] = field(default_factory=set)


class TemplateSource(Protocol):
    """Says how to start a version's template process."""

    def __call__(self) -> TemplateSettings:
        """Return the settings, or raise LocalCloudError."""


class Pool:
    """All environments of one function version."""

    def __init__(
        self,
        cloud: ComputeContext,
        function_name: str,
        version: str,
        memory_mb: int,
        timeout_s: float,
        template_source: TemplateSource,
    ) -> None:
        self.cloud = cloud
        self.function_name = function_name
        self.version = version
        self.memory_mb = memory_mb
        self.timeout_s = timeout_s
        self._template_source = template_source
        self._template: Template | None = None
        self._starting: asyncio.Task[Template] | None = None
        self._idle: list[Environment] = []
        self._all: set[Environment] = set()
        self._by_pid: dict[int, Environment] = {}
        self._early_exits: dict[int, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._retired = False
        cloud.pools.add(self)

    def __len__(self) -> int:
        return len(self._all)

    def run(self, invocation: Invocation) -> None:
        """Give an invocation to the environment that was used last, or to a new one."""
        if self._idle:
            self._idle.pop().assign(invocation)
            return
        environment = Environment(self)
        self._all.add(environment)
        environment.assign(invocation)
        task = asyncio.create_task(environment.start())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def template(self, on_output: Callable[[bytes], None]) -> Template:
        """Return the running template; the first to ask starts it and gets what it prints.

        Raises:
            InitError: It does not start.
            TemplateEndedError: It ended while it imported the handler.
        """
        if self._template is not None and self._template.ended is None:
            return self._template
        if self._starting is None:
            self._starting = asyncio.create_task(self._start_template(on_output))
        try:
            return await asyncio.shield(self._starting)
        finally:
            self._starting = None

    async def _start_template(self, on_output: Callable[[bytes], None]) -> Template:
        try:
            settings = await asyncio.to_thread(self._template_source)
        except LocalCloudError as error:
            text = str(error)
            raise InitError(
                lambda request_id: wording.error_payload(
                    "Runtime.InvalidEntrypoint", f"RequestId: {request_id} Error: {text}"
                )
            ) from None
        # AWS gives the init phase 10 s, and when that is not enough runs it again as part of the invocation.
        for limit in (self.cloud.options.init_limit_s, self.timeout_s):
            template = Template(settings, on_output, self._process_ended, self._template_ended)
            try:
                await asyncio.wait_for(template.start(), limit)
            except TimeoutError:
                template.stop()
            else:
                self._template = template
                return template
        raise InitError(lambda request_id: wording.timed_out(request_id, self.timeout_s), "Status: timeout")

    def forked(self, environment: Environment) -> None:
        """Remember whose process it is."""
        status = self._early_exits.pop(environment.pid, None)
        if status is not None:
            environment.process_ended(status)
        else:
            self._by_pid[environment.pid] = environment

    def _process_ended(self, pid: int, wait_status: int) -> None:
        environment = self._by_pid.pop(pid, None)
        if environment is None:
            self._early_exits[pid] = wait_status
        else:
            environment.process_ended(wait_status)

    def _template_ended(self, template: Template, wait_status: int) -> None:
        """With a template ends all that it forked."""
        if template is not self._template:
            return
        self._template = None
        by_pid, self._by_pid = self._by_pid, {}
        for environment in by_pid.values():
            environment.process_ended(wait_status)

    def finished(self, environment: Environment) -> None:
        """An invocation ended; keep its environment warm."""
        if environment not in self._all:
            return
        if self._retired:
            environment.end()
        else:
            self._idle.append(environment)

    def forget(self, environment: Environment) -> None:
        """No longer give invocations to this environment."""
        self._all.discard(environment)
        if environment in self._idle:
            self._idle.remove(environment)

    def ended(self, environment: Environment, waiting: Invocation | None) -> None:
        """An environment is gone; an invocation that it had not begun gets another one."""
        self.forget(environment)
        if waiting is not None and not waiting.outcome.done():
            self.run(waiting)
        self._stop_if_unused()

    def busy(self) -> Iterator[tuple[float, Environment]]:
        """Yield the environments that run an invocation, with the time at which it began."""
        for environment in self._all:
            since = environment.busy_since()
            if since is not None:
                yield since, environment

    def end_idle(self, ttl_s: float) -> None:
        """End the environments that were not used for so long."""
        limit = time.monotonic() - ttl_s
        for environment in [one for one in self._idle if one.last_used <= limit]:
            environment.end()

    def retire(self) -> None:
        """End idle environments now and busy ones after their invocation: the code or configuration is gone."""
        self._retired = True
        for environment in list(self._idle):
            environment.end()
        self._stop_if_unused()

    def stop(self) -> None:
        """End everything at once."""
        self._retired = True
        for environment in list(self._all):
            environment.end()
        self._stop_if_unused()

    def _stop_if_unused(self) -> None:
        if self._retired and not self._all:
            self.cloud.pools.discard(self)
            if self._template is not None:
                self._template.stop()
