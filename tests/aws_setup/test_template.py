"""The CloudFormation template makes what `wren setup` makes, and holds no secret."""

import ast
import json
import platform
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import boto3
import pytest
import servers

from wren_backends.deploy.policies import Scope, worker_policy

from .guard import ACCOUNT, REGION

CFN_LINT = Path(sys.executable).with_name("cfn-lint")
NETWORK = ("--subnet", "subnet-0123456789abcdef0", "--security-group", "sg-0123456789abcdef0")
EVERYTHING = (*NETWORK, "--size", "3008", "--tag", "a=b", "--ephemeral", "1024", "--reserved-concurrency", "5")


@pytest.fixture
def template(wren):
    def read(*arguments):
        return json.loads(wren("setup", "--template", *arguments).stdout)

    return read


def test_cfn_lint_has_nothing_to_say(template, tmp_path):
    paths = {tmp_path / "plain.json": (), tmp_path / "everything.json": EVERYTHING}
    for path, options in paths.items():
        path.write_text(json.dumps(template(*options)))
    options = ("--regions", REGION, "--include-checks", "W", "I", "--")
    done = subprocess.run([CFN_LINT, *options, *paths], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(("machine", "architecture"), [("aarch64", "arm64"), ("x86_64", "x86_64")])
def test_it_is_for_the_processor_that_the_zip_is_for(template, monkeypatch, machine, architecture):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    for options, wanted in (((), architecture), (("--arch", "arm64"), "arm64")):
        made = template("--size", "3008", *options)["Resources"]
        functions = [one for one in made.values() if one["Type"] == "AWS::Lambda::Function"]
        assert [one["Properties"]["Architectures"] for one in functions] == [[wanted]] * 2


def test_the_secret_is_made_in_the_stack_and_stands_nowhere(template):
    made = template(*EVERYTHING)
    functions = [one for one in made["Resources"].values() if one["Type"] == "AWS::Lambda::Function"]
    assert len(functions) == 2
    for one, secret in zip(functions, ("Secret", "Secret3008mb"), strict=True):
        value = one["Properties"]["Environment"]["Variables"]["WREN_FUNCTION_KEY"]
        assert value == {"Fn::Sub": f"{{{{resolve:secretsmanager:${{{secret}}}:SecretString}}}}"}
        assert made["Resources"][secret]["Type"] == "AWS::SecretsManager::Secret"


@pytest.fixture(scope="module")
def moto(tmp_path_factory):
    """A server that knows CloudFormation too."""
    with servers.moto(tmp_path_factory.mktemp("moto")) as url:
        yield url


def test_what_a_stack_has_made_is_what_set_up_makes_and_is_deployed_to(
    template, wren, moto, monkeypatch, tmp_path, name
):
    def client(service):
        return boto3.client(service, REGION, endpoint_url=moto, **servers.ADMIN)

    code = tmp_path / "code.zip"
    wren("setup", "--code", code)
    assert "lambda_worker/handler.py" in zipfile.ZipFile(code).namelist()
    s3, lambda_client = client("s3"), client("lambda")
    s3.create_bucket(Bucket="code")
    s3.upload_file(str(code), "code", "wren.zip")
    bucket = f"stack-{name}"
    values = {"FunctionName": name, "BucketName": bucket, "CodeBucket": "code", "CodeKey": "wren.zip", "Timeout": "60"}
    client("cloudformation").create_stack(
        StackName=name,
        TemplateBody=json.dumps(template()),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    [stack] = client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    outputs = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}
    assert (outputs["Bucket"], outputs["Function"]) == (bucket, name)
    role = outputs["Role"].rpartition("/")[2]
    found = client("iam").get_role_policy(RoleName=role, PolicyName="wren-backends")["PolicyDocument"]
    # moto keeps a policy of a template as Python's text of it.
    assert ast.literal_eval(found) == worker_policy(Scope(name, bucket, "wren", REGION, ACCOUNT))
    # moto leaves dynamic references as they are: the test resolves this one, with what Secrets Manager generates.
    generated = template()["Resources"]["Secret"]["Properties"]["GenerateSecretString"]
    key = client("secretsmanager").get_random_password(**generated)["RandomPassword"]
    assert re.fullmatch("[0-9a-fA-F]{64}", key)
    variables = {"Variables": {"WREN_FUNCTION_KEY": key}}
    before = lambda_client.update_function_configuration(FunctionName=name, Environment=variables)

    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    wren("create_config", "--bucket_name", bucket, "--name", name, "--region", REGION)
    dry = json.loads(wren("deploy_lambda", "--dry-run", "--json").stdout)
    assert [step["what"] for step in dry] == ["function"]
    assert wren("deploy_lambda", "--memory", 512).exit_code == 0
    after = lambda_client.get_function_configuration(FunctionName=name)
    assert (after["MemorySize"], after["Timeout"], after["Role"]) == (512, 60, outputs["Role"])
    assert after["Environment"] == before["Environment"]


def test_objects_expire_as_in_a_bucket_of_set_up(template):
    rules = template("--size", "512")["Resources"]["Bucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    assert {one["ExpirationInDays"] for one in rules} == {7}
    assert [one["Prefix"] for one in rules] == [
        "wren/jobs/",
        "wren/blobs/",
        {"Fn::Sub": "aws/lambda/async/${FunctionName}/"},
        {"Fn::Sub": "aws/lambda/async/${FunctionName}-512mb/"},
    ]


def test_no_aws_is_asked(template, guard):
    template()
    assert guard.asked == []
