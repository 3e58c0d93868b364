"""`wren doctor` finds what is wrong, says what to type, and takes what it may not look at for no fault."""

import io
import json
import os
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler

import pytest
from as_on_aws import Wren, client_of, deploy_function
from relays import serving

from wren_backends.deploy.bucket import put_lifecycle
from wren_backends.deploy.package import function_zip
from wren_backends.local.options import BUCKET


def examined(wren, **environment):
    """Exit status and findings."""
    done = wren("doctor", "--json", **environment)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def of(findings, what, status=None):
    """Findings of one part."""
    return [one for one in findings if one["what"] == what and status in (None, one["status"])]


NOT_OURS = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::*"}],
}


@pytest.fixture(scope="module")
def settled(cloud, tmp_path_factory):
    """A function as `create_role` and `deploy_lambda` leave it."""
    settings = deploy_function(cloud, "examined")
    settings |= {"WREN_PREFIX": "examined", "WREN_MEMORY_MB": "256", "WREN_TIMEOUT_S": "60"}
    made = Wren(tmp_path_factory.mktemp("role"), settings)("create_role", "--name", "anybody", "--adopt")
    assert made.returncode == 0, made.stderr
    return settings


@pytest.fixture
def wren(tmp_path, settled):
    """The command on that function."""
    return Wren(tmp_path, settled)


def test_all_is_well(wren, cloud):
    put_lifecycle(client_of(cloud, "s3"), BUCKET, "examined", "examined")
    status, findings = examined(wren)
    assert status == 0, findings
    assert [one for one in findings if one["status"] != "pass"] == []
    assert "credentials" in [one["what"] for one in findings]
    assert of(findings, "function examined")[0]["found"].startswith("python3.")
    assert of(findings, "packages")[0]["found"].endswith("shared packages agree")


def test_a_function_that_is_not_there(wren):
    status, findings = examined(wren, WREN_FUNCTION="nowhere")
    assert status == 1
    shown = wren("doctor", WREN_FUNCTION="nowhere")
    assert shown.returncode == 1
    assert "fail    function nowhere" in shown.stdout
    assert "fix: wren deploy_lambda" in shown.stdout
    (missing,) = of(findings, "function nowhere")
    assert (missing["status"], missing["fix"]) == ("fail", "wren deploy_lambda")
    assert of(findings, "call", "unknown")


def test_what_has_been_changed_behind_our_back(wren, cloud):
    client, iam = client_of(cloud, "lambda"), client_of(cloud, "iam")
    client.update_function_configuration(FunctionName="examined", MemorySize=512, Layers=[])
    client.put_function_concurrency(FunctionName="examined", ReservedConcurrentExecutions=5)
    client.delete_function_event_invoke_config(FunctionName="examined")
    iam.put_role_policy(RoleName="anybody", PolicyName="wren-backends", PolicyDocument=json.dumps(NOT_OURS))
    try:
        status, findings = examined(wren, WREN_MODE="s3")
    finally:
        deploy_function(cloud, "examined")
        client.delete_function_concurrency(FunctionName="examined")
        assert wren("create_role", "--name", "anybody").returncode == 0
    assert status == 1
    assert "MemorySize 512 (configured: 256)" in of(findings, "function examined", "warn")[0]["found"]
    assert "WREN_MAX_WORKERS=5" in of(findings, "concurrency of examined", "warn")[0]["fix"]
    assert of(findings, "failures of examined", "fail")[0]["fix"] == "wren deploy_lambda"
    assert of(findings, "role anybody", "warn")[0]["fix"] == "wren create_role --name anybody"


def test_packages_that_differ(wren, cloud):
    """Both ways to end it are told: the function is brought up to date, or its versions are installed here."""
    packed = io.BytesIO(function_zip())
    with zipfile.ZipFile(packed, "a") as bundle:
        info = zipfile.ZipInfo("joblib-1.2.0.dist-info/METADATA")
        info.external_attr = 0o644 << 16
        bundle.writestr(info, "Metadata-Version: 2.1\nName: joblib\nVersion: 1.2.0\n")
    client_of(cloud, "lambda").update_function_code(FunctionName="examined", ZipFile=packed.getvalue())
    try:
        _, findings = examined(wren)
    finally:
        deploy_function(cloud, "examined")
    (differing,) = of(findings, "packages", "warn")
    assert "this function joblib 1.2.0" in differing["found"]
    assert differing["fix"] == "wren deploy_lambda --environment; or, here: pip install 'joblib==1.2.0'"


def test_a_bucket_that_is_not_there(wren):
    status, findings = examined(wren, WREN_BUCKET="never-made")
    assert status == 1
    assert "never-made does not exist" in of(findings, "bucket", "fail")[0]["found"]
    assert [one["what"] for one in findings if one["what"].startswith("bucket")] == ["bucket"]


