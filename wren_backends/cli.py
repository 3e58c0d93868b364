"""The `wren` command: what is configured, the local cloud, a first call, role and function on AWS."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NoReturn

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wren_backends.cli_jobs import jobs
from wren_backends.config import Config
from wren_backends.errors import ConfigError, DeploymentError, WrenError

if TYPE_CHECKING:
    from wren_backends.deploy.role import Scope

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class _Group(click.Group):
    """Prints this library's errors as one line, without a traceback, and exits with 1; `-` is `_`."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name.replace("-", "_"))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except WrenError as error:
            _fail(str(error))


def _fail(text: str) -> NoReturn:
    click.echo(f"wren: {text}", err=True)
    sys.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("wren-backends"), prog_name="wren")
def main() -> None:
    """Run joblib, dask and concurrent.futures code on AWS Lambda."""


main.add_command(jobs)


@main.command()
@_json_option
def config(as_json: bool) -> None:
    """Show the settings in force, where they come from, and what those come to that are left to wren-backends.

    They come from WREN_* variables, wren.toml, pyproject.toml, the user's file, or are defaults.
    """
    loaded = Config.load()
    settings, origins, found = dataclasses.asdict(loaded), Config.origins(), _found_out(loaded)
    if as_json:
        click.echo(json.dumps({**settings, "origins": origins, "found_out": found}))
        return
    table = Table("setting", "value", "from", "what it does")
    for one in dataclasses.fields(Config):
        shown = "" if settings[one.name] is None else str(settings[one.name])
        if found.get(one.name):
            shown = f"{shown} ({found[one.name]})".lstrip()
        text = one.metadata["text"].replace("`", "")
        table.add_row(one.name, escape(shown), escape(origins.get(one.name, "default")), text)
    Console().print(table)


def _found_out(settings: Config) -> dict[str, Any]:
    """What the settings come to that leave the choice to us."""
    from wren_backends.connection import default_max_workers, is_local
    from wren_backends.deploy.session import default_region
    from wren_backends.local.options import REGION

    local = is_local(settings)
    found: dict[str, Any] = {"cloud": "local" if local else "aws"} if settings.cloud == "auto" else {}
    if settings.max_workers is None:
        found["max_workers"] = default_max_workers(settings)
    if settings.region is None:
        found["region"] = REGION if local else default_region()
    return found


@main.command(name="test_function")
@_json_option
def test_function(as_json: bool) -> None:
    """Make one call, cold and warm, and show how long it took."""
    from wren_backends.executor import WrenExecutor

    with WrenExecutor() as executor:
        cold_s, answer = _timed(lambda: executor.submit(divmod, 42, 5).result())
        warm_s, _ = _timed(lambda: executor.submit(divmod, 42, 5).result())
        found = {
            "function": executor.connection.function,
            "local": executor.connection.is_local,
            "answer": answer,
            "first_s": round(cold_s, 4),
            "warm_s": round(warm_s, 4),
        }
    if as_json:
        click.echo(json.dumps(found))
    else:
        place = "the local cloud" if found["local"] else "AWS"
        click.echo(
            f"divmod(42, 5) = {answer} on {place}, function {found['function']}: "
            f"first call {cold_s * 1000:.0f} ms, warm {warm_s * 1000:.1f} ms"
        )


@main.command(name="create_role")
@click.option("--name", help="Name of the role. Default: the function's, with -worker behind it.")
@click.option("--adopt", is_flag=True, help="Take over a role of that name that was made otherwise.")
@click.option(
    "--whole-bucket",
    is_flag=True,
    help="Let the worker write and list all of a bucket of its own; only if deploy_lambda asks for it.",
)
@click.option("--print", "only_print", is_flag=True, help="Print all policies as JSON; ask and change nothing on AWS.")
def create_role(name: str | None, adopt: bool, whole_bucket: bool, only_print: bool) -> None:
    """Make the role that the function runs as, or bring it up to date.

    It may use the prefix of the bucket that `wren config` shows and write the function's own logs, nothing else. Those
    who run calls need rights of their own: `--print` shows them as "client", beside "worker" and its "trust".
    """
    from wren_backends.deploy import role
    from wren_backends.deploy.session import aws_session

    settings = Config.load()
    if not settings.bucket:
        raise ConfigError("create_role needs a bucket: set WREN_BUCKET to the one that the function is to use")
    session = aws_session(settings.region)
    larger = settings.of_larger_function()
    scope = role.Scope(
        settings.function,
        settings.bucket,
        settings.prefix,
        session.region_name,
        larger=larger.function if larger else "",
        whole_bucket=whole_bucket,
    )
    if only_print:
        documents = {
            "trust": role.trust_policy(),
            "worker": role.worker_policy(scope),
            "client": role.client_policy(scope),
        }
        click.echo(json.dumps(documents, indent=2))
        return
    made = role.create_role(
        session.client("iam"), name or role.default_role_name(scope.function), _in_account(scope, session), adopt=adopt
    )
    click.echo(
        f"{made.arn}: {made.change}. It may use {_place(scope)} and write the logs of function "
        f"{' and '.join(scope.functions)}."
    )
    if made.others:
        click.echo(f"It has other policies too, which were left alone: {', '.join(made.others)}.")
    click.echo(f"Next: wren deploy_lambda --role {made.arn}")


