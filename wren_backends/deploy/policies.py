"""Who may do what: the policy documents of the worker's role and of its callers.

Pure functions; each right in them is there because a line of `lambda_worker` or of the client needs it, or Lambda does
on the function's behalf. SECURITY.md shows them as a table, and the tests hold both together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_VERSION = "2012-10-17"  # of the policy language, and the newest (IAM User Guide, "JSON policy elements: Version")
_WILDCARDS = str.maketrans({"*": "${*}", "?": "${?}", "$": "${$}"})

ALL_OF_IT = "ListAll"
"""Name of the statement that only a role with the whole bucket has."""

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
        beside: Names of the functions of other sizes that stand beside it.
        whole_bucket: Let the worker write and list all of the bucket, which ought to be the project's own then. There
            are reports that Lambda takes a bucket for its records of failures from nobody who may do less.
        in_vpc: Whether the functions are in a VPC, to which Lambda connects them with their role.
    """

    function: str
    bucket: str
    prefix: str
    region: str
    account: str = "*"
    partition: str = "aws"
    beside: tuple[str, ...] = ()
    whole_bucket: bool = False
    in_vpc: bool = False

    @property
    def bucket_arn(self) -> str:
        """ARN of the bucket."""
        return f"arn:{self.partition}:s3:::{self.bucket}"

    @property
    def functions(self) -> list[str]:
        """Names of the functions."""
        return [self.function, *self.beside]

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
    def place(self) -> str:
        """Where in S3 they may do something, for people."""
        return f"s3://{self.bucket}" + ("" if self.whole_bucket else f"/{self.prefix}".rstrip("/"))

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
    return document(
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
    return document(
        allow("ReadBlobsAndOutcomes", ["s3:GetObject"], scope.objects(scope.blobs, scope.jobs)),
        allow("ReadPackages", ["s3:GetObject"], scope.objects(scope.packages)),
        allow("WriteOutcomes", ["s3:PutObject", "s3:AbortMultipartUpload"], scope.objects(scope.jobs)),
        allow("RecordFailures", ["s3:PutObject"], scope.objects(*(["*"] if scope.whole_bucket else scope.failures))),
        allow(ALL_OF_IT, ["s3:ListBucket"], [scope.bucket_arn]) if scope.whole_bucket else _listing(scope),
        allow(
            "WriteItsLog",
            ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"],
            # The star stands for the streams, and has to be there for the group too (CloudWatch Logs User Guide,
            # "CloudWatch Logs resources and operations").
            [f"{arn}:*" for arn in scope.log_group_arns],
        ),
        *(_network(scope) if scope.in_vpc else ()),
    )


def client_policy(scope: Scope) -> Document:
    """What somebody needs who only runs calls: to be given to users and roles, by hand.

    With it comes all that the worker may do, since a call is any code.

    Args:
        scope: The function and its place in S3.
    """
    return document(
        allow("RunCalls", ["lambda:InvokeFunction", "lambda:GetFunctionConfiguration"], scope.function_arns),
        allow("ReadOutcomes", ["s3:GetObject"], scope.objects(scope.blobs, scope.jobs, *scope.failures)),
        allow("WriteBlobs", ["s3:PutObject", "s3:AbortMultipartUpload"], scope.objects(scope.blobs)),
        # Intermediate values of dask graphs, which go when nobody needs them any more.
        allow("DeleteIntermediates", ["s3:DeleteObject"], scope.objects(f"{scope.jobs}/data/*")),
        # A job's record, and the list of its calls that were given up.
        allow("LeaveWord", ["s3:PutObject"], scope.objects(f"{scope.jobs}/job.json", f"{scope.jobs}/stop")),
        _listing(scope),
        # What calls print: `wren logs`, `echo_output`.
        allow(
            "ReadTheLog",
            ["logs:FilterLogEvents", "logs:DescribeLogStreams"],
            [f"{arn}:*" for arn in scope.log_group_arns],
        ),
    )


def _listing(scope: Scope) -> Document:
    condition = {"StringLike": {"s3:prefix": [scope.blobs, scope.jobs, *scope.failures]}}
    return allow("ListThem", ["s3:ListBucket"], [scope.bucket_arn]) | {"Condition": condition}


def _network(scope: Scope) -> tuple[Document, Document]:
    """What Lambda needs to put functions into a VPC, kept from what runs in them.

    AWS Lambda Developer Guide, "Giving Lambda functions access to resources in an Amazon VPC", required permissions and
    the policy that denies them to the function's code.
    """
    actions = [
        "ec2:CreateNetworkInterface",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSubnets",
        "ec2:DeleteNetworkInterface",
        "ec2:AssignPrivateIpAddresses",
        "ec2:UnassignPrivateIpAddresses",
    ]
    kept_from = {"ArnLike": {"lambda:SourceFunctionArn": scope.function_arns}}
    denied = {"Sid": "NotForCalls", "Effect": "Deny", "Action": actions, "Resource": ["*"], "Condition": kept_from}
    return allow("ConnectToTheNetwork", actions, ["*"]), denied


def allow(sid: str, actions: list[str], resources: list[str]) -> Document:
    """A statement that grants rights."""
    return {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources}


def document(*statements: Document) -> Document:
    """A policy document."""
    return {"Version": _VERSION, "Statement": list(statements)}
