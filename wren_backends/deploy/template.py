"""A CloudFormation template of what `wren setup` makes, for teams in which not every laptop may make roles.

Policies, settings and retention are those of the modules beside this one, with CloudFormation's substitutions where
account, region and names belong. The function's secret is made by Secrets Manager in the stack and reaches the function
by a dynamic reference: it stands in no template, no parameter and no event of the stack. A parameter with `NoEcho` was
the alternative: somebody would have to think of it, keep it, and type it again at each update.
"""

from __future__ import annotations

from typing import Any

from lambda_worker.protocol import FUNCTION_KEY_VARIABLE, python_version
from wren_backends.config import DEFAULT_MEMORY_MB, DEFAULT_TIMEOUT_S, Config
from wren_backends.deploy import bucket
from wren_backends.deploy.function import EVENT_AGE_S, FoundFunction
from wren_backends.deploy.log_group import RETENTION_DAYS, log_group_name
from wren_backends.deploy.package import HANDLER
from wren_backends.deploy.policies import Document, Scope, client_policy, trust_policy, worker_policy
from wren_backends.deploy.role import POLICY_NAME
from wren_backends.deploy.setup import tags_of, target_of

_NOT_HEXADECIMAL = "ghijklmnopqrstuvwxyzGHIJKLMNOPQRSTUVWXYZ"

Template = dict[str, Any]


def template_of(config: Config) -> Template:
    """The template, ready for `json.dumps`.

    Args:
        config: Settings; function, bucket, memory and time limit are defaults of parameters, all else stands in it.

    Raises:
        DeploymentError: Lambda has no processor like this machine's, and the settings do not say which it is to be.
    """
    sizes = config.sizes_beside(config.memory_mb or DEFAULT_MEMORY_MB)
    names = {
        "": "${FunctionName}",
        **{f"{memory_mb}mb": f"${{FunctionName}}-{memory_mb}mb" for memory_mb in sizes.values()},
    }
    memory: dict[str, Any] = {"": {"Ref": "MemorySize"}, **{f"{one}mb": one for one in sizes.values()}}
    scope = Scope(
        names[""],
        "${Bucket}",
        config.prefix,
        "${AWS::Region}",
        "${AWS::AccountId}",
        "${AWS::Partition}",
        beside=tuple(list(names.values())[1:]),
        in_vpc=bool(config.subnets),
    )
    resources: Template = {
        "Bucket": _bucket(config, list(names.values())),
        "Role": _role(config, scope),
        "ClientPolicy": {
            "Type": "AWS::IAM::ManagedPolicy",
            "Properties": {
                "Description": "What those need who run calls with wren-backends",
                "PolicyDocument": _substituted(client_policy(scope)),
            },
        },
    }
    for size, name in names.items():
        resources |= _function(config, size, name, memory[size])
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "What wren-backends needs to run Python calls on Lambda: bucket, role, function, log group",
        "Parameters": _parameters(config),
        "Conditions": {"BucketIsNamed": {"Fn::Not": [{"Fn::Equals": [{"Ref": "BucketName"}, ""]}]}},
        "Resources": resources,
        "Outputs": {
            "Bucket": {"Description": "For WREN_BUCKET", "Value": {"Ref": "Bucket"}},
            "Function": {"Description": "For WREN_FUNCTION", "Value": {"Ref": "Function"}},
            "Role": {"Description": "What the function runs as", "Value": {"Fn::GetAtt": ["Role", "Arn"]}},
            "ClientPolicy": {"Description": "For those who run calls", "Value": {"Ref": "ClientPolicy"}},
        },
    }


def _parameters(config: Config) -> Template:
    return {
        "FunctionName": {
            "Type": "String",
            "Default": config.function,
            "AllowedPattern": "[A-Za-z0-9_-]{1,64}",
            "Description": "Name of the function (WREN_FUNCTION)",
        },
        "BucketName": {
            "Type": "String",
            "Default": config.bucket or "",
            "Description": "Name of the bucket that is made (WREN_BUCKET); empty: CloudFormation finds one",
        },
        "CodeBucket": {"Type": "String", "Description": "Bucket with the function's zip, in the stack's region"},
        "CodeKey": {"Type": "String", "Description": "Key of the zip that `wren setup --code FILE` writes"},
        "MemorySize": {
            "Type": "Number",
            "Default": config.memory_mb or DEFAULT_MEMORY_MB,
            "MinValue": 128,
            "MaxValue": 10240,
            "Description": "Memory of the function in MB; 1769 is one vCPU",
        },
        "Timeout": {
            "Type": "Number",
            "Default": config.timeout_s or DEFAULT_TIMEOUT_S,
            "MinValue": 1,
            "MaxValue": 900,
            "Description": "Time limit of the function in seconds",
        },
    }