def _in_account(scope: Scope, session: Any) -> Scope:
    """The scope, with the account that the credentials belong to."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        caller = session.client("sts").get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        raise ConfigError(
            f"AWS does not say whose the credentials are ({error}): set them with `aws configure`, or check the network"
        ) from error
    return dataclasses.replace(scope, account=caller["Account"], partition=caller["Arn"].split(":")[1])


def _place(scope: Scope) -> str:
    return f"s3://{scope.bucket}" + ("" if scope.whole_bucket else f"/{scope.prefix}".rstrip("/"))


@main.command(name="deploy_lambda")
@click.option("--role", help="ARN of the role the function runs as; `wren create_role` makes one.")
@click.option("--layer", "layers", multiple=True, help="ARN of a layer version with your packages; may be given again.")
def deploy_lambda(role: str | None, layers: tuple[str, ...]) -> None:
    """Create the function on AWS, or bring it up to date with this environment.

    Name, bucket, memory and time limit are those of `wren config`. The function runs this environment's Python. With
    WREN_RETRY_MEMORY_MB a second one with that much memory is made beside it.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    from wren_backends.deploy.function import FunctionSpec, deploy
    from wren_backends.deploy.session import aws_session

    settings = Config.load()
    if not settings.bucket:
        raise ConfigError("deploy_lambda needs a bucket: set WREN_BUCKET to one of yours")
    if not role:
        raise ConfigError(
            "deploy_lambda needs the role that the function is to run as: make it with `wren create_role`, which says "
            "what to pass with --role"
        )
    session = aws_session(settings.region)
    for one in filter(None, (settings, settings.of_larger_function())):
        spec = FunctionSpec(one.function, role, settings.bucket, one.memory_mb, one.timeout_s, layers)
        try:
            made = deploy(session.client("lambda"), spec)
        except (BotoCoreError, ClientError) as error:
            hint = _role_hint(str(error))
            raise DeploymentError(f"function {spec.name!r} was not deployed: {error}{hint}") from error
        click.echo(f"{made['FunctionArn']}: {made['Runtime']}, {made['MemorySize']} MB, {made['Timeout']} s")


def _role_hint(refusal: str) -> str:
    if "cannot be assumed by Lambda" in refusal:
        return (
            ". Make the role with `wren create_role`. If that was just done, Lambda hears of it within a minute: "
            "try again"
        )
    if "does not have permissions to call" in refusal:
        return (
            ". Bring the role up to date with `wren create_role` and try again in a minute. If Lambda still refuses, "
            "it wants the role to have all of the bucket that records of failures go to: give wren a bucket of its own "
            "(WREN_BUCKET) and make the role with `wren create_role --whole-bucket`"
        )
    return ""


def _timed(step: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    result = step()
    return time.perf_counter() - begun, result


@main.group()
def local() -> None:
    """Start, show and stop a local cloud of its own that several programs can use.

    Programs start a private one by themselves where none runs.
    """


@local.command()
@_json_option
def up(as_json: bool) -> None:
    """Start it, if it does not run yet, and show how other AWS clients reach it."""
    from wren_backends.local.cloud import start_shared
    from wren_backends.local.errors import LocalCloudError

    try:
        cloud = start_shared()
    except LocalCloudError as error:
        raise DeploymentError(str(error)) from None
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(cloud)))
        return
    click.echo(f"The local cloud runs at {cloud.endpoint_url}; its files are in {cloud.directory}.")
    click.echo("Programs that use wren-backends find it by themselves. For others:")
    for name, value in cloud.environment().items():
        click.echo(f"  export {name}={value}")


@local.command()
@_json_option
def status(as_json: bool) -> None:
    """Say whether it runs, and what it has done so far; exits with 3 if it does not run."""
    from wren_backends.local.cloud import find_shared

    cloud = find_shared()
    if cloud is None:
        click.echo(json.dumps({"running": False}) if as_json else "No local cloud runs. `wren local up` starts one.")
        sys.exit(3)
    stats = cloud.stats()
    if as_json:
        click.echo(json.dumps({"running": True, "endpoint_url": cloud.endpoint_url, "pid": cloud.pid, **stats}))
        return
    click.echo(f"The local cloud runs at {cloud.endpoint_url} (process {cloud.pid}).")
    for service, counts in stats.items():
        click.echo(f"  {service}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))


@local.command()
def down() -> None:
    """Stop it and remove its files."""
    from wren_backends.local.cloud import find_shared, stop_shared

    cloud = find_shared()
    running = cloud.stats()["lambda"]["running"] if cloud else 0
    click.echo("The local cloud is stopped." if stop_shared() else "No local cloud was running.")
    if running:
        click.echo(f"Invocations that it was running: {running}. Their programs end with BrokenWrenExecutor.", err=True)
