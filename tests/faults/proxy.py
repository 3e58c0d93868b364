"""A proxy that stands on a real HTTP path and does to chosen requests what networks and services do to them.

It runs on a thread of its own and passes every head on as it came, Host included, so that signatures stay valid. A
`Rule` says which requests meet which fault; faults are coroutines over an `Exchange` and stand at the end.
"""

import asyncio
import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from wren_backends.local.http11 import READ_LIMIT, MalformedMessageError, body_of, parse_head

_BODY_LIMIT_BYTES = 64 * 1024 * 1024
_IDLE_LIMIT_S = 10.0  # below SeaweedFS's own 30 s, which closes without a word
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Request:
    """One request, read to its end.

    Attributes:
        head: Its head as it came, without the empty line at its end.
        headers: By lower-case name.
    """

    method: str
    target: str
    headers: dict[str, str]
    head: bytes
    body: bytes

    @property
    def path(self) -> str:
        return unquote(self.target.partition("?")[0])


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; `headers` lack those about its length and the connection."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    length: int | None = None  # of a HEAD's object, which has no body

    def encode(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status} Answer", *(f"{name}: {value}" for name, value in self.headers)]
        lines.append(f"content-length: {len(self.body) if self.length is None else self.length}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + self.body


@dataclass(eq=False)
class Exchange:
    """One request on its way: what a fault may do with it."""

    request: Request
    upstream: "Upstream"
    writer: asyncio.StreamWriter
    open: bool = True

    async def forward(self) -> Answer:
        """Have the service answer."""
        return await self.upstream.ask(self.request)

    async def answer(self, answer: Answer) -> None:
        await self.send(answer.encode())

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def end(self) -> None:
        """Close the connection in good order, whatever was promised."""
        self.open = False
        self.writer.close()

    def reset(self) -> None:
        """Break the connection: the client gets a RST."""
        self.open = False
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.writer.transport.abort()


Fault = Callable[[Exchange], Awaitable[None]]
Match = Callable[[Request], bool]


@dataclass(eq=False)
class Rule:
    """Which requests meet a fault.

    Attributes:
        match: Whether it is about a request at all.
        times: How many it hits at most; None: all.
        skip: How many matching requests it lets through first.
        share: Probability with which it hits each of the others.
        rng: Draws that.
        name: How counts name it.
        seen: Matching requests so far.
        hits: How many of them it hit.
    """

    fault: Fault
    match: Match
    times: int | None = 1
    skip: int = 0
    share: float = 1.0
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    name: str = ""
    seen: int = 0
    hits: int = 0

    def takes(self, request: Request) -> bool:
        if (self.times is not None and self.hits >= self.times) or not self.match(request):
            return False
        self.seen += 1
        if self.seen <= self.skip or (self.share < 1.0 and self.rng.random() >= self.share):
            return False
        self.hits += 1
        return True


class Upstream:
    """The service behind the proxy, on kept connections."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._place = parts.hostname, parts.port
        self._idle: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, request: Request) -> Answer:
        reader, writer = await self._connection()
        try:
            writer.write(request.head + b"\r\n\r\n" + request.body)
            await writer.drain()
            answer, kept = await _read_answer(reader, request.method)
        except BaseException:
            writer.close()
            raise
        if kept:
            self._idle.append((time.monotonic(), reader, writer))
        else:
            writer.close()
        return answer

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            since, reader, writer = self._idle.pop()
            if time.monotonic() - since < _IDLE_LIMIT_S and not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(*self._place, limit=READ_LIMIT)

    def close(self) -> None:
        for _, _, writer in self._idle:
            writer.close()
        self._idle.clear()


class Proxy:
    """A proxy in front of one service, on a port that the system chooses.

    Args:
        upstream: URL of the service.
        listening: Whether connections are taken from the start; until `listen` the port is ours and refuses them.
    """

    def __init__(self, upstream: str, *, listening: bool = True) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0)) if listening else _bound()
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._rules: tuple[Rule, ...] = ()
        self.requests: list[tuple[str, str]] = []
        self._upstream = Upstream(upstream)
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"fault-proxy-{self.url}")
        self._thread.start()
        if listening:
            self.listen()

    def listen(self) -> None:
        """Take connections from now on."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    def add(self, fault: Fault, match: Match, **more: object) -> Rule:
        """Have requests meet a fault; the first rule that takes a request has it. See `Rule`."""
        rule = Rule(fault, match, **more)  # type: ignore[arg-type]
        self._rules = (*self._rules, rule)
        return rule

    def clear(self) -> None:
        """Forget all rules and requests: pass everything on."""
        self._rules = ()
        self.requests = []

    def count(self, method: str, fragment: str) -> int:
        """How many requests of a method came whose path holds `fragment`."""
        return sum(verb == method and fragment in path for verb, path in list(self.requests))

    def close(self) -> None:
        """End the thread and every connection."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._until_ended())

    async def _until_ended(self) -> None:
        await self._ended.wait()
        self._upstream.close()
        (self._server or self._socket).close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await asyncio.sleep(0)  # transports close one step later

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, sock=self._socket, limit=READ_LIMIT, backlog=1024)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Whoever has broken a connection, client or service: the other one finds it broken too.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, MalformedMessageError, asyncio.CancelledError):
            while await self._serve(reader, writer):
                pass
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        request = await _read_request(reader, writer)
        exchange = Exchange(request, self._upstream, writer)
        self.requests.append((request.method, request.path))
        rule = next((one for one in self._rules if one.takes(request)), None)
        await (rule.fault if rule else passed_on)(exchange)
        return exchange.open


def _bound() -> socket.socket:
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    return made


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
    first, _, headers = parse_head(head)
    method, target, _ = first.split(" ")
    if headers.get("expect"):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(b"expect:"))
    if "transfer-encoding" in headers:
        raise MalformedMessageError("a request in chunks: no client of ours sends such")
    return Request(method, target, headers, head, await body_of(headers, reader).read(_BODY_LIMIT_BYTES))


async def _read_answer(reader: asyncio.StreamReader, method: str) -> tuple[Answer, bool]:
    first, raw, headers = parse_head((await reader.readuntil(b"\r\n\r\n"))[:-4])
    status = int(first.split(" ", 2)[1])
    about_length = ("content-length", "transfer-encoding", "connection", "keep-alive")
    kept = tuple((name, value) for name, value in raw if name.lower() not in about_length)
    if method == "HEAD" or status in (204, 304):
        answer = Answer(status, kept, length=int(headers.get("content-length", 0)))
    else:
        answer = Answer(status, kept, await body_of(headers, reader, otherwise=-1).read(_BODY_LIMIT_BYTES))
    has_end = method == "HEAD" or status in (204, 304) or {"content-length", "transfer-encoding"} & set(headers)
    return answer, bool(has_end) and headers.get("connection", "").lower() != "close"


# ---- which requests


def invokes(request: Request) -> bool:
    """Invocations."""
    return request.path.endswith("/invocations")


def on(method: str, fragment: str) -> Match:
    """Requests of a method whose target holds `fragment`."""
    return lambda request: request.method == method and fragment in unquote(request.target)


# ---- faults


async def passed_on(exchange: Exchange) -> None:
    """No fault."""
    await exchange.answer(await exchange.forward())


def answered(answer: Answer) -> Fault:
    """The service answers this, and does nothing."""

    async def fault(exchange: Exchange) -> None:
        await exchange.answer(answer)

    return fault


async def reset(exchange: Exchange) -> None:
    """The connection breaks before the service has the request."""
    exchange.reset()


async def lost(exchange: Exchange) -> None:
    """The service does what it was asked for; its answer is lost with the connection."""
    await exchange.forward()
    exchange.reset()


async def truncated(exchange: Exchange) -> None:
    """The connection ends in the middle of the body, or of the head where there is none."""
    data = (answer := await exchange.forward()).encode()
    await exchange.send(data[: len(data) - max(1, len(answer.body) // 2)])
    exchange.end()


async def doubled(exchange: Exchange) -> None:
    """The service gets the request twice; one of its answers comes back."""
    first, _ = await asyncio.gather(exchange.forward(), exchange.forward())
    await exchange.answer(first)


def slow(pieces: int, pause_s: float) -> Fault:
    """The answer trickles in."""

    async def fault(exchange: Exchange) -> None:
        data = (await exchange.forward()).encode()
        size = -(-len(data) // pieces)
        for begin in range(0, len(data), size):
            await exchange.send(data[begin : begin + size])
            await asyncio.sleep(pause_s)

    return fault


class Cut:
    """The connection breaks when the test says so, while the service still works on the request."""

    def __init__(self) -> None:
        self._now = threading.Event()
        self._rest: set[asyncio.Future[Answer]] = set()

    def now(self) -> None:
        self._now.set()

    async def __call__(self, exchange: Exchange) -> None:
        working = asyncio.ensure_future(exchange.forward())
        self._rest.add(working)
        working.add_done_callback(self._rest.discard)
        while not self._now.is_set():
            await asyncio.sleep(0.005)
        exchange.reset()