def _bucket(config: Config, names: list[str]) -> Template:
    rules = [
        {
            "Id": {"Fn::Sub": rule["ID"]},
            "Status": "Enabled",
            "Prefix": {"Fn::Sub": rule["Filter"]["Prefix"]},
            "ExpirationInDays": rule["Expiration"]["Days"],
            "NoncurrentVersionExpiration": rule["NoncurrentVersionExpiration"],
            "AbortIncompleteMultipartUpload": rule["AbortIncompleteMultipartUpload"],
        }
        for rule in bucket.rules(config.prefix, names)
    ]
    return {
        "Type": "AWS::S3::Bucket",
        "DeletionPolicy": "Retain",  # results are not to go with a stack
        "UpdateReplacePolicy": "Retain",
        "Properties": {
            "BucketName": {"Fn::If": ["BucketIsNamed", {"Ref": "BucketName"}, {"Ref": "AWS::NoValue"}]},
            "PublicAccessBlockConfiguration": dict(bucket.BLOCKS),
            "LifecycleConfiguration": {"Rules": [_without_empty_substitutions(rule) for rule in rules]},
            **_tags(config),
        },
    }


def _role(config: Config, scope: Scope) -> Template:
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": trust_policy(),
            "Description": "What the functions of wren-backends may do",
            "Policies": [{"PolicyName": POLICY_NAME, "PolicyDocument": _substituted(worker_policy(scope))}],
            **_tags(config),
        },
    }


def _function(config: Config, size: str, name: str, memory_mb: Any) -> Template:
    """A function with its secret, log group and what becomes of its failures; `size` ends the resources' names."""
    secret, group, function = f"Secret{size}", f"LogGroup{size}", f"Function{size}"
    key = f"{{{{resolve:secretsmanager:${{{secret}}}:SecretString}}}}"
    properties: Template = {
        "FunctionName": _sub(name),
        "Runtime": "python{}.{}".format(*python_version()),
        "Handler": HANDLER,
        "Code": {"S3Bucket": {"Ref": "CodeBucket"}, "S3Key": {"Ref": "CodeKey"}},
        "Role": {"Fn::GetAtt": ["Role", "Arn"]},
        "MemorySize": memory_mb,
        "Timeout": {"Ref": "Timeout"},
        "Architectures": [target_of(config, FoundFunction()).architecture],
        "Environment": {"Variables": {FUNCTION_KEY_VARIABLE: {"Fn::Sub": key}}},
        **_tags(config),
    }
    if config.ephemeral_mb:
        properties["EphemeralStorage"] = {"Size": config.ephemeral_mb}
    if config.layers:
        properties["Layers"] = list(config.layers)
    if config.reserved_concurrency is not None:
        properties["ReservedConcurrentExecutions"] = config.reserved_concurrency
    if config.subnets:
        properties["VpcConfig"] = {
            "SubnetIds": list(config.subnets),
            "SecurityGroupIds": list(config.security_groups),
        }
    return {
        secret: {
            "Type": "AWS::SecretsManager::Secret",
            "DeletionPolicy": "Delete",
            "UpdateReplacePolicy": "Delete",
            "Properties": {
                "Description": {"Fn::Sub": f"Seals the outcomes of the calls of {name}"},
                "GenerateSecretString": {
                    "PasswordLength": 64,
                    "ExcludeCharacters": _NOT_HEXADECIMAL,
                    "ExcludePunctuation": True,
                    "RequireEachIncludedType": False,
                },
                **_tags(config),
            },
        },
        group: {
            "Type": "AWS::Logs::LogGroup",
            "DeletionPolicy": "Delete",
            "UpdateReplacePolicy": "Delete",
            "Properties": {"LogGroupName": {"Fn::Sub": log_group_name(name)}, "RetentionInDays": RETENTION_DAYS},
        },
        function: {"Type": "AWS::Lambda::Function", "DependsOn": [group], "Properties": properties},
        f"Events{size}": {
            "Type": "AWS::Lambda::EventInvokeConfig",
            "Properties": {
                "FunctionName": {"Ref": function},
                "Qualifier": "$LATEST",
                "MaximumRetryAttempts": 0,
                "MaximumEventAgeInSeconds": EVENT_AGE_S,
                "DestinationConfig": {"OnFailure": {"Destination": {"Fn::GetAtt": ["Bucket", "Arn"]}}},
            },
        },
    }


def _sub(text: str) -> Template:
    return {"Ref": "FunctionName"} if text == "${FunctionName}" else {"Fn::Sub": text}


def _tags(config: Config) -> Template:
    tags = [{"Key": key, "Value": value} for key, value in tags_of(config).items()]
    return {"Tags": tags} if tags else {}


def _substituted(policy: Document) -> Any:
    """A policy with its placeholders marked for CloudFormation."""
    if isinstance(policy, dict):
        return {name: _substituted(value) for name, value in policy.items()}
    if isinstance(policy, list):
        return [_substituted(value) for value in policy]
    # What IAM would substitute itself is no part of a valid prefix.
    return {"Fn::Sub": policy} if isinstance(policy, str) and "${" in policy else policy


def _without_empty_substitutions(rule: Template) -> Template:
    """A rule in which text without a placeholder is plain."""
    return {
        name: value["Fn::Sub"] if isinstance(value, dict) and "${" not in value.get("Fn::Sub", "${") else value
        for name, value in rule.items()
    }
