"""What people need: to set everything up, to run calls, and to remove everything again; for an administrator to grant.

As in `policies.py` each right is there because a request of `wren setup` or `wren cleanup` needs it. The names of
actions are those of the Service Authorization Reference, which differ from the operations' for S3.
"""

from __future__ import annotations

from wren_backends.config import Config
from wren_backends.deploy.log_group import log_group_name
from wren_backends.deploy.packages_step import layer_name
from wren_backends.deploy.policies import Document, Scope, allow, client_policy, document, trust_policy, worker_policy
from wren_backends.deploy.session import partition_of


def all_policies(config: Config, role: str) -> dict[str, Document]:
    """Every policy, by whom it is for.

    Args:
        config: Settings; without a bucket they are for any that `wren setup` would name, and with one that it would
            not, clean-up may delete what is below our keys only.
        role: Name of the worker's role.
    """
    region = config.region or "*"
    scope = Scope(
        config.function,
        config.bucket or f"wren-*-{region}-*",
        config.prefix,
        region,
        partition=partition_of(config.region),
        beside=tuple(config.sizes_beside(config.memory_mb)),
        in_vpc=bool(config.subnets),
    )
    return {
        "setup": setup_policy(scope, role, config.layers),
        "client": client_policy(scope),
        "cleanup": cleanup_policy(scope, role, whole_bucket=not config.bucket or config.bucket.startswith("wren-")),
        "worker": worker_policy(scope),
        "trust": trust_policy(),
    }


def setup_policy(scope: Scope, role: str, layers: tuple[str, ...] = ()) -> Document:
    """What `wren setup` takes, and the single steps; its test call takes the client's policy beside it.

    Whoever has it may let the function do anything within the worker's policy, and change that policy: it is an
    administrator's right to that one role.

    Args:
        scope: The functions and their place in S3.
        role: Name of the worker's role.
        layers: ARNs of the layer versions that functions are given beside that of the packages.
    """
    role_arns = _role_arns(scope, role)
    return document(
        allow("FindBuckets", ["s3:ListAllMyBuckets"], ["*"]),
        allow(
            "MakeTheBucket",
            [
                "s3:CreateBucket",
                "s3:ListBucket",
                "s3:GetBucketTagging",
                "s3:PutBucketTagging",
                "s3:GetBucketPublicAccessBlock",
                "s3:PutBucketPublicAccessBlock",
                "s3:GetBucketPolicyStatus",
                "s3:GetLifecycleConfiguration",
                "s3:PutLifecycleConfiguration",
            ],
            [scope.bucket_arn],
        ),
        # A layer above 50 MB lies among the blobs while Lambda copies it.
        allow(
            "UploadPackages",
            ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"],
            scope.objects(scope.packages, scope.blobs),
        ),
        allow(
            "MakeTheRole",
            [
                "iam:GetRole",
                "iam:CreateRole",
                "iam:TagRole",
                "iam:UpdateAssumeRolePolicy",
                "iam:GetRolePolicy",
                "iam:PutRolePolicy",
                "iam:ListRolePolicies",
                "iam:ListAttachedRolePolicies",
            ],
            role_arns,
        ),
        allow("GiveItToLambda", ["iam:PassRole"], role_arns)
        | {"Condition": {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}},
        allow("FindFunctions", ["lambda:ListFunctions"], ["*"]),
        allow(
            "MakeTheFunction",
            [
                "lambda:GetFunction",
                "lambda:GetFunctionConfiguration",
                "lambda:GetFunctionEventInvokeConfig",
                "lambda:ListTags",
                "lambda:CreateFunction",
                "lambda:TagResource",
                "lambda:UpdateFunctionCode",
                "lambda:UpdateFunctionConfiguration",
                "lambda:PutFunctionEventInvokeConfig",
                "lambda:PutFunctionConcurrency",
            ],
            scope.function_arns,
        ),
        allow("FindLayers", ["lambda:ListLayerVersions", "lambda:PublishLayerVersion"], _layer_arns(scope)),
        allow("UseLayers", ["lambda:GetLayerVersion"], [*(f"{arn}:*" for arn in _layer_arns(scope)), *layers]),
        allow("FindLogGroups", ["logs:DescribeLogGroups"], ["*"]),
        allow(
            "MakeLogGroups",
            ["logs:CreateLogGroup", "logs:PutRetentionPolicy", "logs:TagResource", "logs:ListTagsForResource"],
            _log_groups(scope),
        ),
        *(
            [allow("CheckTheNetwork", ["ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcs"], ["*"])]
            if scope.in_vpc
            else []
        ),
    )


