"""The control plane, as a foreign boto3 client meets it."""

import base64
import hashlib
import urllib.request

import pytest
from botocore.exceptions import ClientError

from wren_backends.local.configuration import host_architecture
from wren_backends.local.options import ACCOUNT_ID

from .helpers import ROLE, RUNTIME, zipped

HANDLER = "def handler(event, context):\n    return {0!r}\n"


def test_a_function_s_life(function, lambda_client, invoke):
    name = function(HANDLER.format("one"), Timeout=5, MemorySize=256, Tags={"a": "b"})
    lambda_client.get_waiter("function_active_v2").wait(FunctionName=name)
    shown = lambda_client.get_function(FunctionName=name)
    configuration = shown["Configuration"]
    assert configuration["State"] == "Active"
    assert (configuration["Timeout"], configuration["MemorySize"]) == (5, 256)
    assert configuration["EphemeralStorage"] == {"Size": 512}
    assert shown["Tags"] == {"a": "b"}
    assert invoke(name).value == "one"

    code = zipped({"app.py": HANDLER.format("two")})
    updated = lambda_client.update_function_code(FunctionName=name, ZipFile=code)
    lambda_client.get_waiter("function_updated_v2").wait(FunctionName=name)
    assert updated["CodeSha256"] == base64.b64encode(hashlib.sha256(code).digest()).decode()
    assert updated["RevisionId"] != configuration["RevisionId"]
    assert invoke(name).value == "two"
    with urllib.request.urlopen(lambda_client.get_function(FunctionName=name)["Code"]["Location"]) as answer:
        assert answer.read() == code

    lambda_client.update_function_configuration(FunctionName=name, Timeout=9, Environment={"Variables": {"K": "v"}})
    again = lambda_client.get_function_configuration(FunctionName=configuration["FunctionArn"])
    assert (again["Timeout"], again["Environment"]["Variables"]) == (9, {"K": "v"})
    assert name in [one["FunctionName"] for one in _all_functions(lambda_client)]


def _all_functions(lambda_client):
    pages = lambda_client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2})
    return [one for page in pages for one in page["Functions"]]


def test_code_may_lie_in_s3(s3, function, lambda_client, invoke):
    s3.create_bucket(Bucket="code-bucket")
    s3.put_object(Bucket="code-bucket", Key="folder/code.zip", Body=zipped({"app.py": HANDLER.format("from S3")}))
    name = function(HANDLER.format("zip"))
    lambda_client.update_function_code(FunctionName=name, S3Bucket="code-bucket", S3Key="folder/code.zip")
    assert invoke(name).value == "from S3"
    with pytest.raises(ClientError, match="S3 Error Code: NoSuchKey"):
        lambda_client.update_function_code(FunctionName=name, S3Bucket="code-bucket", S3Key="nothing")


def test_versions_keep_what_was_published(function, lambda_client, invoke):
    name = function(HANDLER.format("one"))
    assert lambda_client.publish_version(FunctionName=name)["Version"] == "1"
    assert lambda_client.publish_version(FunctionName=name)["Version"] == "1"  # nothing has changed
    lambda_client.update_function_code(FunctionName=name, ZipFile=zipped({"app.py": HANDLER.format("two")}))
    assert lambda_client.publish_version(FunctionName=name)["Version"] == "2"
    assert [invoke(name, Qualifier=q).value for q in ("1", "2", "$LATEST")] == ["one", "two", "two"]
    assert invoke(f"{name}:1").raw["ExecutedVersion"] == "1"
    listed = lambda_client.list_versions_by_function(FunctionName=name)["Versions"]
    assert [one["Version"] for one in listed] == ["$LATEST", "1", "2"]
    lambda_client.delete_function(FunctionName=name, Qualifier="1")
    with pytest.raises(ClientError, match="Function not found"):
        invoke(name, Qualifier="1")


