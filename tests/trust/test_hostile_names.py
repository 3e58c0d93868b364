"""Names that would lead elsewhere are refused by name, by the function's decoder and by the client's settings."""

import json

import cloudpickle
import pytest

from lambda_worker.protocol import BlobRef, Event, Reply, WireCall
from wren_backends import Config, ConfigError, WrenExecutor

HOSTILE = {
    "parent": "../x",
    "two dots": "..",
    "one dot": ".",
    "inside": "a/../b",
    "root": "/x",
    "two slashes": "a//b",
    "slash at the end": "a/",
    "NUL": "a\0b",
    "newline": "a\nb",
    "newline at the end": "a\n",
    "space": "a b",
    "percent": "%2e%2e",
    "question": "a?b=c",
    "fragment": "a#b",
    "very long": "x" * 5000,
    "letters of other scripts": "ä٣",
    "lone surrogate": "\ud800",
    "colon": "a:b",
}


@pytest.fixture
def invoke(executor, intruder):
    """Invoke the function with an event that was changed, as who may invoke it could."""
    client = intruder(executor).client_of("lambda")
    pickled = cloudpickle.dumps(pow, protocol=5), cloudpickle.dumps(((2, 3), {}), protocol=5)
    good = Event(
        job_id="j-1",
        calls=(WireCall(0, 0, (pickled[1],)),),
        functions=((pickled[0],),),
        bucket=executor.connection.bucket,
        prefix=executor.connection.prefix,
        commit_after_s=0,
    ).to_json()

    def send(**changes):
        answer = client.invoke(
            FunctionName=executor.connection.function, Payload=json.dumps({**good, **changes}).encode()
        )
        assert "FunctionError" not in answer
        return Reply.from_json(json.loads(answer["Payload"].read()))

    return send


@pytest.fixture
def untouched(executor, intruder):
    """Nothing new lies in the bucket after the test."""
    before = intruder(executor).keys()
    yield
    assert intruder(executor).keys() == before


def test_the_good_event_runs(invoke):
    assert invoke().frame


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("field", ["job", "bucket", "prefix"])
def test_an_event_that_names_a_place_elsewhere(invoke, field, name):
    reply = invoke(**{field: HOSTILE[name]})
    assert reply.refused == "event"
    assert reply.detail.startswith(f"not a {field}")
    assert len(reply.detail) < 500


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("name", HOSTILE)
def test_an_event_whose_blobs_lie_elsewhere(invoke, name):
    good = BlobRef("ab" * 32, 5).to_json()
    for blob in ({**good, "blob": HOSTILE[name]}, {**good, "job": HOSTILE[name]}):
        for changes in ({"modules": blob}, {"functions": [[blob]]}, {"calls": [[0, 0, [blob], 0]]}):
            reply = invoke(**changes)
            assert reply.refused == "event"
            assert reply.detail.startswith(("not a job id", "not a BLAKE3 digest"))


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("seq", [-1, 10**12, 10**400, "0", "../0", None, True, 0.0, [0]])
def test_an_event_whose_calls_have_no_numbers(invoke, seq):
    assert invoke(calls=[[seq, 0, ["YQ=="], 0]]).refused == "event"


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("name", ["", "A=B", "A\0B", "\ud800"])
def test_an_event_whose_environment_is_none(invoke, name):
    assert invoke(environment={name: "x"}).refused == "event"


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("field", ["bucket", "prefix", "function"])
def test_settings_that_name_a_place_elsewhere(field, name, monkeypatch):
    for make in (Config, Config.load, WrenExecutor):
        with pytest.raises(ConfigError) as caught:
            make(**{field: HOSTILE[name]})
        assert f"WREN_{field.upper()}" in str(caught.value)
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("field", ["bucket", "function"])
def test_settings_that_name_nothing(field):
    with pytest.raises(ConfigError):
        Config(**{field: ""})


@pytest.mark.parametrize("prefix", ["", "wren", "team/a-b_c/v1.2", "a..b", "...", "user@host", "day=1+2"])
def test_prefixes_that_are_fine(cloud, prefix):
    assert Config.load(prefix=prefix).prefix == prefix
    with WrenExecutor(1, mode="s3", prefix=prefix) as executor:
        assert executor.submit(len, bytes(200_000)).result(timeout=30) == 200_000
