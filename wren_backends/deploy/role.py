"""Who may do what: the policy documents of the worker's role and of its callers, and the role itself on AWS.

Three pure functions make the documents; each right in them is there because a line of `lambda_worker` or of the client
needs it, or Lambda does on the function's behalf. SECURITY.md shows them as a table, and the tests hold both together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from wren_backends.errors import DeploymentError

TAG = "wren-backends:function"
"""Key of the tag that marks a role as ours; its value is the function that the role was made for."""

_POLICY_NAME = "wren-backends"
_VERSION = "2012-10-17"  # of the policy language, and the newest (IAM User Guide, "JSON policy elements: Version")
_WILDCARDS = str.maketrans({"*": "${*}", "?": "${?}", "$": "${$}"})

Document = dict[str, Any]
"""An IAM policy document, ready for `json.dumps`."""


@dataclass(frozen=True)
class Scope:
    """The one function and the one place in S3 that rights are given to.

    Attributes:
        function: Name of the Lambda function.
        bucket: S3 bucket.
        prefix: Key prefix in it; may be empty.
        region: AWS region of the function.
        account: The account's number, 12 digits. The default fits any: a role's rights end at its own account.
        partition: `aws`, `aws-cn` or `aws-us-gov`.
        larger: Name of the function that runs calls again which ran out of memory; empty if there is none.
        whole_bucket: Let the worker write and list all of the bucket, which ought to be the project's own then. There
            are reports that Lambda takes a bucket for its records of failures from nobody who may do less.
    """

    function: str
    bucket: str
    prefix: str
    region: str
    account: str = "*"
    partition: str = "aws"
    larger: str = ""
    whole_bucket: bool = False

    @property
    def bucket_arn(self) -> str:
        """ARN of the bucket."""
        return f"arn:{self.partition}:s3:::{self.bucket}"

    @property
    def functions(self) -> list[str]:
        """Names of the functions."""
        return [self.function, *([self.larger] if self.larger else [])]

    @property
    def function_arns(self) -> list[str]:
        """ARNs of the functions, unqualified as they are called."""
        return [f"arn:{self.partition}:lambda:{self.region}:{self.account}:function:{one}" for one in self.functions]

    @property
    def log_group_arns(self) -> list[str]:
        """ARNs of the log groups that Lambda gives the functions."""
        place = f"arn:{self.partition}:logs:{self.region}:{self.account}:log-group"
        return [f"{place}:/aws/lambda/{one}" for one in self.functions]

    @property
    def blobs(self) -> str:
        """Keys of what calls share: functions, arguments, bundles of modules (`BlobRef.key` without a job)."""
        return f"{self._below}blobs/*"

    @property
    def jobs(self) -> str:
        """Keys of outcomes and of the data that they name (`outcome_key`, `BlobRef.key` with a job)."""
        return f"{self._below}jobs/*"

    @property
    def packages(self) -> str:
        """Keys of an archive of the function's packages (`deploy/publishing.py`)."""
        return f"{self._below}packages/*"

    @property
    def failures(self) -> list[str]:
        """Keys of Lambda's records of failed asynchronous invocations.

        Their form is Lambda's: https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
        """
        return [f"aws/lambda/async/{one}/*" for one in self.functions]

    @property
    def _below(self) -> str:
        # IAM's own wildcards in a prefix stand for themselves (IAM User Guide, "Policy variables", special characters).
        prefix = self.prefix.strip("/").translate(_WILDCARDS)
        return f"{prefix}/" if prefix else ""

    def objects(self, *keys: str) -> list[str]:
        """ARNs of the bucket's objects with such keys."""
        return [f"{self.bucket_arn}/{key}" for key in keys]


