"""One worker under its role and one client under its policy, on servers that hold them to both."""

import io
import json
import zipfile
from dataclasses import dataclass, replace

import pytest
import servers
from servers import ROLE, SCOPE
from signals import wait_for

from wren_backends import Config, WrenExecutor
from wren_backends.connection import connect
from wren_backends.deploy.function import FunctionSpec, deploy
from wren_backends.deploy.package import function_zip
from wren_backends.deploy.policies import client_policy
from wren_backends.deploy.role import create_role

AS_ROLE = """
import os

# Lambda puts the role's credentials there itself, and lets nobody else put anything there.
for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
    os.environ[name] = os.environ.pop("ROLE_" + name)

from lambda_worker.handler import handler
"""


def credentials_of(assumed):
    """What STS answered, as arguments of boto3."""
    found = assumed["Credentials"]
    return {
        "aws_access_key_id": found["AccessKeyId"],
        "aws_secret_access_key": found["SecretAccessKey"],
        "aws_session_token": found["SessionToken"],
    }


def assume(url, name):
    """Take on a role, as the Lambda service does for a function."""
    sts = servers.client_of("sts", url, servers.ADMIN)
    return credentials_of(sts.assume_role(RoleArn=f"arn:aws:iam::123456789012:role/{name}", RoleSessionName="worker"))


def user(url, name, policy):
    """A user with one policy; returns the credentials as arguments of boto3."""
    iam = servers.client_of("iam", url, servers.ADMIN)
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    iam.put_user_policy(UserName=name, PolicyName="only", PolicyDocument=json.dumps(policy))
    return {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}


@dataclass(frozen=True)
class Account:
    """An AWS account, as far as moto is one.

    Attributes:
        url: Of all its services; signatures and policies are checked.
        admin: Credentials of a user who may do anything.
        worker: Credentials of the role that `create_role` made.
        client: Credentials of a user with the client's policy.
        operator: Credentials of a user with the rights that `create_role` names in its errors, and no others.
        trust: The role's trust policy, as IAM has it.
        policy: The role's policy, as IAM has it.
    """

    url: str
    admin: dict
    worker: dict
    client: dict
    operator: dict
    trust: dict
    policy: dict

    def client_of(self, service, who):
        return servers.client_of(service, self.url, getattr(self, who))


OPERATOR_ACTIONS = (
    "GetRole",
    "CreateRole",
    "TagRole",
    "UpdateAssumeRolePolicy",
    "GetRolePolicy",
    "PutRolePolicy",
    "ListRolePolicies",
    "ListAttachedRolePolicies",
)


def allow(*actions):
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]}


@pytest.fixture(scope="session")
def account(tmp_path_factory):
    """The account with the role in it."""
    with servers.moto(tmp_path_factory.mktemp("moto")) as url:
        iam = servers.client_of("iam", url, servers.ADMIN)
        create_role(iam, ROLE, SCOPE)
        account = Account(
            url=url,
            admin=user(url, "admin", allow("*")),
            worker=assume(url, ROLE),
            client=user(url, "client", client_policy(SCOPE)),
            operator=user(url, "operator", allow(*(f"iam:{action}" for action in OPERATOR_ACTIONS))),
            trust=iam.get_role(RoleName=ROLE)["Role"]["AssumeRolePolicyDocument"],
            policy=iam.get_role_policy(RoleName=ROLE, PolicyName="wren-backends")["PolicyDocument"],
        )
        servers.enforce(url)
        yield account


@dataclass(frozen=True)
class Bucket:
    """The bucket and who may do what to it.

    Attributes:
        url: Of its S3 server, on which a missing object is forbidden as on AWS.
        server_url: Of the same server, where it is missing.
        worker: Credentials of the role.
        client: Credentials of a user with the client's policy.
        admin: Credentials of the bucket's owner.
    """

    url: str
    server_url: str
    worker: dict
    client: dict
    admin: dict

    def client_of(self, who):
        return servers.client_of("s3", self.url, getattr(self, who))


@pytest.fixture(scope="session")
def bucket(account, tmp_path_factory):
    """The bucket, with somebody else's objects beside the project's, and another bucket beside it."""
    # Somebody has to take on the role in the Lambda service's place; `as-made` is the role as it is.
    stand_in = json.loads(json.dumps(account.trust).replace('{"Service": "lambda.amazonaws.com"}', '{"AWS": "*"}'))
    assert stand_in != account.trust
    roles = {ROLE: (stand_in, account.policy), "as-made": (account.trust, account.policy)}
    with servers.seaweedfs(tmp_path_factory.mktemp("s3"), roles) as server_url, servers.gate(server_url) as url:
        found = Bucket(
            url, server_url, assume(server_url, ROLE), user(server_url, "client", client_policy(SCOPE)), servers.ADMIN
        )
        admin = servers.client_of("s3", server_url, servers.ADMIN)
        for name in (SCOPE.bucket, "another-bucket", "spare-bucket"):
            admin.create_bucket(Bucket=name)
            for key in ("private/x", "some/project/blobs/x", "some/project/jobs/j/outcomes/x", "some/projects/jobs/x"):
                admin.put_object(Bucket=name, Key=key, Body=b"theirs")
        # The server learns of a new user in its own time.
        listing = {"Bucket": SCOPE.bucket, "Prefix": "some/project/blobs/"}
        wait_for(lambda: servers.allows(lambda: found.client_of("client").list_objects_v2(**listing)))
        yield found


@pytest.fixture(scope="session")
def careful(cloud, account, bucket):
    """Connection of that client to a function that runs under the role."""
    usual = connect(Config())
    lambda_client = servers.client_of(
        "lambda",
        cloud.lambda_endpoint_url,
        {"aws_access_key_id": cloud.access_key_id, "aws_secret_access_key": cloud.secret_access_key},
    )
    layers = lambda_client.get_function_configuration(FunctionName=usual.function)["Layers"]
    deploy(
        lambda_client,
        FunctionSpec(
            name=SCOPE.function,
            role=f"arn:aws:iam::123456789012:role/{ROLE}",
            bucket=SCOPE.bucket,
            memory_mb=1769,
            timeout_s=60,
            layers=tuple(layer["Arn"] for layer in layers),
            variables={
                "AWS_ENDPOINT_URL_S3": bucket.url,
                **{f"ROLE_{name.upper()}": value for name, value in bucket.worker.items()},
            },
        ),
    )
    packed = io.BytesIO(function_zip())
    with zipfile.ZipFile(packed, "a") as bundle:
        info = zipfile.ZipInfo("as_role.py")
        info.external_attr = 0o755 << 16
        bundle.writestr(info, AS_ROLE)
    lambda_client.update_function_code(FunctionName=SCOPE.function, ZipFile=packed.getvalue())
    described = lambda_client.update_function_configuration(FunctionName=SCOPE.function, Handler="as_role.handler")
    names = {"aws_access_key_id": "access_key_id", "aws_secret_access_key": "secret_access_key"}
    return replace(
        usual,
        bucket=SCOPE.bucket,
        prefix=SCOPE.prefix,
        function=SCOPE.function,
        s3_url=bucket.url,
        s3_credentials={"credentials": {names[name]: value for name, value in bucket.client.items()}},
        function_key=bytes.fromhex(described["Environment"]["Variables"]["WREN_FUNCTION_KEY"]),
        memory_mb=1769,
        timeout_s=60,
    )


@pytest.fixture(params=["direct", "s3"])
def careful_executor(request, careful):
    """An executor of that client in each mode."""
    with WrenExecutor(2, mode=request.param, connection=careful) as executor:
        yield executor
