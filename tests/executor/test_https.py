"""Lambda and S3 behind TLS and a proxy, as on AWS from many an office: the whole way, with boto3's own settings."""

from urllib.parse import urlsplit

import pytest
import trustme
from relays import ConnectProxy, Relay, server_context

from wren_backends import Config
from wren_backends.connection import connect

PROGRAM = """
    from wren_backends import WrenExecutor

    with WrenExecutor(2) as executor:
        print(sum(executor.map(abs, range(-50, 0))), len(executor.submit(bytes, 300_000).result()))
        print(executor.submit(len, bytes(300_000)).result())
"""


@pytest.fixture
def far(cloud, tmp_path):
    """The environment of a client that reaches Lambda and S3 over TLS only, and the proxy that it is to use."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    (tmp_path / "empty.pem").touch()
    known = connect(Config())
    with (
        Relay(urlsplit(cloud.lambda_endpoint_url).port, server_context(authority, "lambda.test")) as lambda_,
        Relay(urlsplit(cloud.s3_endpoint_url).port, server_context(authority, "s3.test")) as s3,
        ConnectProxy() as proxy,
    ):
        yield (
            proxy,
            {
                "AWS_ACCESS_KEY_ID": cloud.access_key_id,
                "AWS_SECRET_ACCESS_KEY": cloud.secret_access_key,
                "AWS_DEFAULT_REGION": cloud.region,
                "AWS_CA_BUNDLE": str(tmp_path / "authority.pem"),
                "AWS_ENDPOINT_URL_LAMBDA": f"https://lambda.test:{lambda_.port}",
                "AWS_ENDPOINT_URL_S3": f"https://s3.test:{s3.port}",
                "HTTPS_PROXY": f"http://me:word@127.0.0.1:{proxy.port}",
                "NO_PROXY": "",
                "SSL_CERT_FILE": str(tmp_path / "empty.pem"),  # what OpenSSL trusts elsewhere does not count
                "WREN_CLOUD": "aws",
                "WREN_BUCKET": known.bucket,
                "WREN_FUNCTION": known.function,
            },
        )


def test_calls_go_through_tls_and_a_proxy(far, run_script):
    proxy, surroundings = far
    done = run_script(PROGRAM, **surroundings)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1275 300000\n300000\n", "")
    for host in (b"lambda.test", b"s3.test"):
        assert sum(head.startswith(b"CONNECT " + host) for head in proxy.heads) >= 2  # boto3's own and those of calls
    assert all(b"Proxy-Authorization: Basic " in head.title() for head in proxy.heads)


def test_a_bundle_of_authorities_that_is_not_there(far, run_script):
    _, surroundings = far
    done = run_script(PROGRAM, **surroundings | {"AWS_CA_BUNDLE": "/nowhere.pem"})
    assert done.returncode == 1
    assert "AWS_CA_BUNDLE" in done.stderr
    assert "'/nowhere.pem', which is not a file" in done.stderr
