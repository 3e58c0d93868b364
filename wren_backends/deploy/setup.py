"""Everything that jobs need on AWS, as one plan: settings, bucket, role, log groups, packages and functions.

`look` asks AWS what there is, `plan` compares it with what is wanted and asks nobody, and `carry_out` of `plan.py`
sends what is missing. Whatever is interrupted is found as it was left by the next `look`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lambda_worker.protocol import FUNCTION_KEY_VARIABLE, PACKAGES_VARIABLE, python_version
from wren_backends import redaction
from wren_backends.config import DEFAULT_MEMORY_MB, Config
from wren_backends.deploy import bucket, function, log_group, role
from wren_backends.deploy.memory import Memory
from wren_backends.deploy.package import HANDLER, function_zip
from wren_backends.deploy.packages_step import Packages, is_packages_layer
from wren_backends.deploy.plan import Change, Plan, Step, brought_up_to_date
from wren_backends.deploy.policies import ALL_OF_IT, Scope
from wren_backends.deploy.settings_file import SettingsFile
from wren_backends.deploy.target import Target
from wren_backends.errors import ConfigError, DeploymentError


@dataclass(frozen=True)
class Wanted:
    """What there has to be.

    Attributes:
        config: Settings, with region and bucket.
        account: The account's number.
        partition: `aws`, `aws-cn` or `aws-us-gov`.
        role_name: Name of the role.
        values: What the user's settings file has to say.
        adopt: Take over role and function that were made otherwise.
        whole_bucket: See `Scope`.
        block_public: See `bucket.step`.
    """

    config: Config
    account: str
    partition: str
    role_name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    adopt: bool = False
    whole_bucket: bool = False
    block_public: bool | None = None

    @property
    def bucket(self) -> str:
        """The bucket."""
        if not self.config.bucket:
            raise ConfigError("no bucket is configured: set WREN_BUCKET, or make one with `wren setup`")
        return self.config.bucket

    @property
    def role_arn(self) -> str:
        """ARN of the role, which IAM makes of its name."""
        return f"arn:{self.partition}:iam::{self.account}:role/{self.role_name}"

    @property
    def tags(self) -> dict[str, str]:
        """The user's tags."""
        return tags_of(self.config)

    def scope(self, beside: Mapping[str, int], present: role.FoundRole | None = None) -> Scope:
        """What the role is for.

        Args:
            beside: The functions of other sizes.
            present: The role; if it has the whole bucket, it keeps it.
        """
        has_all = any(one.get("Sid") == ALL_OF_IT for one in ((present and present.policy) or {}).get("Statement", ()))
        return Scope(
            self.config.function,
            self.bucket,
            self.config.prefix,
            str(self.config.region),
            self.account,
            self.partition,
            beside=tuple(beside),
            whole_bucket=self.whole_bucket or has_all,
            in_vpc=bool(self.config.subnets),
        )


@dataclass(frozen=True)
class Found:
    """What there is.

    Attributes:
        values: What the user's settings file says.
        bucket: The bucket.
        role: The role.
        log_groups: Log groups by the function's name.
        functions: The functions by name, the base first; those of other sizes that stand beside it included.
        beside: Memory of each of the others.
    """

    values: Mapping[str, Any]
    bucket: bucket.FoundBucket
    role: role.FoundRole
    log_groups: Mapping[str, log_group.FoundLogGroup]
    functions: Mapping[str, function.FoundFunction]
    beside: Mapping[str, int]


class AwsParts:
    """The clients that plans are carried out with, each opened when it is first needed.

    Args:
        session: boto3 session.
        more: What stands for a client, by name.
    """

    def __init__(self, session: Any, **more: Any) -> None:
        redaction.install()
        self.session = session
        self._open: dict[str, Any] = {"memory": Memory(), "settings": SettingsFile(), **more}

    def __getitem__(self, service: str) -> Any:
        """A client by name."""
        if service not in self._open:
            self._open[service] = self.session.client(service)
        return self._open[service]

    def get(self, name: str) -> Any:
        """What stands for a client, or None."""
        return self._open.get(name)

    def add(self, name: str, part: Any) -> None:
        """Have something stand for a client."""
        self._open[name] = part


