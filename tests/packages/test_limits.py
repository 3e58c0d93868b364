"""What the local cloud's Lambda says to packages that AWS would not take."""

import io
import zipfile

import pytest
from botocore.exceptions import ClientError

from wren_backends.deploy.target import Target

from .conftest import ROLE

LIMIT = 262_144_000


@pytest.fixture(scope="module")
def of_size():
    """Zips that unpack to a size; most of it costs nothing to pack."""

    def make(name, size):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bundle:
            bundle.writestr(name, bytes(size))
        return packed.getvalue()

    return make


def test_a_layer_that_is_too_large_is_refused(lambda_client, of_size):
    with pytest.raises(
        ClientError, match=rf"^An error occurred \(InvalidParameterValue.*must be smaller than {LIMIT} "
    ):
        lambda_client.publish_layer_version(LayerName="big", Content={"ZipFile": of_size("python/x", LIMIT + 1)})


def test_a_function_that_is_too_large_with_its_layers_is_refused(lambda_client, of_size):
    half = lambda_client.publish_layer_version(LayerName="half", Content={"ZipFile": of_size("python/x", LIMIT // 2)})
    described = {
        "FunctionName": "large",
        "Runtime": Target.here().runtime,
        "Role": ROLE,
        "Handler": "app.handler",
        "Layers": [half["LayerVersionArn"]],
    }
    words = f"Function code combined with layers exceeds the maximum allowed size of {LIMIT} bytes. The actual size is "
    with pytest.raises(ClientError, match=f"{words}{LIMIT + 1} bytes"):
        lambda_client.create_function(Code={"ZipFile": of_size("app.py", LIMIT // 2 + 1)}, **described)
    lambda_client.create_function(Code={"ZipFile": of_size("app.py", LIMIT // 2)}, **described)
    second = lambda_client.publish_layer_version(LayerName="half", Content={"ZipFile": of_size("python/y", 1)})
    with pytest.raises(ClientError, match=f"{words}{LIMIT + 1} bytes"):
        lambda_client.update_function_configuration(
            FunctionName="large", Layers=[half["LayerVersionArn"], second["LayerVersionArn"]]
        )
    lambda_client.delete_function(FunctionName="large")
