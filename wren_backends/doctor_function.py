"""Examines a function and its role: whether they are what `wren deploy_lambda` and `wren create_role` make."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from lambda_worker.protocol import FUNCTION_KEY_VARIABLE, python_version
from wren_backends.config import Config
from wren_backends.connection import default_max_workers
from wren_backends.deploy.function import EVENT_AGE_S
from wren_backends.deploy.log_group import log_group_name
from wren_backends.deploy.package import HANDLER, function_zip
from wren_backends.deploy.policies import Scope, trust_policy, worker_policy
from wren_backends.deploy.role import POLICY_NAME as OWN_POLICY
from wren_backends.deploy.target import Target
from wren_backends.doctor_account import Account, Finding, Status, code_of, guarded
from wren_backends.errors import DeploymentError


def examine_function(account: Account, config: Config) -> Iterator[Finding]:
    """The function of these settings, its role, its failures, its concurrency and its log."""
    from botocore.exceptions import ClientError

    what = f"function {config.function}"
    try:
        found = account.ask("lambda", "get_function_configuration", FunctionName=config.function)
    except ClientError as error:
        if code_of(error) != "ResourceNotFoundException":
            raise
        yield Finding(what, "fail", f"there is none in {account.region}", "wren deploy_lambda")
        return
    yield from _itself(account, config, what, found)
    for part, step in (("failures of", _events), ("concurrency of", _reserved), ("log of", _log)):
        yield from guarded(account, f"{part} {config.function}", functools.partial(step, config=config))


def _itself(account: Account, config: Config, what: str, found: Mapping[str, Any]) -> Iterator[Finding]:
    yield _first_wrong(what, found) or Finding(
        what, "pass", f"{found['Runtime']}, {found['MemorySize']} MB, {found['Timeout']} s, {found.get('State')}"
    )
    limits = {"MemorySize": _expected_mb(account, config), "Timeout": config.timeout_s}
    other = [
        f"{name} {found[name]} (configured: {value})"
        for name, value in limits.items()
        if value and found[name] != value
    ]
    if other:
        yield Finding(what, "warn", ", ".join(other), "wren deploy_lambda")
    yield _code_of(what, found)
    yield from _role(account, config, found["Role"])


def _expected_mb(account: Account, config: Config) -> int | None:
    """Memory that the settings want of a function; any will do of a base whose calls go to another size beside it."""
    wanted_mb = account.config.memory_mb
    is_base = config.function == account.config.function
    if (
        is_base
        and wanted_mb
        and account.config.name_of_size(wanted_mb) in [one.function for one in account.functions()]
    ):
        return None
    return config.memory_mb


def _first_wrong(what: str, found: Mapping[str, Any]) -> Finding | None:
    """What keeps calls from running on it, if anything does."""
    runtime = "python{}.{}".format(*python_version())
    variables = (found.get("Environment") or {}).get("Variables") or {}
    update = found.get("LastUpdateStatus", "Successful")
    reasons = [
        (found.get("Runtime") != runtime, f"it runs {found.get('Runtime')}, this process {runtime}"),
        (found.get("Handler") != HANDLER, f"its handler is {found.get('Handler')}, not wren-backends'"),
        (not variables.get(FUNCTION_KEY_VARIABLE), f"it has no {FUNCTION_KEY_VARIABLE}"),
        (found.get("State", "Active") not in ("Active", "Inactive"), f"it is {found.get('State')}: {_reason(found)}"),
        (update == "Failed", f"its last update failed: {found.get('LastUpdateStatusReason', 'no reason given')}"),
    ]
    for is_so, text in reasons:
        if is_so:
            fix = "wren deploy_lambda --environment" if text is reasons[0][1] else "wren deploy_lambda"
            return Finding(what, "fail", text, fix)  # packages are for one Python
    if update == "InProgress":
        return Finding(what, "warn", "it is being updated", "wren doctor, in a minute")
    return None


def _reason(found: Mapping[str, Any]) -> str:
    return str(found.get("StateReason") or found.get("StateReasonCode") or "no reason given")


def _code_of(what: str, found: Mapping[str, Any]) -> Finding:
    target = Target(python_version(), (found.get("Architectures") or ["x86_64"])[0])
    try:
        # As it stands here, which needs no packages to be fetched, or as `wren setup` fetches it for Lambda's machines.
        ours = any(found.get("CodeSha256") == _sha256(function_zip(one)) for one in (None, target))
    except DeploymentError as error:
        return Finding(what, "unknown", f"its code cannot be compared: {error}")
    if ours:
        return Finding(what, "pass", "its worker is that of this environment")
    text = f"its worker is not what this environment would deploy (last modified {found.get('LastModified')})"
    return Finding(what, "warn", text, "wren deploy_lambda")


def _sha256(code: bytes) -> str:
    return base64.b64encode(hashlib.sha256(code).digest()).decode()


def _events(account: Account, config: Config) -> Iterator[Finding]:
    from botocore.exceptions import ClientError

    what = f"failures of {config.function}"
    wrong: Status = "fail" if config.mode == "s3" else "warn"
    try:
        found = account.ask("lambda", "get_function_event_invoke_config", FunctionName=config.function)
    except ClientError as error:
        if code_of(error) != "ResourceNotFoundException":
            raise
        found = {}
    destination = ((found.get("DestinationConfig") or {}).get("OnFailure") or {}).get("Destination")
    wanted = f"arn:{account.partition}:s3:::{config.bucket}"
    if found.get("MaximumRetryAttempts") != 0:
        text = "Lambda itself runs failed events of mode s3 again, unseen by wren-backends"
    elif destination != wanted:
        text = f"records of failed events of mode s3 go to {destination or 'nowhere'}, not to {config.bucket}"
    elif found.get("MaximumEventAgeInSeconds") != EVENT_AGE_S:
        text = (
            f"events wait for {found.get('MaximumEventAgeInSeconds')} s in Lambda's queue, {EVENT_AGE_S} are expected"
        )
    else:
        yield Finding(what, "pass", f"recorded in {config.bucket}, not retried by Lambda")
        return
    yield Finding(what, wrong, text, "wren deploy_lambda")


def _reserved(account: Account, config: Config) -> Iterator[Finding]:
    what = f"concurrency of {config.function}"
    reserved = account.ask("lambda", "get_function_concurrency", FunctionName=config.function).get(
        "ReservedConcurrentExecutions"
    )
    wanted = config.max_workers or default_max_workers(config)
    undo = f"aws lambda delete-function-concurrency --function-name {config.function}"
    if reserved is None:
        yield Finding(what, "pass", "none is reserved: it shares the account's")
    elif reserved == 0:
        yield Finding(what, "fail", "0 is reserved, which switches it off", undo)
    elif reserved < wanted:
        text = f"{reserved} reserved, while up to {wanted} invocations are sent at once"
        yield Finding(what, "warn", text, f"WREN_MAX_WORKERS={reserved}, or {undo}")
    else:
        yield Finding(what, "pass", f"{reserved} reserved")


def _log(account: Account, config: Config) -> Iterator[Finding]:
    from botocore.exceptions import ClientError

    what, group = f"log of {config.function}", log_group_name(config.function)
    try:
        account.ask("logs", "filter_log_events", logGroupName=group, limit=1)
    except ClientError as error:
        if code_of(error) != "ResourceNotFoundException":
            raise
        yield Finding(what, "pass", f"{group} will be there with the first call")
    else:
        yield Finding(what, "pass", f"{group} can be read")


def _role(account: Account, config: Config, arn: str) -> Iterator[Finding]:
    name = arn.rpartition("/")[2]
    what = f"role {name}"
    yield from guarded(account, what, lambda _: _trust(account, what, name))
    yield from guarded(account, what, lambda _: _policy(account, config, what, name))


def _trust(account: Account, what: str, name: str) -> Iterator[Finding]:
    from botocore.exceptions import ClientError

    try:
        found = account.ask("iam", "get_role", RoleName=name)["Role"]["AssumeRolePolicyDocument"]
    except ClientError as error:
        if code_of(error) != "NoSuchEntity":
            raise
        yield Finding(what, "fail", "there is none, so the function cannot start", f"wren create_role --name {name}")
        return
    found = json.loads(found) if isinstance(found, str) else found
    if found == trust_policy():
        yield Finding(what, "pass", "only Lambda may take it on")
    else:
        text = "its trust policy is not `wren create_role`'s: others than Lambda may take it on, or Lambda may not"
        yield Finding(what, "warn", text, f"wren create_role --name {name} --adopt")


def _policy(account: Account, config: Config, what: str, name: str) -> Iterator[Finding]:
    from botocore.exceptions import ClientError

    try:
        found = account.ask("iam", "get_role_policy", RoleName=name, PolicyName=OWN_POLICY)["PolicyDocument"]
    except ClientError as error:
        if code_of(error) != "NoSuchEntity":
            raise
        yield Finding(what, "warn", f"it has no policy of `wren create_role`'s ({OWN_POLICY})", _create(name))
        return
    found = json.loads(found) if isinstance(found, str) else found
    for whole in (False, True):
        if found == worker_policy(replace(_scope(account), whole_bucket=whole)):
            place = "the whole bucket" if whole else f"{account.config.bucket}/{account.config.prefix}"
            yield Finding(what, "pass", f"it may use {place} and write its log")
            return
    yield Finding(what, "warn", f"its policy {OWN_POLICY} is not what the settings call for", _create(name))


def _create(name: str) -> str:
    return f"wren create_role --name {name}"


def _scope(account: Account) -> Scope:
    config = account.config
    return Scope(
        config.function,
        config.bucket or "",
        config.prefix,
        account.region,
        account=account.account_id,
        partition=account.partition,
        beside=tuple(one.function for one in account.functions()[1:]),
        in_vpc=bool(config.subnets),
    )
