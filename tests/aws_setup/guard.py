"""A way to the local cloud that counts what is asked for, and grants what a policy grants, as IAM would.

Which action a request is, is taken from botocore's descriptions of the services, and for S3 from the Service
Authorization Reference; what it is about, from the request itself.
"""

import json
import re
from dataclasses import dataclass, field, replace
from fnmatch import translate
from functools import cache
from urllib.parse import parse_qs, parse_qsl, unquote
from xml.etree import ElementTree

import botocore.session
from faults.proxy import Answer, Proxy

ACCOUNT, REGION = "123456789012", "us-east-1"

_BUCKET_ACTIONS = {
    ("HEAD", ""): "ListBucket",
    ("PUT", ""): "CreateBucket",
    ("DELETE", ""): "DeleteBucket",
    ("GET", "list-type"): "ListBucket",
    ("GET", "versions"): "ListBucketVersions",
    ("GET", "tagging"): "GetBucketTagging",
    ("PUT", "tagging"): "PutBucketTagging",
    ("GET", "publicAccessBlock"): "GetBucketPublicAccessBlock",
    ("PUT", "publicAccessBlock"): "PutBucketPublicAccessBlock",
    ("GET", "policyStatus"): "GetBucketPolicyStatus",
    ("GET", "lifecycle"): "GetLifecycleConfiguration",
    ("PUT", "lifecycle"): "PutLifecycleConfiguration",
    ("DELETE", "lifecycle"): "PutLifecycleConfiguration",
}
_OBJECT_ACTIONS = {"GET": "GetObject", "HEAD": "GetObject", "PUT": "PutObject", "POST": "PutObject"}
_READS = ("Get", "List", "Describe", "Invoke")


@dataclass(frozen=True)
class Asked:
    """One right that a request takes."""

    action: str
    resource: str
    context: dict = field(default_factory=dict, hash=False)

    @property
    def changes(self):
        return not self.action.partition(":")[2].startswith(_READS)


class Guard:
    """The way itself.

    Attributes:
        url: What clients talk to.
        asked: What they have asked for.
        policy: Statements that have to grant it; None: everything is granted.
        foreign: Buckets that are somebody else's, and open to everybody.
        changes_left: How many changes are let through; None: all.
        unheard: Whether the change after the last one is made, though it is answered with an error of the service's.
    """

    def __init__(self, upstream):
        self._proxy = Proxy(upstream)
        self.url = self._proxy.url
        self.reset()

    def reset(self):
        self.asked, self.policy, self.foreign, self.changes_left, self.unheard = [], None, set(), None, False
        self._proxy.clear()
        self._proxy.add(self._refuse, self._is_refused, times=None)

    def refuse(self, match, answer, times):
        """Have some requests answered otherwise."""
        self._proxy.clear()

        async def fault(exchange):
            await exchange.answer(answer)

        self._proxy.add(fault, match, times=times)
        self._proxy.add(self._refuse, self._is_refused, times=None)

    def close(self):
        self._proxy.close()

    @property
    def changes(self):
        return [one.action for one in self.asked if one.changes]

    def _is_refused(self, request):
        rights = rights_of(request)
        self.asked += rights
        if _bucket_of(request) in self.foreign and request.headers.get("x-amz-expected-bucket-owner"):
            return True
        if any(one.changes for one in rights) and self.changes_left is not None:
            self.changes_left -= 1
            if self.changes_left < 0:
                return True
        return self.policy is not None and not all(granted(self.policy, one) for one in rights)

    async def _refuse(self, exchange):
        if self.unheard:
            await exchange.forward()
        rights = rights_of(exchange.request)
        denial = _denial(exchange.request, rights[0].action if rights else "?")
        await exchange.answer(replace(denial, status=500) if self.unheard else denial)


def granted(statements, asked):
    """Whether statements of policies grant a right, as IAM evaluates them."""
    matching = [one for one in statements if _matches(one, asked)]
    return any(one["Effect"] == "Allow" for one in matching) and all(one["Effect"] == "Allow" for one in matching)


def _matches(statement, asked):
    fits = any(_like(one, asked.action) for one in statement["Action"])
    fits = fits and any(_like(one, asked.resource) for one in statement["Resource"])
    for operator, keys in statement.get("Condition", {}).items():
        assert operator in ("StringEquals", "StringLike", "ArnLike")
        for key, values in keys.items():
            listed = [values] if isinstance(values, str) else values
            fits = fits and any(_like(value, asked.context.get(key, "")) for value in listed)
    return fits


def _like(pattern, value):
    return re.match(translate(pattern.replace("[", "[[]")), value) is not None


def rights_of(request):
    """What rights a request takes."""
    scope = re.search(r"Credential=[^/]+/\d+/[\w-]+/(\w+)/", request.headers.get("authorization", ""))
    return _RIGHTS[scope[1]](request) if scope else []


def _of_sts(_):
    return []  # anybody may ask who they are


def _of_iam(request):
    asked = dict(parse_qsl(request.body.decode()))
    resource = f"arn:aws:iam::{ACCOUNT}:role/{asked['RoleName']}"
    more = ["iam:TagRole"] if asked["Action"] == "CreateRole" and "Tags.member.1.Key" in asked else []
    return [Asked(action, resource) for action in (f"iam:{asked['Action']}", *more)]