def trust_policy() -> Document:
    """Who may take on the worker's role: the Lambda service, nobody else."""
    return _document(
        {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"},
    )


def worker_policy(scope: Scope) -> Document:
    """What the function may do.

    It reads its packages and blobs, and commits outcomes and their data, but neither replaces what calls share nor
    deletes anything. A listing is what tells an object that is missing from one that is forbidden (`ObjectStore`);
    Lambda itself wants the right where it puts records of failures, and it puts them with the function's role.

    Args:
        scope: The function and its place in S3.
    """
    return _document(
        _allow("ReadBlobsAndOutcomes", ["s3:GetObject"], scope.objects(scope.blobs, scope.jobs)),
        _allow("ReadPackages", ["s3:GetObject"], scope.objects(scope.packages)),
        _allow("WriteOutcomes", ["s3:PutObject", "s3:AbortMultipartUpload"], scope.objects(scope.jobs)),
        _allow("RecordFailures", ["s3:PutObject"], scope.objects(*(["*"] if scope.whole_bucket else scope.failures))),
        _allow("ListAll", ["s3:ListBucket"], [scope.bucket_arn]) if scope.whole_bucket else _listing(scope),
        _allow(
            "WriteItsLog",
            ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"],
            # The star stands for the streams, and has to be there for the group too (CloudWatch Logs User Guide,
            # "CloudWatch Logs resources and operations").
            [f"{arn}:*" for arn in scope.log_group_arns],
        ),
    )


def client_policy(scope: Scope) -> Document:
    """What somebody needs who only runs calls: to be given to users and roles, by hand.

    With it comes all that the worker may do, since a call is any code.

    Args:
        scope: The function and its place in S3.
    """
    return _document(
        _allow("RunCalls", ["lambda:InvokeFunction", "lambda:GetFunctionConfiguration"], scope.function_arns),
        _allow("ReadOutcomes", ["s3:GetObject"], scope.objects(scope.blobs, scope.jobs, *scope.failures)),
        _allow("WriteBlobs", ["s3:PutObject", "s3:AbortMultipartUpload"], scope.objects(scope.blobs)),
        # A job's record, and the list of its calls that were given up.
        _allow("LeaveWord", ["s3:PutObject"], scope.objects(f"{scope.jobs}/job.json", f"{scope.jobs}/stop")),
        _listing(scope),
    )


def _listing(scope: Scope) -> Document:
    condition = {"StringLike": {"s3:prefix": [scope.blobs, scope.jobs, *scope.failures]}}
    return _allow("ListThem", ["s3:ListBucket"], [scope.bucket_arn]) | {"Condition": condition}


def _allow(sid: str, actions: list[str], resources: list[str]) -> Document:
    return {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources}


def _document(*statements: Document) -> Document:
    return {"Version": _VERSION, "Statement": list(statements)}


@dataclass(frozen=True)
class MadeRole:
    """What `create_role` has left on AWS.

    Attributes:
        arn: ARN of the role.
        change: What was done to it.
        others: Names of policies that it has from elsewhere, and that were left alone.
    """

    arn: str
    change: Literal["created", "updated", "unchanged"]
    others: tuple[str, ...]


def default_role_name(function: str) -> str:
    """How the role of a function is called where nobody says otherwise."""
    return f"{function}-worker"


def create_role(client: Any, name: str, scope: Scope, *, adopt: bool = False) -> MadeRole:
    """Make the role that a function runs as, or bring it up to date. Doing it twice does nothing the second time.

    Policies that somebody else gave the role stay: a worker may have to read data of its user's.

    Args:
        client: boto3 client of IAM.
        name: The role's name.
        scope: The function and its place in S3.
        adopt: Take over a role that was made otherwise, or for another function.

    Raises:
        DeploymentError: There is such a role and it is not this function's, or AWS refuses.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        existing = _find(client, name)
        if existing is None:
            return _create(client, name, scope)
        return _update(client, existing, scope, adopt=adopt)
    except ClientError as error:
        raise DeploymentError(_refused(name, error)) from error
    except BotoCoreError as error:
        raise DeploymentError(f"role {name!r} was not made: {error}; check credentials and network") from error


def _refused(name: str, error: Any) -> str:
    text = f"role {name!r} was not made: {error}"
    if "AccessDenied" in error.response.get("Error", {}).get("Code", ""):
        text += (
            "; it takes iam:GetRole, CreateRole, TagRole, UpdateAssumeRolePolicy, GetRolePolicy, PutRolePolicy, "
            "ListRolePolicies and ListAttachedRolePolicies. If you are not to have them, show an administrator "
            "`wren create_role --print`"
        )
    return text


def _find(client: Any, name: str) -> dict[str, Any] | None:
    try:
        return dict(client.get_role(RoleName=name)["Role"])
    except client.exceptions.NoSuchEntityException:
        return None


def _create(client: Any, name: str, scope: Scope) -> MadeRole:
    made = client.create_role(
        RoleName=name,
        AssumeRolePolicyDocument=json.dumps(trust_policy()),
        Description=f"What the Lambda function {scope.function} of wren-backends may do",
        Tags=_tags(scope),
    )["Role"]
    _put_policy(client, name, scope)
    return MadeRole(made["Arn"], "created", ())


def _update(client: Any, role: Mapping[str, Any], scope: Scope, *, adopt: bool) -> MadeRole:
    name = role["RoleName"]
    owner = next((tag["Value"] for tag in role.get("Tags", ()) if tag["Key"] == TAG), None)
    if owner != scope.function and not adopt:
        whose = f"is function {owner!r}'s" if owner else "was not made by `wren create_role`"
        raise DeploymentError(
            f"role {name!r} exists and {whose}: give another name with --name, or take it over with --adopt, "
            f"which replaces who may assume it and what function {scope.function!r} may do"
        )
    changed = owner != scope.function
    if changed:
        client.tag_role(RoleName=name, Tags=_tags(scope))
    if role["AssumeRolePolicyDocument"] != trust_policy():
        client.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(trust_policy()))
        changed = True
    if _own_policy(client, name) != worker_policy(scope):
        _put_policy(client, name, scope)
        changed = True
    return MadeRole(role["Arn"], "updated" if changed else "unchanged", _others(client, name))


def _tags(scope: Scope) -> list[dict[str, str]]:
    return [{"Key": TAG, "Value": scope.function}]


def _put_policy(client: Any, name: str, scope: Scope) -> None:
    client.put_role_policy(
        RoleName=name, PolicyName=_POLICY_NAME, PolicyDocument=json.dumps(worker_policy(scope), separators=(",", ":"))
    )


def _own_policy(client: Any, name: str) -> Document | None:
    try:
        return dict(client.get_role_policy(RoleName=name, PolicyName=_POLICY_NAME)["PolicyDocument"])
    except client.exceptions.NoSuchEntityException:
        return None


def _others(client: Any, name: str) -> tuple[str, ...]:
    inline = client.get_paginator("list_role_policies").paginate(RoleName=name)
    attached = client.get_paginator("list_attached_role_policies").paginate(RoleName=name)
    found = [one for page in inline for one in page["PolicyNames"] if one != _POLICY_NAME]
    return (*found, *(one["PolicyName"] for page in attached for one in page["AttachedPolicies"]))
