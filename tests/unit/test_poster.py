"""The HTTP client against servers that misbehave on real sockets: what is an answer, what was sent, what was not."""

import asyncio
import os
import socket

import pytest

from wren_backends.poster import BrokenConnectionError, NotConnectedError, Poster

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-one: 1\r\n\r\nok"
HEADERS = {"host": "here"}


class Server:
    """Answers each request of each connection with the next of the given bytes; None closes the connection."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.connections = 0
        self.requests = []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.poster = Poster(f"http://127.0.0.1:{self.port}/path")
        return self

    async def __aexit__(self, *_):
        await self.poster.close()
        self._server.close()

    async def _serve(self, reader, writer):
        self.connections += 1
        try:
            while self.answers:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                answer = self.answers.pop(0)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    async def post(self, body=b"body", timeout_s=10.0):
        return await self.poster.post(HEADERS, body, timeout_s)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 30))


def test_connections_are_kept():
    async def talk():
        async with Server(OK, OK) as server:
            answers = [await server.post(), await server.post(b"")]
            assert [(one.status, one.headers["x-one"], one.body) for one in answers] == [(200, "1", b"ok")] * 2
            assert server.connections == 1
            assert server.requests[0] == b"POST /path HTTP/1.1\r\ncontent-length: 4\r\nhost: here\r\n\r\nbody"

    run(talk())


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", b"abc"),
        (b"HTTP/1.1 503 Away\r\ncontent-length: 0\r\n\r\n", b""),
    ],
    ids=["continue", "chunked", "empty"],
)
def test_forms_of_answers(answer, body):
    async def talk():
        async with Server(answer, OK) as server:
            assert (await server.post()).body == body
            assert (await server.post()).body == b"ok"
            assert server.connections == 1

    run(talk())


def test_a_body_that_ends_with_its_connection():
    async def talk():
        async with Server(b"HTTP/1.0 503 Away\r\n\r\nsorry") as server:
            answer = await server.post()
            assert (answer.status, answer.body) == (503, b"sorry")

    run(talk())


def test_a_second_answer_is_nobodys():
    async def talk():
        other = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-one: 2\r\n\r\nno"
        async with Server(OK + other, OK) as server:
            first = await server.post()
            assert (first.headers["x-one"], first.body) == ("1", b"ok")
            assert (await server.post()).body == b"ok"
            assert server.connections == 2

    run(talk())


@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab", b"no HTTP\r\n\r\n"])
def test_a_broken_answer(answer):
    async def talk():
        async with Server(answer) as server:
            with pytest.raises(BrokenConnectionError):
                await server.post()

    run(talk())


def test_no_answer_in_time():
    async def talk():
        async with Server(b"", b"") as server:
            with pytest.raises(BrokenConnectionError, match="no response within"):
                await server.post(timeout_s=0.05)

    run(talk())


def test_a_cancelled_request_leaves_nothing_for_the_next():
    async def talk():
        async with Server(b"", OK) as server:
            task = asyncio.create_task(server.post())
            while not server.requests:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await server.post()).body == b"ok"
            assert server.connections == 2

    run(talk())


def test_nobody_listens():
    async def talk():
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            with pytest.raises(NotConnectedError, match=r"127\.0\.0\.1"):
                await Poster(f"http://127.0.0.1:{closed.getsockname()[1]}/").post(HEADERS, b"", 1.0)

    run(talk())


def test_a_name_that_nobody_knows():
    with pytest.raises(NotConnectedError, match=r"nowhere\.invalid"):
        run(Poster("http://nowhere.invalid/").post(HEADERS, b"", 1.0))


@pytest.mark.parametrize("first", ["closed port", "unknown family"])
def test_the_next_address_is_tried(monkeypatch, first):
    async def talk():
        async with Server(OK) as server:
            good = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", server.port))
            family = 255 if first == "unknown family" else socket.AF_INET
            bad = (family, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 9))
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [bad, good])
            assert (await server.post()).body == b"ok"

    run(talk())


def test_it_works_after_a_fork():
    async def talk():
        async with Server(OK) as server:
            return (await server.post()).body

    assert run(talk()) == b"ok"
    child = os.fork()
    if not child:
        try:
            os._exit(0 if run(talk()) == b"ok" else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
