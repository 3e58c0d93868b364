"""The `wren` command beside a job of the tests' own, on the local cloud as such and by the way that leads to AWS."""

import os

import pytest
from as_on_aws import Wren, deploy_function


@pytest.fixture(scope="session")
def on_aws(cloud):
    """Environment variables with which the local cloud is AWS, and a function is deployed there."""
    return deploy_function(cloud, "as-on-aws")


@pytest.fixture(params=["local", "aws"])
def wren(request, tmp_path, cloud, monkeypatch):
    """The command, and this process, on the local cloud in both ways."""
    if request.param == "local":
        monkeypatch.setenv("WREN_FUNCTION", "logged")  # not the one whose log has all that other tests print
        return Wren(tmp_path, {name: os.environ[name] for name in ("XDG_STATE_HOME", "WREN_FUNCTION")})
    environment = request.getfixturevalue("on_aws")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Wren(tmp_path, environment)


@pytest.fixture
def wren_on_aws(tmp_path, on_aws, monkeypatch):
    """The command, and this process, as on AWS."""
    for name, value in on_aws.items():
        monkeypatch.setenv(name, value)
    return Wren(tmp_path, on_aws)
