"""An index of the tests' own, and functions that are deployed with packages."""

import uuid
from dataclasses import replace

import boto3
import pytest
from botocore.config import Config as ClientConfig

from wren_backends import Config, WrenExecutor
from wren_backends.connection import connect
from wren_backends.deploy import packages
from wren_backends.deploy.function import FunctionSpec, deploy
from wren_backends.deploy.target import Target

ROLE = "arn:aws:iam::000000000000:role/wren"


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """The folder of what is built, of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "wren" / "packages"


@pytest.fixture
def index(tmp_path, monkeypatch, own_cache):
    """A folder that is the only index; see `wheels.py`. What the worker needs is there as well."""
    folder = tmp_path / "index"
    folder.mkdir()
    configuration = tmp_path / "uv.toml"
    configuration.write_text(f"no-index = true\nfind-links = ['{folder}']\n")
    monkeypatch.setenv("UV_CONFIG_FILE", str(configuration))
    for name in ("UV_FIND_LINKS", "UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    # Room for the worker is needed to find out what fits; it is not what these tests are about.
    monkeypatch.setattr(packages, "_unzipped_function", lambda target: 20_000_000)
    return folder


@pytest.fixture(scope="session")
def target():
    return Target.here()


def client_of(cloud, service):
    config = ClientConfig(proxies={}, s3={"addressing_style": "path"})
    return boto3.client(
        service,
        region_name=cloud.region,
        endpoint_url=cloud.endpoint_url,
        aws_access_key_id=cloud.access_key_id,
        aws_secret_access_key=cloud.secret_access_key,
        config=config,
    )


@pytest.fixture(scope="session")
def s3(cloud):
    return client_of(cloud, "s3")


@pytest.fixture(scope="session")
def lambda_client(cloud):
    return client_of(cloud, "lambda")


@pytest.fixture
def publish(cloud, s3, lambda_client):
    """Publish built packages; returns what a function needs to have them."""

    def publish(built, name="packages", **more):
        usual = connect(Config())
        return packages.publish(built, lambda_client, s3, usual.bucket, usual.prefix, name, **more)

    return publish


@pytest.fixture
def executor_with(cloud, lambda_client):
    """Make executors on functions of their own that have such packages."""
    names = []

    def make(published, workers=1, timeout_s=60, **settings):
        usual = connect(Config())
        name = f"packages-{uuid.uuid4().hex[:8]}"
        names.append(name)
        spec = FunctionSpec(name, ROLE, usual.bucket, 1769, timeout_s, published.layers, published.variables)
        described = deploy(lambda_client, spec)
        secret = bytes.fromhex(described["Environment"]["Variables"]["WREN_FUNCTION_KEY"])
        connection = replace(usual, function=name, function_key=secret, timeout_s=timeout_s)
        return WrenExecutor(workers, connection=connection, **settings)

    yield make
    for name in names:
        lambda_client.delete_function(FunctionName=name)
