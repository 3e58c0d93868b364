"""The Invoke signer against botocore's, byte for byte."""

from datetime import datetime
from urllib.parse import quote

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from wren_backends.signing import Signer


@pytest.mark.parametrize("token", [None, "a token"])
@pytest.mark.parametrize("function", ["wren", "arn:aws:lambda:eu-west-1:123456789012:function:wren"])
@pytest.mark.parametrize("host", ["https://lambda.eu-west-1.amazonaws.com", "http://127.0.0.1:8080"])
def test_signature_is_botocores(host, function, token):
    url = f"{host}/2015-03-31/functions/{quote(function, safe='')}/invocations"
    credentials = Credentials("AKID", "secret", token)
    theirs = AWSRequest("POST", url, data=b'{"a": 1}', headers={"x-amz-invocation-type": "Event"})
    SigV4Auth(credentials, "lambda", "eu-west-1").add_auth(theirs)
    at = datetime.strptime(theirs.context["timestamp"], "%Y%m%dT%H%M%SZ")
    signer = Signer(url, "lambda", "eu-west-1")
    ours = signer.sign(b'{"a": 1}', {"x-amz-invocation-type": "Event"}, credentials.get_frozen_credentials(), at)
    assert ours["authorization"] == theirs.headers["Authorization"]
    assert ours.get("x-amz-security-token") == token


def test_renewed_credentials_are_used_at_once():
    signer = Signer("http://h/p", "lambda", "us-east-1")
    first = signer.sign(b"", {}, Credentials("AKID1", "secret1"))["authorization"]
    second = signer.sign(b"", {}, Credentials("AKID2", "secret2"))["authorization"]
    assert "AKID1" in first
    assert "AKID2" in second