def tags_of(config: Config) -> dict[str, str]:
    """The user's tags."""
    return {key: value for key, _, value in (tag.partition("=") for tag in config.tags)}


def functions_beside(client: Any, config: Config) -> dict[str, int]:
    """Names and memory of the functions that stand beside the base; none for who may not list functions."""
    from botocore.exceptions import ClientError

    sized = re.compile(rf"{re.escape(config.function)}-(\d+)mb")
    found = {}
    try:
        for page in client.get_paginator("list_functions").paginate():
            for one in page.get("Functions") or ():
                match = sized.fullmatch(one["FunctionName"])
                if match and one.get("Handler") == HANDLER:
                    found[one["FunctionName"]] = int(match[1])
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
            raise
    return found


def look(parts: AwsParts, wanted: Wanted) -> Found:
    """Find out what there is.

    Raises:
        DeploymentError: The bucket is somebody else's.
        botocore.exceptions.ClientError: AWS refuses.
    """
    config = wanted.config
    functions, beside = _look_at_functions(parts["lambda"], config)
    being_made = wanted.bucket in parts["memory"].buckets(wanted.account)
    return Found(
        parts["settings"].values(),
        bucket.look(parts["s3"], wanted.bucket, wanted.account, being_made=being_made),
        role.look(parts["iam"], wanted.role_name),
        {name: log_group.look(parts["logs"], name) for name in (config.function, *beside)},
        functions,
        beside,
    )


def plan(wanted: Wanted, found: Found, path: str, packages: Packages | None) -> Plan:
    """What has to be done, in its order.

    Args:
        wanted: What there has to be.
        found: What there is.
        path: The user's settings file.
        packages: The packages; None: those that the functions have.
    """
    config = wanted.config
    base = found.functions[config.function]
    packaging = [packages.step(base.variables, base.layers)] if packages else []
    return Plan(
        (
            settings_step(wanted.values, found.values, path),
            bucket.step(
                found.bucket,
                account=wanted.account,
                region=str(config.region),
                prefix=config.prefix,
                functions=[config.function, *found.beside],
                tags=wanted.tags,
                block_public=wanted.block_public,
            ),
            role.step(found.role, wanted.scope(found.beside, found.role), adopt=wanted.adopt, tags=wanted.tags),
            *(log_group.step(one, config.function, wanted.tags) for one in found.log_groups.values()),
            *packaging,
            *function_steps(wanted, found, packages),
        )
    )


def function_steps(wanted: Wanted, found: Found, packages: Packages | None) -> list[Step]:
    """The steps of the functions; they differ from the planned ones once the packages are published.

    Args:
        wanted: What there has to be.
        found: What there is.
        packages: The packages; None: those that the functions have.

    Raises:
        DeploymentError: A function is somebody else's, or the packages that it has are for another Python or processor.
    """
    present = found.functions[wanted.config.function]
    code = function_zip(target_of(wanted.config, present))
    base = _with_packages(spec_of(wanted.config, found.role.arn or wanted.role_arn), packages, present)
    specs = [base, *specs_beside(base, found.functions, found.beside)]
    return [function.step(found.functions[spec.name], spec, code, adopt=wanted.adopt) for spec in specs]


def deployment_steps(parts: AwsParts, config: Config, role_arn: str, *, adopt: bool = False) -> list[Step]:
    """The steps of the functions; for new functions of further sizes also those of the role, the bucket and their logs.

    Args:
        parts: Clients, which are asked what there is; with `packages`, if the functions are to have others.
        config: Settings, with region and bucket.
        role_arn: ARN of the role; empty: the one that they have, or that `create_role` has made.
        adopt: Take over a function that is none of this library's.

    Raises:
        DeploymentError: There is no role, or the packages that the function has are for another Python or processor.
        botocore.exceptions.ClientError: AWS refuses.
    """
    functions, beside = _look_at_functions(parts["lambda"], config)
    packages: Packages | None = parts.get("packages")
    present = functions[config.function]
    packaging = [packages.step(present.variables, present.layers)] if packages else []
    base = _with_packages(spec_of(config, role_arn), packages, present)
    if present.configuration is None and not role_arn:
        base = replace(base, role=_made_role(parts["iam"], config.function))
    code = function_zip(target_of(config, present))
    specs = [base, *specs_beside(base, functions, beside)]
    steps = [function.step(functions[spec.name], spec, code, adopt=adopt) for spec in specs]
    if any(step.state == "create" for step in steps[1:]):
        new = [step.name for step in steps[1:] if step.state == "create"]
        steps[:0] = [
            *_surroundings(parts, config, specs[-1].role, new),
            *_widened_role(parts, config, specs[-1].role, beside),
        ]
    return [*packaging, *steps]


