"""Operations on functions and their versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import configuration
from .api_errors import ApiError, conflict, constraint, invalid
from .functions import LATEST, Function, Revision, parse_name
from .routing import Answer, Json, page, route

if TYPE_CHECKING:
    from .lambda_api import LambdaApi


def _check_revision_id(revision: Revision, body: Json) -> None:
    if body.get("RevisionId") not in (None, revision.revision_id):
        text = (
            "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to "
            "retrieve the latest Revision Id"
        )
        raise ApiError(412, "PreconditionFailedException", text)


@route("POST", "/2015-03-31/functions")
async def _create_function(api: LambdaApi, _: Json, body: Json) -> Answer:
    name, qualifier = parse_name(str(body.get("FunctionName") or ""))
    if qualifier:
        raise constraint(body["FunctionName"], "functionName", "Member must not contain a qualifier")
    if name in api.functions:
        raise conflict(f"Function already exist: {name}")
    settings = configuration.created(body)
    package = await api.maker.package(body.get("Code") or {})
    revision = api.maker.make(name, settings, package)
    if name in api.functions:  # somebody else was quicker while the package was fetched
        raise conflict(f"Function already exist: {name}")
    function = Function(name, revision, tags=dict(body.get("Tags") or {}))
    api.functions.add(function)
    if body.get("Publish"):
        revision = _publish(api, function, None)
        return 201, function.configuration(revision, qualified=True)
    return 201, function.configuration(revision, qualified=False)


@route("GET", "/2015-03-31/functions")
async def _list_functions(api: LambdaApi, parameters: Json, _: Json) -> Answer:
    functions = sorted(api.functions, key=lambda one: one.name)
    if parameters.get("FunctionVersion") == "ALL":
        shown = [one.configuration(revision, qualified=True) for one in functions for revision in one.revisions()]
    else:
        shown = [one.configuration(one.latest, qualified=False) for one in functions]
    return 200, page("Functions", shown, parameters)


@route("GET", "/2015-03-31/functions/{name}")
async def _get_function(api: LambdaApi, parameters: Json, _: Json) -> Answer:
    function, revision, qualifier = api.find(parameters)
    answer: Json = {
        "Configuration": function.configuration(revision, qualified=bool(qualifier)),
        "Code": {"RepositoryType": "S3", "Location": api.location(revision.package.file)},
    }
    if function.tags:
        answer["Tags"] = function.tags
    if function.reserved is not None:
        answer["Concurrency"] = {"ReservedConcurrentExecutions": function.reserved}
    return 200, answer


@route("GET", "/2015-03-31/functions/{name}/configuration")
async def _get_configuration(api: LambdaApi, parameters: Json, _: Json) -> Answer:
    function, revision, qualifier = api.find(parameters)
    return 200, function.configuration(revision, qualified=bool(qualifier))


@route("PUT", "/2015-03-31/functions/{name}/configuration")
async def _update_configuration(api: LambdaApi, parameters: Json, body: Json) -> Answer:
    function = api.find(parameters)[0]
    _check_revision_id(function.latest, body)
    settings = configuration.updated(function.latest.settings, body)
    return 200, api.replace_latest(function, api.maker.make(function.name, settings, function.latest.package))


@route("PUT", "/2015-03-31/functions/{name}/code")
async def _update_code(api: LambdaApi, parameters: Json, body: Json) -> Answer:
    function = api.find(parameters)[0]
    _check_revision_id(function.latest, body)
    settings = configuration.with_architecture(function.latest.settings, body)
    package = await api.maker.package(body)
    revision = api.maker.make(function.name, settings, package)
    if body.get("DryRun"):
        return 200, function.configuration(revision, qualified=False)
    answer = api.replace_latest(function, revision)
    if body.get("Publish"):
        answer = function.configuration(_publish(api, function, None), qualified=True)
    return 200, answer


@route("DELETE", "/2015-03-31/functions/{name}")
async def _delete_function(api: LambdaApi, parameters: Json, _: Json) -> Answer:
    function, revision, qualifier = api.find(parameters)
    if qualifier == LATEST:
        raise invalid("$LATEST version cannot be deleted without deleting the function.")
    if qualifier:
        del function.versions[revision.version]
        function.event_configs.pop(revision.version, None)
        revision.pool.retire()
    else:
        api.functions.delete(function)
    return 204, None


@route("POST", "/2015-03-31/functions/{name}/versions")
async def _publish_version(api: LambdaApi, parameters: Json, body: Json) -> Answer:
    function = api.find(parameters)[0]
    _check_revision_id(function.latest, body)
    if body.get("CodeSha256") not in (None, function.latest.package.sha256):
        raise invalid(
            f"CodeSHA256 ({body['CodeSha256']}) is different from current CodeSHA256 in $LATEST "
            f"({function.latest.package.sha256}). Please try again with the CodeSHA256 in $LATEST."
        )
    return 201, function.configuration(_publish(api, function, body.get("Description")), qualified=True)


def _publish(api: LambdaApi, function: Function, description: str | None) -> Revision:
    latest = function.latest
    newest = function.versions.get(str(function.next_version - 1))
    unchanged = newest is not None and (newest.settings, newest.package) == (latest.settings, latest.package)
    if newest is not None and unchanged:
        return newest  # AWS publishes nothing when nothing has changed
    version = str(function.next_version)
    function.next_version += 1
    revision = api.maker.make(function.name, latest.settings, latest.package, version)
    revision.description = description or None
    function.versions[version] = revision
    return revision


@route("GET", "/2015-03-31/functions/{name}/versions")
async def _list_versions(api: LambdaApi, parameters: Json, _: Json) -> Answer:
    function = api.find(parameters)[0]
    shown = [function.configuration(revision, qualified=True) for revision in function.revisions()]
    return 200, page("Versions", shown, parameters)
