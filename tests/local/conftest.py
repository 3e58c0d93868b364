"""One private local cloud for all tests here, and functions zipped in memory."""

import base64
import itertools
import json
import re
from dataclasses import dataclass

import pytest

from wren_backends.local import cloud as local_cloud
from wren_backends.local.options import CloudOptions

from .helpers import ROLE, RUNTIME, client_of, zipped

_numbers = itertools.count()


@pytest.fixture(scope="session")
def cloud(clean_surroundings):
    """The cloud; AWS's minutes between attempts are milliseconds here, and its 10 s of init are 1."""
    options = CloudOptions(async_time_scale=0.001, event_age_scale=0.005, init_limit_s=1.5)
    yield local_cloud.start_private(options)
    local_cloud.stop_private()


@pytest.fixture(scope="session")
def s3(cloud):
    return client_of(cloud, "s3")


@pytest.fixture(scope="session")
def lambda_client(cloud):
    return client_of(cloud, "lambda")


@dataclass
class Reply:
    """What one Invoke answered."""

    value: object
    error: str | None
    log: str
    raw: dict

    @property
    def report(self):
        return next(line for line in self.log.splitlines() if line.startswith("REPORT"))


@pytest.fixture
def invoke(lambda_client):
    def call(name, event=None, **more):
        raw = lambda_client.invoke(FunctionName=name, Payload=json.dumps(event).encode(), LogType="Tail", **more)
        log = base64.b64decode(raw.get("LogResult", "")).decode()
        return Reply(json.loads(raw["Payload"].read()), raw.get("FunctionError"), log, raw)

    return call


@pytest.fixture
def function(lambda_client, request):
    """Create functions from source text; they are deleted after the test."""
    names = []

    def create(source, name=None, files=None, **settings):
        name = name or f"{re.sub(r'[^a-zA-Z0-9-]+', '-', request.node.name)[:48]}-{next(_numbers)}"
        code = zipped({"app.py": source, **(files or {})})
        arguments = {"Runtime": RUNTIME, "Role": ROLE, "Handler": "app.handler", **settings}
        lambda_client.create_function(FunctionName=name, Code={"ZipFile": code}, **arguments)
        names.append(name)
        return name

    yield create
    for name in names:
        lambda_client.delete_function(FunctionName=name)


@pytest.fixture(autouse=True)
def own_state(monkeypatch, tmp_path):
    """These tests start and stop shared clouds: not the one that the other tests share."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
