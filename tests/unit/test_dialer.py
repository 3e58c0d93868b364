"""Connections over TLS and through proxies, against real sockets and certificates."""

import asyncio
import contextlib

import pytest
import trustme
from relays import ConnectProxy, Relay, server_context

from wren_backends.dialer import Dialer, NotConnectedError


class Echo(asyncio.Protocol):
    """Sends a word and keeps what comes back."""

    def __init__(self):
        self.answered = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        transport.write(b"word")

    def data_received(self, data):
        self.answered.set_result(data)


async def said(dialer):
    """What the server says to a word over a connection made by `dialer`."""
    protocol = await dialer.dial(Echo)
    try:
        return await protocol.answered
    finally:
        protocol.transport.abort()


def echo_through(url, **ways):
    return asyncio.run(asyncio.wait_for(said(Dialer(url, **ways)), 30))


class Parrot(Relay):
    """Sends back what it hears."""

    async def serve(self, reader, writer):
        while data := await reader.read(100):
            writer.write(data)
            await writer.drain()


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def secure(authority, tmp_path):
    """A server that speaks TLS, and the file with its authority."""
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(file)
    with Parrot(tls=server_context(authority, "localhost")) as server:
        yield f"https://localhost:{server.port}", str(file)


def test_tls(secure):
    url, ca_file = secure
    assert echo_through(url, ca_file=ca_file) == b"word"


def test_a_certificate_of_nobody_who_is_trusted(secure):
    with pytest.raises(NotConnectedError, match="certificate verify failed"):
        echo_through(secure[0])


def test_a_certificate_for_another_name(secure):
    url, ca_file = secure
    with pytest.raises(NotConnectedError, match="not valid for"):
        echo_through(url.replace("localhost", "127.0.0.1"), ca_file=ca_file)


def test_a_tunnel_carries_tls(secure):
    """The proxy is told where to, and sees nothing else; the name is looked up on its side."""
    url, ca_file = secure
    with ConnectProxy() as proxy:
        assert echo_through(url, proxy_url=f"http://127.0.0.1:{proxy.port}", ca_file=ca_file) == b"word"
    where = url.removeprefix("https://")
    assert proxy.heads == [f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode()]


def test_a_proxy_learns_user_and_password(secure):
    url, ca_file = secure
    with ConnectProxy() as proxy:
        echo_through(url, proxy_url=f"http://me:p%40ss@127.0.0.1:{proxy.port}", ca_file=ca_file)
    assert b"\r\nProxy-Authorization: Basic bWU6cEBzcw==\r\n" in proxy.heads[0]


@pytest.mark.parametrize(
    ("refusal", "says"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "the proxy refuses: 403 Forbidden$"),
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407.*user:password@host"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "no HTTP"),
        (b"", "closed the connection"),
    ],
    ids=["forbidden", "needs a password", "no proxy", "closes"],
)
def test_a_proxy_that_makes_no_tunnel(refusal, says):
    with ConnectProxy(refusal) as proxy, pytest.raises(NotConnectedError, match=says) as caught:
        echo_through("https://example.com", proxy_url=f"http://me:secret@127.0.0.1:{proxy.port}")
    assert "example.com by way of proxy 127.0.0.1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_proxy_of_another_kind():
    with pytest.raises(NotConnectedError, match=r"http:// one, this is socks5://: set HTTPS_PROXY"):
        echo_through("https://example.com", proxy_url="socks5://127.0.0.1:9")


def test_a_proxy_named_without_its_scheme(secure):
    url, ca_file = secure
    with ConnectProxy() as proxy:
        assert echo_through(url, proxy_url=f"127.0.0.1:{proxy.port}", ca_file=ca_file) == b"word"


def test_many_at_once_through_one_proxy(secure):
    url, ca_file = secure

    async def main(proxy_url):
        dialer = Dialer(url, proxy_url, ca_file)
        return await asyncio.gather(*(said(dialer) for _ in range(20)))

    with ConnectProxy() as proxy, contextlib.closing(asyncio.new_event_loop()) as loop:
        found = loop.run_until_complete(asyncio.wait_for(main(f"http://127.0.0.1:{proxy.port}"), 30))
    assert found == [b"word"] * 20