def _with_packages(
    spec: function.FunctionSpec, packages: Packages | None, found: function.FoundFunction
) -> function.FunctionSpec:
    """What a function has to be like with the packages; without any it keeps those that it has.

    Where no layers are configured it keeps those of others, and its disk where that is large enough.
    """
    own = tuple(arn for arn in found.layers if is_packages_layer(arn, spec.name))
    if packages is None:
        _check_packages_fit(spec, found, has_layer=bool(own))
        return replace(spec, layers=(*spec.layers, *own)) if spec.layers else spec
    needed = packages.needed(spec.layers or tuple(arn for arn in found.layers if arn not in own))
    spec = replace(spec, layers=needed.layers, variables=needed.variables)
    disk_mb = spec.ephemeral_mb or ((found.configuration or {}).get("EphemeralStorage") or {}).get("Size") or 512
    return replace(spec, ephemeral_mb=needed.ephemeral_mb) if needed.ephemeral_mb > disk_mb else spec


def _check_packages_fit(spec: function.FunctionSpec, found: function.FoundFunction, *, has_layer: bool) -> None:
    """Machine code for another Python or processor fails when it is imported, call by call."""
    there = found.configuration
    if there is None or not (has_layer or found.variables.get(PACKAGES_VARIABLE)):
        return
    wanted = "python{}.{}".format(*python_version()), spec.architecture or found.architecture
    has = there.get("Runtime"), found.architecture
    if has != wanted:
        raise DeploymentError(
            f"function {spec.name!r} has packages for {has[0]} on {has[1]}, which do not run on {wanted[0]} on "
            f"{wanted[1]}: give it others with `wren deploy_lambda --environment` (or --packages, --requirements, "
            "--lock), or with `wren setup` without --no-packages"
        )


def target_of(config: Config, found: function.FoundFunction) -> Target:
    """What the functions run on: this Python, and the architecture that is wanted, that they have, or of this machine.

    Raises:
        DeploymentError: Lambda has no processor like this machine's, and nobody says which it is to be.
    """
    chosen = config.architecture or found.architecture
    if chosen == "arm64":
        return Target(python_version(), "arm64")
    return Target(python_version(), "x86_64") if chosen else Target.here()


def specs_beside(
    base: function.FunctionSpec, functions: Mapping[str, function.FoundFunction], beside: Mapping[str, int]
) -> list[function.FunctionSpec]:
    """The functions of other sizes; a new one is like the base is, in all that nothing is said of."""
    return [
        of_size(base if functions[name].configuration else _like(base, functions[base.name]), name, memory_mb)
        for name, memory_mb in beside.items()
    ]


def _like(spec: function.FunctionSpec, found: function.FoundFunction) -> function.FunctionSpec:
    there = found.configuration
    if there is None:
        return spec
    network = there.get("VpcConfig") or {}
    variables = {name: value for name, value in found.variables.items() if name != FUNCTION_KEY_VARIABLE}
    return replace(
        spec,
        role=spec.role or str(there["Role"]),
        timeout_s=spec.timeout_s or there["Timeout"],
        layers=tuple(one["Arn"] for one in there.get("Layers") or ()) if spec.layers is None else spec.layers,
        variables={**variables, **spec.variables},
        architecture=spec.architecture or found.architecture,
        ephemeral_mb=spec.ephemeral_mb or (there.get("EphemeralStorage") or {}).get("Size"),
        subnets=spec.subnets or tuple(network.get("SubnetIds") or ()),
        security_groups=spec.security_groups or tuple(network.get("SecurityGroupIds") or ()),
    )


