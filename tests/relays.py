"""Servers for tests: relays before an HTTP server, one that ends TLS, one that makes tunnels; a way to serve others."""

import asyncio
import contextlib
import ssl
import threading
from http.server import ThreadingHTTPServer


class Relay:
    """Passes bytes on to another server, from a thread of its own; a context manager.

    Attributes:
        port: Where it listens, on 127.0.0.1.
    """

    def __init__(self, to_port=None, tls=None):
        self._to_port = to_port
        self._tls = tls
        self.port = None
        self._loop = asyncio.new_event_loop()
        self._tasks = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay")

    def __enter__(self):
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(20)
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self.serve(reader, writer)
        writer.transport.abort()
        self._tasks.discard(asyncio.current_task())

    async def serve(self, reader, writer):
        await self.join(reader, writer, self._to_port)

    async def join(self, reader, writer, port):
        """Pass on what both sides say until one of them ends."""
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            ways = [asyncio.ensure_future(_pump(reader, far_writer)), asyncio.ensure_future(_pump(far_reader, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            far_writer.transport.abort()


class ConnectProxy(Relay):
    """An HTTP proxy: makes tunnels to ports of this machine, whatever the host's name, or gives `refusal`.

    Attributes:
        heads: The requests for tunnels, as they came.
    """

    def __init__(self, refusal=None):
        super().__init__()
        self._refusal = refusal
        self.heads = []

    async def serve(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if self._refusal is not None:
            writer.write(self._refusal)
            await writer.drain()
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await self.join(reader, writer, int(head.split(b" ")[1].rsplit(b":", 1)[1]))


async def _pump(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


def server_context(authority, name):
    """A server's TLS context with a certificate for `name` from a `trustme.CA`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


@contextlib.contextmanager
def serving(handler):
    """The URL of an HTTP server with this handler, on a thread that ends with the context."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