@pytest.mark.parametrize(
    "rule",
    [
        {"Filter": {"Prefix": ""}, "Expiration": {"ExpiredObjectDeleteMarker": True}},
        {"Filter": {"Tag": {"Key": "a", "Value": "b"}}, "Expiration": {"Days": 7}},
        {"Filter": {"And": {"Prefix": "", "ObjectSizeGreaterThan": 1}}, "Expiration": {"Days": 7}},
    ],
    ids=["marks only", "some tags only", "large ones only"],
)
def test_rules_that_let_objects_lie_are_no_help(wren, cloud, rule):
    s3, bucket = client_of(cloud, "s3"), "rules-of-others"
    s3.create_bucket(Bucket=bucket)
    rules = {"Rules": [{"ID": "one", "Status": "Enabled", **rule}]}
    try:
        s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=rules)
        _, findings = examined(wren, WREN_BUCKET=bucket)
    finally:
        s3.delete_bucket(Bucket=bucket)
    assert "aws/lambda/async/examined/" in of(findings, "bucket lifecycle", "warn")[0]["found"]


def test_without_credentials_nothing_else_is_asked(tmp_path):
    bare = Wren(tmp_path, {"WREN_BUCKET": "mine", "WREN_REGION": "eu-west-1"})
    status, findings = examined(bare)
    assert status == 1
    assert "aws configure" in of(findings, "credentials", "fail")[0]["fix"]
    assert not of(findings, "bucket")


def test_on_the_local_cloud(tmp_path, cloud):
    local = Wren(tmp_path, {"XDG_STATE_HOME": os.environ["XDG_STATE_HOME"]})
    status, findings = examined(local)
    assert status == 0
    assert cloud.endpoint_url in of(findings, "local cloud", "pass")[0]["found"]
    assert {one["status"] for one in findings} == {"pass"}


class Answering(BaseHTTPRequestHandler):
    """Answers as IAM and STS do, whatever is asked: with one error, or by another clock."""

    status = 403
    ahead_s = 0.0
    body = b""

    def log_message(self, *_):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response_only(self.status)
        self.send_header("Date", formatdate(time.time() + self.ahead_s, usegmt=True))
        self.send_header("content-type", "text/xml")
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)


DENIED = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>not for you</Message></Error></ErrorResponse>"
CALLER = (
    b"<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/somebody</Arn>"
    b"<UserId>U</UserId><Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"
)


@contextmanager
def answering(**how):
    with serving(type("One", (Answering,), how)) as url:
        yield url


def test_what_may_not_be_looked_at_is_no_fault(wren):
    with answering(body=DENIED) as url:
        status, findings = examined(wren, AWS_ENDPOINT_URL_IAM=url)
    assert status == 0
    trust, policy = of(findings, "role anybody")
    assert (trust["status"], policy["status"]) == ("unknown", "unknown")
    assert "iam:GetRole is missing" in trust["found"]
    assert "iam:GetRolePolicy is missing" in policy["found"]


@pytest.mark.parametrize(("ahead_s", "status"), [(-120, "warn"), (900, "fail")])
def test_a_clock_that_is_wrong(wren, ahead_s, status):
    with answering(status=200, body=CALLER, ahead_s=ahead_s) as url:
        _, findings = examined(wren, AWS_ENDPOINT_URL_STS=url)
    (clock,) = of(findings, "clock")
    assert clock["status"] == status
    assert ("ahead" if ahead_s < 0 else "behind") in clock["found"]


def test_signatures_that_are_refused_for_the_clock_say_so(wren):
    expired = DENIED.replace(b"AccessDenied", b"SignatureDoesNotMatch").replace(b"not for you", b"Signature expired")
    with answering(body=expired, ahead_s=1200) as url:
        status, findings = examined(wren, AWS_ENDPOINT_URL_STS=url)
    assert status == 1
    assert of(findings, "clock", "fail")
    assert "Signature expired" in of(findings, "credentials", "fail")[0]["found"]


LOUD = "import logging, sys; logging.basicConfig(level=1); from wren_backends.cli import main; main(sys.argv[1:])"


@pytest.mark.parametrize("command", [("doctor",), ("deploy_lambda", "--dry-run")])
def test_the_function_s_secret_stays_out_of_the_log(wren, cloud, settled, command):
    described = client_of(cloud, "lambda").get_function_configuration(FunctionName="examined")
    done = subprocess.run(
        [sys.executable, "-c", LOUD, *command],
        cwd=wren.folder,
        env=wren.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "kept out of the log" in done.stderr
    assert described["Environment"]["Variables"]["WREN_FUNCTION_KEY"] not in done.stderr
