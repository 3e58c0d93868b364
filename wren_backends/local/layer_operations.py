"""Operations on layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .api_errors import constraint
from .routing import Answer, Json, page, route

if TYPE_CHECKING:
    from .lambda_api import LambdaApi


@route("GET", "/2018-10-31/layers")
async def _list_layers(api: LambdaApi, parameters: Json, _: Json) -> Answer:
    if parameters.get("find") == "LayerVersion":
        arn, number = str(parameters.get("Arn")).rpartition(":")[::2]
        version = api.layers.get(arn, _number(number))
        return 200, version.shown(api.location(version.package.file))
    shown = [
        {"LayerName": one.name, "LayerArn": one.layer_arn, "LatestMatchingVersion": one.summary()}
        for one in api.layers.newest()
        if parameters.get("CompatibleRuntime") in (None, *one.runtimes)
    ]
    return 200, page("Layers", shown, parameters)


@route("POST", "/2018-10-31/layers/{layer}/versions")
async def _publish_layer(api: LambdaApi, parameters: Json, body: Json) -> Answer:
    package = await api.maker.package(body.get("Content") or {})
    version = api.layers.publish(parameters["layer"], package, body)
    return 201, version.shown(api.location(version.package.file))


@route("GET", "/2018-10-31/layers/{layer}/versions")
async def _list_layer_versions(api: LambdaApi, parameters: Json, _: Json) -> Answer:
    shown = [one.summary() for one in api.layers.versions(parameters["layer"])]
    return 200, page("LayerVersions", shown, parameters)


@route("GET", "/2018-10-31/layers/{layer}/versions/{number}")
async def _get_layer_version(api: LambdaApi, parameters: Json, _: Json) -> Answer:
    version = api.layers.get(parameters["layer"], _number(parameters["number"]))
    return 200, version.shown(api.location(version.package.file))


@route("DELETE", "/2018-10-31/layers/{layer}/versions/{number}")
async def _delete_layer_version(api: LambdaApi, parameters: Json, _: Json) -> Answer:
    api.layers.delete(parameters["layer"], _number(parameters["number"]))
    return 204, None


def _number(text: str) -> int:
    if not text.isdigit():
        raise constraint(text, "versionNumber", "Member must be an integer")
    return int(text)