def _made_role(client: Any, base: str) -> str:
    found = role.look(client, role.default_role_name(base))
    if found.owner != base:
        raise DeploymentError(
            "deploy_lambda needs the role that the function is to run as: make it with `wren create_role`, which says "
            "what to pass with --role"
        )
    return found.arn


def _surroundings(parts: AwsParts, config: Config, role_arn: str, new: Sequence[str]) -> list[Step]:
    """What functions of further sizes have beside them, where the base has it of `wren setup`: expiry, log groups."""
    account = role_arn.split(":", 5)[4]
    found = bucket.look(parts["s3"], str(config.bucket), account)
    known = bucket.functions_of_rules(found.lifecycle)
    steps = []
    if config.function in known:
        functions = list(dict.fromkeys([*known, *new]))
        changes = bucket.lifecycle_changes(found.lifecycle, found.name, account, config.prefix, functions)
        steps.append(brought_up_to_date("bucket", found.name, exists=True, changes=changes))
    if log_group.look(parts["logs"], config.function).tags.get(role.TAG) == config.function:
        groups = [log_group.look(parts["logs"], name) for name in new]
        steps += [log_group.step(one, config.function, tags_of(config)) for one in groups]
    return steps


def _widened_role(parts: AwsParts, config: Config, role_arn: str, beside: Mapping[str, int]) -> list[Step]:
    """The step of the role, if it is ours: it has to let functions of further sizes write their logs."""
    found = role.look(parts["iam"], role_arn.rpartition("/")[2])
    if found.owner != config.function:
        return [Step("role", found.name, "keep", (), ("not made by wren: let it write logs and records of all sizes",))]
    _, partition, _, _, account, _ = role_arn.split(":", 5)
    wanted = Wanted(config, account, partition, found.name)
    return [role.step(found, wanted.scope(beside, found), tags=wanted.tags)]


def _look_at_functions(client: Any, config: Config) -> tuple[dict[str, function.FoundFunction], dict[str, int]]:
    base = function.look(client, config.function)
    base_mb = config.memory_mb or (base.configuration or {}).get("MemorySize") or DEFAULT_MEMORY_MB
    wanted = config.sizes_beside(base_mb)
    beside = {**wanted, **functions_beside(client, config)}
    looked = {name: function.look(client, name) for name in beside}
    # One that was set up as a base of its own has the name of a size by chance, unless it is asked for.
    owners = {name: found.tags.get(role.TAG, config.function) for name, found in looked.items()}
    ours = {name: mb for name, mb in beside.items() if name in wanted or owners[name] == config.function}
    ordered = dict(sorted(ours.items(), key=lambda one: one[1]))
    return {config.function: base, **{name: looked[name] for name in ordered}}, ordered


def spec_of(config: Config, role_arn: str) -> function.FunctionSpec:
    """What the settings want of the base function.

    Raises:
        ConfigError: No bucket is configured.
    """
    if not config.bucket:
        raise ConfigError("a function needs a bucket: set WREN_BUCKET to one of yours, or make one with `wren setup`")
    return function.FunctionSpec(
        name=config.function,
        role=role_arn,
        bucket=config.bucket,
        memory_mb=config.memory_mb,
        timeout_s=config.timeout_s,
        layers=config.layers or None,
        architecture=config.architecture,
        ephemeral_mb=config.ephemeral_mb,
        reserved_concurrency=config.reserved_concurrency,
        subnets=config.subnets,
        security_groups=config.security_groups,
        tags=tags_of(config),
    )


def of_size(base: function.FunctionSpec, name: str, memory_mb: int) -> function.FunctionSpec:
    """A function of another size, alike in all else."""
    return replace(base, name=name, memory_mb=memory_mb, base=base.name)


def settings_step(wanted: Mapping[str, Any], found: Mapping[str, Any], path: str) -> Step:
    """What puts the settings into the user's file."""
    new = {name: value for name, value in wanted.items() if _plain(found.get(name)) != _plain(value)}
    said = ", ".join(
        f"{name} = {_plain(value)!r}" + (f" instead of {found[name]!r}" if name in found else "")
        for name, value in new.items()
    )
    changes = [Change(said, "settings", "write", {"values": new})] if new else []
    return brought_up_to_date("settings", path, exists=bool(found), changes=changes)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
