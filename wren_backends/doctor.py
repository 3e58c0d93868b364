"""Examines what calls will run on, and says of each part whether it is as it has to be, and else what to type.

The parts of AWS are in `doctor_aws.py`; here are the settings, the local cloud's, and a call that is really made.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from lambda_worker import agreement
from wren_backends.config import Config
from wren_backends.connection import is_local
from wren_backends.doctor_account import Account, Finding, Status
from wren_backends.doctor_aws import examine_account
from wren_backends.errors import WrenError
from wren_backends.executor import WrenExecutor

_CALL_BUDGET_S = 30.0
"""How long the call is tried at most: what is broken is to be told soon."""


def examine(config: Config) -> Iterator[Finding]:
    """Examine everything that `config` names, part by part; nothing is changed but for one call that is made."""
    yield Finding("settings", "pass", _settings(config))
    if is_local(config):
        usable = True
        for finding in _local_parts():
            usable = usable and finding.status != "fail"
            yield finding
    else:
        account = Account(config)
        yield from examine_account(account)
        usable = account.is_usable
    if usable:
        yield from _call(config)
    else:
        yield Finding("call", "unknown", "no call was made, since it would fail for the reasons above")


def _settings(config: Config) -> str:
    origins = Config.origins()
    place = "the local cloud" if is_local(config) else f"AWS, bucket {config.bucket}"
    named = ", ".join(f"{name} from {where}" for name, where in sorted(origins.items()))
    return f"{place}, function {config.function}, mode {config.mode} ({named or 'all are defaults'})"


def _local_parts() -> Iterator[Finding]:
    from wren_backends.local.checksum import find_weed
    from wren_backends.local.cloud import find_shared
    from wren_backends.local.errors import LocalCloudError

    install = "pip install '.[local]' in a clone of wren-backends"
    try:
        yield Finding("S3 server", "pass", f"SeaweedFS, {find_weed()}")
    except LocalCloudError as error:
        yield Finding("S3 server", "fail", str(error), install)
    if find_spec("awslambdaric") is None:
        yield Finding("Lambda runtime", "fail", "awslambdaric is not installed", install)
    else:
        yield Finding("Lambda runtime", "pass", f"awslambdaric {_version('awslambdaric')}")
    if find_spec("moto") is None:
        yield Finding("logs", "warn", "moto is not installed: `wren logs` and echo_output will not work", install)
    else:
        yield Finding("logs", "pass", f"moto {_version('moto')}")
    cloud = find_shared()
    yield Finding(
        "local cloud",
        "pass",
        f"runs at {cloud.endpoint_url}, process {cloud.pid}"
        if cloud
        else "none runs, so each program starts its own; `wren local up` starts one for all",
    )


def _version(name: str) -> str:
    return agreement.versions([name]).get(name, "of unknown version")


def _call(config: Config) -> Iterator[Finding]:
    """A call, and what it saw there."""
    config = replace(config, retry_budget_s=min(config.retry_budget_s, _CALL_BUDGET_S), max_attempts=1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what differs is said below
            begun = time.perf_counter()
            with WrenExecutor(1, config=config) as executor:
                there = executor.submit(agreement.installed).result()
                took_s = time.perf_counter() - begun
    except WrenError as error:
        yield Finding("call", "fail", str(error), "see what it says; then `wren doctor` again")
        return
    yield Finding("call", "pass", f"answered after {took_s:.2f} s, with all that a first call takes")
    yield from _packages(there)


def _packages(there: dict[str, Any]) -> Iterator[Finding]:
    here = agreement.installed()
    ours, theirs = here["packages"], there["packages"]
    yield Finding("Python", "pass", f"{here['python']} here, {there['python']} there")
    hard, soft = agreement.hard_differences(ours, theirs), agreement.soft_differences(ours, theirs)
    found: list[tuple[Status, agreement.Differences]] = [("fail", hard), ("warn", soft)]
    for status, differing in found:
        if differing:
            fix = f"wren deploy_lambda --environment; or, here: {agreement.install_command(differing)}"
            yield Finding("packages", status, agreement.worded(differing), fix)
    shared, absent = sorted(ours.keys() & theirs.keys()), sorted(ours.keys() - theirs.keys())
    alike = f"{len(shared) - len(hard) - len(soft)} of {len(shared)} shared packages agree"
    yield Finding("packages", "pass", alike + (f"; not there: {', '.join(absent)}" if absent else ""))