def test_snap_start_runs_its_hooks(function, lambda_client, invoke):
    name = function(
        """
        import snapshot_restore_py

        seen = []
        snapshot_restore_py.register_before_snapshot(seen.append, "before")
        snapshot_restore_py.register_after_restore(seen.append, "after")

        def handler(event, context):
            return seen
        """,
        SnapStart={"ApplyOn": "PublishedVersions"},
    )
    published = lambda_client.publish_version(FunctionName=name)
    assert published["SnapStart"] == {"ApplyOn": "PublishedVersions", "OptimizationStatus": "On"}
    assert invoke(name, Qualifier="1").value == ["before", "after"]
    assert invoke(name).value == []


def test_layers_are_found_and_may_hold_symbolic_links(tmp_path, function, lambda_client, invoke):
    (tmp_path / "linked_module.py").write_text("VALUE = 'linked'\n")
    plain = zipped({"python/plain_module.py": "VALUE = 'plain'\n", "python/shared.py": "VALUE = 1\n"})
    site = f"python/lib/{RUNTIME}/site-packages"
    linked = zipped({"python/shared.py": "VALUE = 2\n"}, links={site: str(tmp_path)})
    arns = []
    for number, content in enumerate((plain, linked)):
        published = lambda_client.publish_layer_version(
            LayerName=f"layer-{number}", Content={"ZipFile": content}, CompatibleRuntimes=[RUNTIME]
        )
        arns.append(published["LayerVersionArn"])
    name = function(
        """
        import linked_module, plain_module, shared

        def handler(event, context):
            return [linked_module.VALUE, plain_module.VALUE, shared.VALUE]
        """,
        Layers=arns,
    )
    assert invoke(name).value == ["linked", "plain", 2]
    shown = lambda_client.get_function_configuration(FunctionName=name)["Layers"]
    assert [one["Arn"] for one in shown] == arns
    assert lambda_client.get_layer_version(LayerName="layer-0", VersionNumber=1)["Version"] == 1
    assert lambda_client.get_layer_version_by_arn(Arn=arns[1])["LayerVersionArn"] == arns[1]
    assert {one["LayerName"] for one in lambda_client.list_layers()["Layers"]} >= {"layer-0", "layer-1"}
    assert len(lambda_client.list_layer_versions(LayerName="layer-0")["LayerVersions"]) == 1
    lambda_client.delete_layer_version(LayerName="layer-0", VersionNumber=1)
    with pytest.raises(ClientError) as caught:
        lambda_client.get_layer_version(LayerName="layer-0", VersionNumber=1)
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"


def test_a_zip_cannot_write_outside_or_through_a_link(tmp_path, function, lambda_client, invoke):
    evil = zipped({"app.py": HANDLER.format("x")}, links={"door": str(tmp_path)})
    through = zipped({"app.py": HANDLER.format("x"), "door/escaped.txt": "!"})
    first = lambda_client.publish_layer_version(LayerName="evil", Content={"ZipFile": evil})["LayerVersionArn"]
    second = lambda_client.publish_layer_version(LayerName="evil", Content={"ZipFile": through})["LayerVersionArn"]
    name = function(HANDLER.format("x"), Layers=[first, second])
    assert "symbolic link" in invoke(name).value["errorMessage"]
    outside = function(HANDLER.format("x"), files={"../escaped.txt": "!"})
    assert "leads out" in invoke(outside).value["errorMessage"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"MemorySize": 10241}, "ValidationException"),
        ({"Timeout": 901}, "ValidationException"),
        ({"Role": "nobody"}, "ValidationException"),
        ({"Runtime": "nodejs22.x"}, "InvalidParameterValueException"),
        ({"Environment": {"Variables": {"AWS_REGION": "x"}}}, "InvalidParameterValueException"),
        ({"Environment": {"Variables": {"BIG": "x" * 4096}}}, "InvalidParameterValueException"),
        ({"VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": []}}, "InvalidParameterValueException"),
        ({"VpcConfig": {"SubnetIds": ["nonsense"], "SecurityGroupIds": ["sg-1"]}}, "ValidationException"),
        ({"Architectures": ["riscv"]}, "ValidationException"),
        ({"TracingConfig": {"Mode": "Active"}}, "InvalidParameterValueException"),
        ({"Layers": ["arn:aws:lambda:us-east-1:123456789012:layer:none:1"]}, "InvalidParameterValueException"),
        ({"Code": {"ZipFile": b"not a zip"}}, "InvalidParameterValueException"),
    ],
)
def test_what_cannot_be_honoured_is_refused(lambda_client, settings, code):
    arguments = {
        "Runtime": RUNTIME,
        "Role": ROLE,
        "Handler": "app.handler",
        "Code": {"ZipFile": zipped({"app.py": ""})},
    }
    with pytest.raises(ClientError) as caught:
        lambda_client.create_function(FunctionName="refused", **{**arguments, **settings})
    assert caught.value.response["Error"]["Code"] == code