def _of_logs(request):
    operation = request.headers["x-amz-target"].partition(".")[2]
    asked = json.loads(request.body)
    if operation == "DescribeLogGroups":
        return [Asked("logs:DescribeLogGroups", f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group::log-stream:")]
    arn = asked.get("resourceArn") or f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{asked['logGroupName']}"
    more = ["TagResource"] if operation == "CreateLogGroup" and asked.get("tags") else []
    return [Asked(f"logs:{one}", arn) for one in (operation, *more)]


@cache
def _lambda_operations():
    model = botocore.session.Session().get_service_model("lambda")
    found = []
    for name in model.operation_names:
        http = model.operation_model(name).http
        pattern = re.sub(r"\{(\w+)\+?\}", r"(?P<\1>[^/]+)", http["requestUri"].partition("?")[0].rstrip("/"))
        found.append((http["method"], re.compile(pattern), name))
    return found


def _of_lambda(request):
    path = request.target.partition("?")[0].rstrip("/")
    operation, names = next(
        (name, match.groupdict())
        for method, pattern, name in _lambda_operations()
        if method == request.method and (match := pattern.fullmatch(path))
    )
    asked = json.loads(request.body) if request.body and operation != "Invoke" else {}
    action = "lambda:InvokeFunction" if operation == "Invoke" else f"lambda:{operation}"
    place = f"arn:aws:lambda:{REGION}:{ACCOUNT}"
    function = unquote(names.get("FunctionName") or asked.get("FunctionName") or "")
    if "LayerName" in names:
        number = f":{names['VersionNumber']}" if "VersionNumber" in names else ""
        resource = f"{place}:layer:{unquote(names['LayerName'])}{number}"
    elif names.get("Resource") or names.get("ARN"):
        resource = unquote(names.get("Resource") or names["ARN"])
    else:
        resource = f"{place}:function:{function}" if function else "*"
    rights = [Asked(action, resource)]
    if asked.get("Role"):
        rights.append(Asked("iam:PassRole", asked["Role"], {"iam:PassedToService": "lambda.amazonaws.com"}))
    rights += [Asked("lambda:GetLayerVersion", layer) for layer in asked.get("Layers") or ()]
    if operation == "GetFunction":
        rights.append(Asked("lambda:ListTags", resource))  # without it no tags are shown
    if operation == "CreateFunction" and asked.get("Tags"):
        rights.append(Asked("lambda:TagResource", resource))
    if (asked.get("VpcConfig") or {}).get("SubnetIds"):
        rights += [Asked(f"ec2:Describe{one}", "*") for one in ("SecurityGroups", "Subnets", "Vpcs")]
    return rights


def _bucket_of(request):
    on_s3 = "/s3/aws4_request" in request.headers.get("authorization", "")
    return request.path.strip("/").partition("/")[0] if on_s3 else None


def _of_s3(request):
    path, _, query = request.target.partition("?")
    bucket, _, key = unquote(path).lstrip("/").partition("/")
    if not bucket:
        return [Asked("s3:ListAllMyBuckets", "*")]
    arn, subresource = f"arn:aws:s3:::{bucket}", next(iter(parse_qs(query, keep_blank_values=True)), "")
    if request.method == "POST" and subresource == "delete":
        return [
            _deletion(arn, one) for one in ElementTree.fromstring(request.body).iter() if one.tag.endswith("Object")
        ]
    if key:
        return [Asked(f"s3:{_OBJECT_ACTIONS[request.method]}", f"{arn}/{key}")]
    words = parse_qs(query)
    subresource = next((one for one in ("list-type", "versions") if one in query), subresource)
    context = {"s3:prefix": words["prefix"][0]} if "prefix" in words else {}
    return [Asked(f"s3:{_BUCKET_ACTIONS[request.method, subresource]}", arn, context)]


def _deletion(arn, element):
    found = {one.tag.rpartition("}")[2]: one.text for one in element}
    return Asked("s3:DeleteObjectVersion" if "VersionId" in found else "s3:DeleteObject", f"{arn}/{found['Key']}")


_RIGHTS = {"sts": _of_sts, "iam": _of_iam, "logs": _of_logs, "lambda": _of_lambda, "s3": _of_s3}


def _denial(request, action):
    """AccessDenied in the words of the service."""
    text = f"User: arn:aws:iam::{ACCOUNT}:user/somebody is not authorized to perform: {action}"
    if action.startswith("s3:"):
        body = "" if request.method == "HEAD" else f"<Error><Code>AccessDenied</Code><Message>{text}</Message></Error>"
        return Answer(403, (("content-type", "application/xml"),), body.encode())
    if action.startswith("iam:"):
        error = f"<Error><Type>Sender</Type><Code>AccessDenied</Code><Message>{text}</Message></Error>"
        return Answer(403, (("content-type", "text/xml"),), f"<ErrorResponse>{error}</ErrorResponse>".encode())
    body = {"__type": "AccessDeniedException", "message": text, "Message": text}
    headers = (("content-type", "application/json"), ("x-amzn-errortype", "AccessDeniedException"))
    return Answer(403, headers, json.dumps(body).encode())
