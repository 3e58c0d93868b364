"""The function's secret and the keys that derive from it lie nowhere: not in the bucket, not in a log."""

import base64
import logging
import os
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from signals import wait_for

from lambda_worker.codec import job_key
from lambda_worker.protocol import FUNCTION_KEY_VARIABLE
from wren_backends import EnvironmentLostError, WrenExecutor
from wren_backends import connection as connection_module

SOON_S = 30.0


def forms(key):
    """How a key could be written down."""
    encoded = {base64.b64encode(bytes(shift) + key)[-(-shift * 4 // 3) + (shift > 0) :][:40] for shift in range(3)}
    texts = {key.hex().encode(), key.hex().upper().encode(), base64.b64encode(key.hex().encode())}
    return {key, *encoded, *texts, *(one.replace(b"+", b"-").replace(b"/", b"_") for one in encoded)}


def assert_absent(secrets, data, where):
    for secret in secrets:
        assert secret not in data, where


def test_every_form_is_looked_for():
    key = os.urandom(32)
    for shift in range(3):
        assert any(form in base64.b64encode(os.urandom(shift) + key + b"more") for form in forms(key))
        assert any(form in base64.urlsafe_b64encode(os.urandom(shift) + key + b"more") for form in forms(key))
    for data in (key, key.hex().encode(), base64.b64encode(key.hex().encode())):
        with pytest.raises(AssertionError):
            assert_absent(forms(key), b"before" + data + b"after", "")


@pytest.fixture
def unknown_function(monkeypatch):
    """As a new process would, ask for the function's configuration, and with it for the secret, once more."""
    monkeypatch.setattr(connection_module, "_known", {})


@pytest.mark.usefixtures("unknown_function")
@pytest.mark.parametrize("mode", ["direct", "s3"])
def test_keys_after_a_job_of_all_kinds_of_calls(cloud, intruder, caplog, mode):
    begun = datetime.now(UTC) - timedelta(seconds=1)  # S3's clock shows whole seconds
    caplog.set_level(logging.DEBUG)  # of every library, as `logging.basicConfig(level=logging.DEBUG)` would have it
    # Another memory than the other tests' function: this one is created here.
    with WrenExecutor(2, mode=mode, commit_after_s=0, memory_mb=1700 + len(mode), max_attempts=2) as executor:
        assert executor.submit(pow, 2, 3).result(timeout=SOON_S) == 8
        assert executor.submit(np.sum, np.ones(300_000)).result(timeout=SOON_S) == 300_000
        assert executor.submit(np.ones, 1_000_000).result(timeout=SOON_S).sum() == 1_000_000
        assert type(executor.submit(divmod, 1, 0).exception(timeout=SOON_S)) is ZeroDivisionError
        assert type(executor.submit(os._exit, 1).exception(timeout=SOON_S)) is EnvironmentLostError
        names = executor.submit(lambda: print(sorted(os.environ.items())) or list(os.environ)).result(timeout=SOON_S)
        job_id, function = executor.job_id, executor.connection.function
        secrets = forms(executor.connection.function_key)
        secrets |= forms(job_key(executor.connection.function_key, job_id))
        bucket = intruder(executor)
        shown = repr(executor.connection)
    assert FUNCTION_KEY_VARIABLE not in names
    keys = bucket.keys(since=begun)  # what other tests left says nothing about these calls
    assert any(key.startswith("aws/lambda/async/") for key in keys) or mode == "direct"
    assert sum(job_id in key for key in keys) > 3
    for key in keys:
        assert_absent(secrets, key.encode(), key)
        assert_absent(secrets, bucket.read(key), key)
    logs = bucket.client_of("logs")
    text = wait_for(lambda: _log_of(logs, f"/aws/lambda/{function}"))
    assert "REPORT RequestId" in text
    assert_absent(secrets, text.encode(), "the function's log")
    assert "invocation.finished" in caplog.text
    assert "kept out of the log" in caplog.text
    assert_absent(secrets, (caplog.text + shown).encode("utf-8", "replace"), "the client's log")


def _log_of(logs, group):
    pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group)
    return "\n".join(event["message"] for page in pages for event in page["events"])
