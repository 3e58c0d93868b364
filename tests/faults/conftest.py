"""A function of its own, and a proxy on each path: client to Lambda, client to S3, worker to S3."""

import contextlib
from dataclasses import dataclass, replace

import boto3
import pytest

from wren_backends import Config, WrenExecutor
from wren_backends.connection import connect
from wren_backends.deploy.function import FunctionSpec, deploy

from .proxy import Proxy

FUNCTION_TIMEOUT_S = 30


@dataclass
class Path:
    """The proxies that calls pass, and the function and bucket at their end."""

    to_lambda: Proxy
    to_s3: Proxy
    worker_to_s3: Proxy
    connection: object
    client: object

    @property
    def function(self):
        return self.connection.function


@pytest.fixture(scope="session")
def whole_path(cloud):
    base = connect(Config())
    session = boto3.session.Session(cloud.access_key_id, cloud.secret_access_key, region_name=cloud.region)
    client = session.client("lambda", endpoint_url=cloud.lambda_endpoint_url)
    with contextlib.ExitStack() as stack:
        stack.callback(client.close)
        to_lambda = stack.enter_context(Proxy(cloud.lambda_endpoint_url))
        to_s3 = stack.enter_context(Proxy(cloud.s3_endpoint_url))
        worker_to_s3 = stack.enter_context(Proxy(cloud.s3_endpoint_url))
        described = client.get_function_configuration(FunctionName=base.function)
        spec = FunctionSpec(
            name="wren-faults",
            role=described["Role"],
            bucket=base.bucket,
            memory_mb=described["MemorySize"],
            timeout_s=FUNCTION_TIMEOUT_S,
            layers=tuple(layer["Arn"] for layer in described["Layers"]),
            variables={**described["Environment"]["Variables"], "AWS_ENDPOINT_URL_S3": worker_to_s3.url},
        )
        made = deploy(client, spec)
        connection = replace(
            base,
            function=made["FunctionName"],
            timeout_s=made["Timeout"],
            lambda_url=to_lambda.url,
            s3_url=to_s3.url,
        )
        yield Path(to_lambda, to_s3, worker_to_s3, connection, client)
        client.delete_function(FunctionName=made["FunctionName"])


@pytest.fixture
def path(whole_path):
    """The whole path without faults; rules that a test adds end with it."""
    proxies = whole_path.to_lambda, whole_path.to_s3, whole_path.worker_to_s3
    for proxy in proxies:
        proxy.clear()
    yield whole_path
    for proxy in proxies:
        proxy.clear()


@pytest.fixture
def make(path):
    """Make executors on that path; they are shut down after the test."""
    with contextlib.ExitStack() as stack:

        def made(mode="direct", max_workers=2, *, connection=None, on_event=None, **settings):
            config = Config.load(mode=mode, **settings)
            executor = WrenExecutor(
                max_workers, config=config, connection=connection or path.connection, on_event=on_event
            )
            return stack.enter_context(executor)

        yield made


@pytest.fixture(params=["direct", "s3"])
def mode(request):
    return request.param