def test_network_and_disk_are_kept_and_shown(function, lambda_client, invoke):
    network = {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    name = function(HANDLER.format("x"), VpcConfig=network, EphemeralStorage={"Size": 600})
    shown = lambda_client.get_function_configuration(FunctionName=name)
    assert {key: shown["VpcConfig"][key] for key in network} == network
    assert shown["EphemeralStorage"] == {"Size": 600}
    assert invoke(name).value == "x"
    lambda_client.update_function_configuration(FunctionName=name, VpcConfig={"SubnetIds": [], "SecurityGroupIds": []})
    assert "VpcConfig" not in lambda_client.get_function_configuration(FunctionName=name)


def test_a_function_for_another_architecture_is_kept_and_says_why_it_does_not_run(function, lambda_client, invoke):
    other = "x86_64" if host_architecture() == "arm64" else "arm64"
    name = function(HANDLER.format("x"), Architectures=[other])
    assert lambda_client.get_function_configuration(FunctionName=name)["Architectures"] == [other]
    assert f"a function for {other}" in invoke(name).value["errorMessage"]
    code = zipped({"app.py": HANDLER.format("y")})
    lambda_client.update_function_code(FunctionName=name, ZipFile=code, Architectures=[host_architecture()])
    assert invoke(name).value == "y"


def test_a_new_bucket_blocks_public_access_and_is_this_accounts(s3):
    s3.create_bucket(Bucket="block-bucket")
    everything = dict.fromkeys(
        ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
    )
    of_ours = {"Bucket": "block-bucket", "ExpectedBucketOwner": ACCOUNT_ID}
    assert s3.get_public_access_block(**of_ours)["PublicAccessBlockConfiguration"] == everything
    s3.delete_public_access_block(**of_ours)
    with pytest.raises(ClientError, match="NoSuchPublicAccessBlockConfiguration"):
        s3.get_public_access_block(**of_ours)
    some = {**everything, "BlockPublicAcls": False}
    s3.put_public_access_block(PublicAccessBlockConfiguration=some, **of_ours)
    assert s3.get_public_access_block(**of_ours)["PublicAccessBlockConfiguration"] == some
    for ask in (s3.head_bucket, s3.get_public_access_block, s3.list_objects_v2):
        with pytest.raises(ClientError, match=r"403|AccessDenied"):
            ask(Bucket="block-bucket", ExpectedBucketOwner="999999999999")


def test_conflicts_preconditions_tags_and_account(function, lambda_client):
    name = function(HANDLER.format("x"))
    with pytest.raises(ClientError) as caught:
        function(HANDLER.format("x"), name=name)
    assert caught.value.response["Error"]["Code"] == "ResourceConflictException"
    with pytest.raises(ClientError) as caught:
        lambda_client.update_function_configuration(FunctionName=name, Timeout=5, RevisionId="old")
    assert caught.value.response["Error"]["Code"] == "PreconditionFailedException"
    arn = lambda_client.get_function_configuration(FunctionName=name)["FunctionArn"]
    lambda_client.tag_resource(Resource=arn, Tags={"x": "1", "y": "2"})
    lambda_client.untag_resource(Resource=arn, TagKeys=["x"])
    assert lambda_client.list_tags(Resource=arn)["Tags"] == {"y": "2"}
    limits = lambda_client.get_account_settings()["AccountLimit"]
    assert limits["ConcurrentExecutions"] == 1000