def cleanup_policy(scope: Scope, role: str, *, whole_bucket: bool = True) -> Document:
    """What `wren cleanup` takes, and `delete_lambda` and `delete_role`.

    Args:
        scope: The functions and their place in S3.
        role: Name of the worker's role.
        whole_bucket: Whether the bucket is wren's own, and may go with all that lies in it.
    """
    role_arns = _role_arns(scope, role)
    deletable = ["*"] if whole_bucket else [scope.packages, scope.blobs, scope.jobs, *scope.failures]
    return document(
        allow("FindBuckets", ["s3:ListAllMyBuckets"], ["*"]),
        allow(
            "EmptyAndDeleteTheBucket" if whole_bucket else "LookAtTheBucket",
            [
                "s3:ListBucket",
                "s3:ListBucketVersions",
                "s3:GetBucketTagging",
                "s3:GetBucketPublicAccessBlock",
                "s3:GetBucketPolicyStatus",
                "s3:GetLifecycleConfiguration",
                "s3:PutLifecycleConfiguration",
                *(["s3:DeleteBucket"] if whole_bucket else []),
            ],
            [scope.bucket_arn],
        ),
        allow("DeleteObjects", ["s3:DeleteObject", "s3:DeleteObjectVersion"], scope.objects(*deletable)),
        allow(
            "DeleteTheRole",
            [
                "iam:GetRole",
                "iam:GetRolePolicy",
                "iam:ListRolePolicies",
                "iam:ListAttachedRolePolicies",
                "iam:DeleteRolePolicy",
                "iam:DeleteRole",
            ],
            role_arns,
        ),
        allow("FindFunctions", ["lambda:ListFunctions"], ["*"]),
        allow(
            "DeleteTheFunction",
            ["lambda:GetFunction", "lambda:GetFunctionEventInvokeConfig", "lambda:ListTags", "lambda:DeleteFunction"],
            scope.function_arns,
        ),
        allow("FindLayers", ["lambda:ListLayerVersions"], _layer_arns(scope)),
        allow("DeleteLayers", ["lambda:DeleteLayerVersion"], [f"{arn}:*" for arn in _layer_arns(scope)]),
        allow("FindLogGroups", ["logs:DescribeLogGroups"], ["*"]),
        allow("DeleteLogGroups", ["logs:ListTagsForResource", "logs:DeleteLogGroup"], _log_groups(scope)),
    )


def _role_arns(scope: Scope, role: str) -> list[str]:
    """The role of that name, with a path or without: an account has one (IAM User Guide, "IAM identifiers")."""
    place = f"arn:{scope.partition}:iam::{scope.account}:role"
    return [f"{place}/{role}", f"{place}/*/{role}"]


def _layer_arns(scope: Scope) -> list[str]:
    name = layer_name(scope.function)
    return [f"arn:{scope.partition}:lambda:{scope.region}:{scope.account}:layer:{name}"]


def _log_groups(scope: Scope) -> list[str]:
    """With and without a star: which of the two an action wants differs, and some want both."""
    place = f"arn:{scope.partition}:logs:{scope.region}:{scope.account}:log-group"
    groups = [f"{place}:{log_group_name(one)}" for one in scope.functions]
    return [one for group in groups for one in (group, f"{group}:*")]
