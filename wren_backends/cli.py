"""The `wren` command: what is configured, the local cloud, a first call; other modules bring the other commands."""

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
from rich.markup import escape
from rich.table import Table

from wren_backends.cli_cleanup import cleanup, delete_lambda, delete_role
from wren_backends.cli_deploy import create_config, create_role, deploy_lambda
from wren_backends.cli_doctor import doctor
from wren_backends.cli_jobs import jobs
from wren_backends.cli_logs import log_url, logs, print_latest_logs
from wren_backends.cli_setup import setup
from wren_backends.config import Config
from wren_backends.errors import DeploymentError, WrenError

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


@click.group(
    cls=_Group,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda token: token.replace("_", "-"),  # of options
    },
)
@click.version_option(version("wren-backends"), prog_name="wren")
def main() -> None:
    """Run joblib, dask and concurrent.futures code on AWS Lambda."""


for command in (
    *(setup, create_config, create_role, deploy_lambda, delete_lambda, delete_role, cleanup),
    *(doctor, jobs, logs, print_latest_logs, log_url),
):
    main.add_command(command)


@main.command()
@_json_option
def config(as_json: bool) -> None:
    """Show the settings in force and where they come from.

    They come from WREN_* variables, wren.toml, pyproject.toml, the user's file, or are defaults. Those that are left to
    wren-backends have a line that says what they come to.
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
    """Make one call, cold and warm, and time it."""
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


def _timed(step: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    result = step()
    return time.perf_counter() - begun, result


@main.group()
def local() -> None:
    """Start, show or stop a local cloud.

    Several programs can use it. Where none runs, each starts a private one by itself.
    """


@local.command()
@click.option("--s3-port", default=0, help="Port here of an S3 server to use, with AWS_ACCESS_KEY_ID's keys.")
@_json_option
def up(as_json: bool, s3_port: int) -> None:
    """Start it if need be. Shows how other AWS clients reach it."""
    from wren_backends.local.cloud import start_shared
    from wren_backends.local.errors import LocalCloudError
    from wren_backends.local.options import CloudOptions

    try:
        cloud = start_shared(CloudOptions(s3_port=s3_port))
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
    """Say whether it runs and what it has done. Exits with 3 if it does not run."""
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
