"""Lambda behind TLS and a proxy, as it is on AWS from many an office: the whole way, with boto3's own settings."""

from urllib.parse import urlsplit

import pytest
import trustme
from relays import ConnectProxy, Relay, server_context

from wren_backends import Config
from wren_backends.connection import connect

PROGRAM = """
    from wren_backends import WrenExecutor

    with WrenExecutor(2) as executor:
        print(sum(executor.map(abs, range(-50, 0))))
"""


@pytest.fixture
def far(cloud, tmp_path):
    """The environment of a client that reaches Lambda over TLS only, and the proxy that it is to use."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    near = urlsplit(cloud.lambda_endpoint_url).port
    with Relay(near, server_context(authority, "lambda.test")) as lambda_, ConnectProxy() as proxy:
        known = connect(Config())
        yield (
            proxy,
            {
                "AWS_ACCESS_KEY_ID": cloud.access_key_id,
                "AWS_SECRET_ACCESS_KEY": cloud.secret_access_key,
                "AWS_DEFAULT_REGION": cloud.region,
                "AWS_CA_BUNDLE": str(tmp_path / "authority.pem"),
                "AWS_ENDPOINT_URL_LAMBDA": f"https://lambda.test:{lambda_.port}",
                "AWS_ENDPOINT_URL_S3": cloud.s3_endpoint_url,
                "HTTPS_PROXY": f"http://me:word@127.0.0.1:{proxy.port}",
                "NO_PROXY": "",
                "WREN_CLOUD": "aws",
                "WREN_BUCKET": known.bucket,
                "WREN_FUNCTION": known.function,
            },
        )


def test_calls_go_through_tls_and_a_proxy(far, run_script):
    proxy, surroundings = far
    done = run_script(PROGRAM, **surroundings)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1275\n", "")
    assert len(proxy.heads) >= 2  # boto3's own and those of the calls
    assert all(b"lambda.test" in head and b"Proxy-Authorization: Basic " in head for head in proxy.heads)


def test_a_bundle_of_authorities_that_is_not_there(far, run_script):
    _, surroundings = far
    done = run_script(PROGRAM, **surroundings | {"AWS_CA_BUNDLE": "/nowhere.pem"})
    assert done.returncode == 1
    assert "AWS_CA_BUNDLE" in done.stderr
    assert "'/nowhere.pem', which is not a file" in done.stderr
