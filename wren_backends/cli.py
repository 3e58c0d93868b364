"""The `wren` command: what is configured, the local cloud, a first call."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.table import Table

from wren_backends.config import Config
from wren_backends.errors import ConfigError, DeploymentError, WrenError

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


@main.command()
@_json_option
def config(as_json: bool) -> None:
    """Show the settings in force: arguments, WREN_* variables, wren.toml, pyproject.toml, user file, defaults."""
    settings = dataclasses.asdict(Config.load())
    if as_json:
        click.echo(json.dumps(settings))
        return
    table = Table("setting", "value", "what it does")
    for one in dataclasses.fields(Config):
        value = settings[one.name]
        table.add_row(one.name, "" if value is None else str(value), one.metadata["text"].replace("`", ""))
    Console().print(table)


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


@main.command(name="deploy_lambda")
@click.option(
    "--role", required=True, help="ARN of the role the function runs as: it may use the bucket and write logs."
)
@click.option("--layer", "layers", multiple=True, help="ARN of a layer version with your packages; may be given again.")
def deploy_lambda(role: str, layers: tuple[str, ...]) -> None:
    """Create the function on AWS, or bring it up to date with this environment.

    Name, bucket, memory and time limit are those of `wren config`. The function runs this environment's Python.
    """
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    from wren_backends.deploy.function import FunctionSpec, deploy

    settings = Config.load()
    if not settings.bucket:
        raise ConfigError("deploy_lambda needs a bucket: set WREN_BUCKET to one of yours")
    spec = FunctionSpec(settings.function, role, settings.bucket, settings.memory_mb, settings.timeout_s, layers)
    try:
        made = deploy(boto3.client("lambda", region_name=settings.region), spec)
    except (BotoCoreError, ClientError) as error:
        raise DeploymentError(f"function {spec.name!r} was not deployed: {error}") from error
    click.echo(f"{made['FunctionArn']}: {made['Runtime']}, {made['MemorySize']} MB, {made['Timeout']} s")


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

    cloud = start_shared()
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
    from wren_backends.local.cloud import stop_shared

    click.echo("The local cloud is stopped." if stop_shared() else "No local cloud was running.")
