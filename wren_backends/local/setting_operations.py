"""Operations on what surrounds a function: concurrency, events, tags, the account."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .api_errors import constraint, invalid, not_found
from .event_config import event_config
from .functions import Function, Revision
from .routing import Answer, Json, page, route

if TYPE_CHECKING:
    from .lambda_api import LambdaApi


@route("PUT", "/2017-10-31/functions/{name}/concurrency")
async def _put_concurrency(api: LambdaApi, parameters: Json, body: Json) -> Answer:
    function = api.find(parameters)[0]
    wanted = body.get("ReservedConcurrentExecutions")
    if not isinstance(wanted, int) or wanted < 0:
        rule = "Member must have value greater than or equal to 0"
        raise constraint(wanted, "reservedConcurrentExecutions", rule)
    api.functions.reserve(function, wanted)
    return 200, {"ReservedConcurrentExecutions": wanted}


@route("GET", "/2019-09-30/functions/{name}/concurrency")
async def _get_concurrency(api: LambdaApi, parameters: Json, _: Json) -> Answer:
    function = api.find(parameters)[0]
    return 200, {} if function.reserved is None else {"ReservedConcurrentExecutions": function.reserved}


@route("DELETE", "/2017-10-31/functions/{name}/concurrency")
async def _delete_concurrency(api: LambdaApi, parameters: Json, _: Json) -> Answer:
    function = api.find(parameters)[0]
    function.reserved = None
    return 204, None


@route("PUT", "/2019-09-25/functions/{name}/event-invoke-config")
async def _put_event_config(api: LambdaApi, parameters: Json, body: Json) -> Answer:
    function, revision = api.find(parameters)[:2]
    function.event_configs[revision.version] = event_config(function.arn, revision.version, {}, body)
    return 200, function.event_configs[revision.version]


@route("POST", "/2019-09-25/functions/{name}/event-invoke-config")
async def _update_event_config(api: LambdaApi, parameters: Json, body: Json) -> Answer:
    function, revision = api.find(parameters)[:2]
    current = _event_config(function, revision)
    function.event_configs[revision.version] = event_config(function.arn, revision.version, current, body)
    return 200, function.event_configs[revision.version]


@route("GET", "/2019-09-25/functions/{name}/event-invoke-config")
async def _get_event_config(api: LambdaApi, parameters: Json, _: Json) -> Answer:
    function, revision = api.find(parameters)[:2]
    return 200, _event_config(function, revision)


@route("GET", "/2019-09-25/functions/{name}/event-invoke-config/list")
async def _list_event_configs(api: LambdaApi, parameters: Json, _: Json) -> Answer:
    function = api.find(parameters)[0]
    return 200, page("FunctionEventInvokeConfigs", list(function.event_configs.values()), parameters)


@route("DELETE", "/2019-09-25/functions/{name}/event-invoke-config")
async def _delete_event_config(api: LambdaApi, parameters: Json, _: Json) -> Answer:
    function, revision = api.find(parameters)[:2]
    _event_config(function, revision)
    del function.event_configs[revision.version]
    return 204, None


def _event_config(function: Function, revision: Revision) -> Json:
    config = function.event_configs.get(revision.version)
    if config is None:
        raise not_found(f"The function {function.arn}:{revision.version} doesn't have an EventInvokeConfig")
    return config


@route("GET", "/2017-03-31/tags/{name}")
async def _list_tags(api: LambdaApi, parameters: Json, _: Json) -> Answer:
    return 200, {"Tags": api.find(parameters)[0].tags}


@route("POST", "/2017-03-31/tags/{name}")
async def _tag(api: LambdaApi, parameters: Json, body: Json) -> Answer:
    function = api.find(parameters)[0]
    tags = {**function.tags, **(body.get("Tags") or {})}
    if len(tags) > 50:
        raise invalid("Tags count exceeded the limit of 50 tags")
    function.tags = tags
    return 204, None


@route("DELETE", "/2017-03-31/tags/{name}")
async def _untag(api: LambdaApi, parameters: Json, _: Json) -> Answer:
    function = api.find(parameters)[0]
    for key in parameters["tagKeys"]:
        function.tags.pop(key, None)
    return 204, None


@route("GET", "/2016-08-19/account-settings")
async def _account_settings(api: LambdaApi, _: Json, __: Json) -> Answer:
    packages = {revision.package for function in api.functions for revision in function.revisions()}
    limits = {
        "TotalCodeSize": 80_530_636_800,
        "CodeSizeUnzipped": 262_144_000,
        "CodeSizeZipped": 52_428_800,
        "ConcurrentExecutions": api.functions.account_concurrency,
        "UnreservedConcurrentExecutions": api.functions.unreserved(),
    }
    usage = {"TotalCodeSize": sum(one.size for one in packages), "FunctionCount": len(list(api.functions))}
    return 200, {"AccountLimit": limits, "AccountUsage": usage}
