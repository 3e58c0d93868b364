"""What the commands that work on AWS share: their options, the account, and how a plan is shown and carried out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from wren_backends.config import Config
from wren_backends.errors import ConfigError, DeploymentError

if TYPE_CHECKING:  # each command imports what it needs, so that the others start quickly
    from wren_backends.deploy.function import FoundFunction
    from wren_backends.deploy.packages_step import Packages
    from wren_backends.deploy.plan import Change, Plan, Step
    from wren_backends.deploy.requirements import Requirements
    from wren_backends.deploy.setup import AwsParts

F = TypeVar("F", bound=Callable[..., Any])

PATIENCE_S = 60.0
"""How long a function waits for Lambda to hear of a role that was just made; AWS speaks of several seconds."""

AGAIN = "wren setup"
"""What to type when it was interrupted."""

_MARKS = {"create": "+", "update": "~", "unchanged": "=", "delete": "-", "keep": "="}

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")


def place_options(command: F) -> F:
    """Which function, bucket and region."""
    for option in (
        click.option("--name", "function", metavar="NAME", help="Name of the function."),
        click.option("--bucket", "--bucket-name", "bucket", metavar="NAME", help="Name of the bucket."),
        click.option("--region", metavar="REGION", help="AWS region."),
    ):
        command = option(command)
    return command


def function_options(command: F) -> F:
    """What functions are to be like."""
    for option in (
        click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="A tag; may be given again."),
        click.option("--layer", "layers", multiple=True, metavar="ARN", help="A layer version; may be given again."),
        click.option("--security-group", "security_groups", multiple=True, metavar="ID", help="Of a VPC."),
        click.option("--subnet", "subnets", multiple=True, metavar="ID", help="Of a VPC; may be given again."),
        click.option("--reserved-concurrency", type=int, metavar="N", help="Invocations kept for each function."),
        click.option("--ephemeral", "ephemeral_mb", type=int, metavar="MB", help="Disk at /tmp."),
        click.option("--arch", "architecture", type=click.Choice(["x86_64", "arm64"]), help="Architecture."),
        click.option("--timeout", "timeout_s", type=int, metavar="S", help="Time limit in seconds."),
        click.option(
            "--size",
            "sizes_mb",
            type=int,
            multiple=True,
            metavar="MB",
            help="Memory of a further function beside it, for `memory_mb=` to choose; may be given again.",
        ),
        click.option("--memory", "memory_mb", type=int, metavar="MB", help="Memory of the function."),
    ):
        command = option(command)
    return command


def package_options(command: F) -> F:
    """Which packages functions have."""
    for option in (
        click.option(
            "--nearest-versions",
            is_flag=True,
            help="Where your version of a package has no wheel for Lambda, take the newest that has one.",
        ),
        click.option("--lock", type=click.Path(exists=True), metavar="FILE", help="Packages of a uv.lock."),
        click.option(
            "--requirements", type=click.Path(exists=True), metavar="FILE", help="Packages of a requirements file."
        ),
        click.option(
            "--packages", multiple=True, metavar="NAME", help="A package that calls need; may be given again."
        ),
    ):
        command = option(command)
    return command


def built(
    requirements: Requirements, config: Config, base: FoundFunction, parts: AwsParts, account: str, *, quiet: bool
) -> Packages:
    """Build packages for a function, saying what is done.

    Raises:
        DeploymentError: Some cannot be had for Lambda.
    """
    from wren_backends.deploy.packages import COMPILED_RESERVE_BYTES, LAYERS_RESERVE_BYTES, build
    from wren_backends.deploy.packages_step import Packages
    from wren_backends.deploy.setup import target_of

    def say(text: str) -> None:
        if not quiet:
            click.echo(f"packages: {text}")

    try:
        reserve = LAYERS_RESERVE_BYTES if config.layers else COMPILED_RESERVE_BYTES
        made = build(requirements, target_of(config, base), say, reserve=reserve)
    except DeploymentError as error:
        raise DeploymentError(f"{error}{_ways_out(requirements)}") from error
    return Packages(
        made, parts["lambda"], parts["s3"], str(config.bucket), config.prefix, config.function, say, account
    )


def _ways_out(requirements: Requirements) -> str:
    """What can be done on the command line about packages that cannot be had."""
    others = (
        "--nearest-versions gives the function the newest versions that have wheels (calls are refused where that is "
        "another major version of numpy or pandas than yours: the plan says so), "
    )
    return f"\nOr: {'' if requirements.deps else others}--packages NAME takes those that you name"


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that were given."""
    return {name: value for name, value in options.items() if value not in (None, ())}


def on_aws(config: Config) -> Config:
    """Settings, if they are not for the local cloud.

    Raises:
        ConfigError: They are.
    """
    if config.cloud == "local":
        where = Config.origins().get("cloud", "an argument")
        raise ConfigError(
            f"cloud = 'local' ({where}): this command works on AWS, and the local cloud sets itself up. Set "
            "WREN_CLOUD=auto"
        )
    return config


def with_bucket(config: Config, command: str) -> Config:
    """Settings, if they name a bucket.

    Raises:
        ConfigError: They do not.
    """
    if not config.bucket:
        raise ConfigError(
            f"{command} needs a bucket: set WREN_BUCKET to one of yours, or have `wren setup` make everything"
        )
    return on_aws(config)


def beaten(values: Mapping[str, Any]) -> dict[str, str]:
    """Which values of the user's file something stronger overrules, and what that is."""
    loaded, origins = Config.load(), Config.origins()
    return {name: origins.get(name, "?") for name, value in values.items() if getattr(loaded, name) != value}


def account_of(session: Any) -> tuple[str, str]:
    """Number and partition of the account that the credentials belong to.

    Raises:
        ConfigError: AWS does not say.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    from wren_backends.deploy.session import about_region

    try:
        caller = session.client("sts").get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        otherwise = f"AWS does not say whose the credentials are ({error}): set them with `aws configure`"
        raise ConfigError(about_region(session, error) or f"{otherwise}, or check the network") from error
    return str(caller["Account"]), str(caller["Arn"].split(":")[1])


def refused(what: str, error: Exception, again: str) -> DeploymentError:
    """The error of a command that AWS has refused something."""
    text = str(error)
    hint = role_hint(text) or f". Run `{again}` again when that is mended: it goes on where it stopped"
    if re.search(r"AccessDenied|not authorized|UnauthorizedOperation|Forbidden", text):
        hint = (
            ". Have an administrator grant you what `wren setup --print-policy` shows, then run "
            f"`{again}` again: it goes on where it stopped"
        )
    return DeploymentError(f"{what}: {error}{hint}")


def role_hint(refusal: str) -> str:
    """What to do about a role that Lambda refuses."""
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


def place_of(parts: AwsParts, account: str, region: str | None) -> str:
    """Where a plan is carried out, for people: AWS, or the server that stands for it."""
    url = not_aws(parts)
    return f"{f'At {url}, which is not AWS' if url else 'On AWS'} (account {account}, {region})"


def not_aws(parts: AwsParts) -> str:
    """Endpoint of what stands for AWS here, such as a local cloud; empty for AWS, which has none without TLS."""
    url = str(parts["lambda"].meta.endpoint_url)
    return url if url.startswith("http:") else ""


def show(plan: Plan) -> None:
    """Print a plan."""
    width = max((len(step.what) for step in plan.steps), default=0)
    for step in plan.steps:
        click.echo(f"  {_MARKS[step.state]} {step.what:<{width}}  {step.name}  {_state(step)}")
        for line in (*(change.says for change in step.changes if change.says), *step.notes):
            click.echo(f"    {'':<{width}}  {line}")


def say_refusals(parts: AwsParts) -> None:
    """Say what calls the packages that functions were given will have refused, if any."""
    packages: Packages | None = parts.get("packages")
    if packages is not None and packages.refusals:
        click.echo(f"Mind that {'; '.join(packages.refusals)}.", err=True)


def _state(step: Step) -> str:
    return {"create": "to be made", "update": "to be changed", "delete": "to be deleted"}.get(step.state, step.state)


def confirm(question: str) -> None:
    """Ask; anything but yes ends the command.

    Raises:
        ConfigError: There is nobody to ask.
    """
    try:
        agreed = click.confirm(question)
    except click.Abort:
        raise ConfigError("nobody answered: give --yes to go ahead, or --dry-run to see what would be done") from None
    if not agreed:
        raise click.exceptions.Exit(1)


def carry_out_step(step: Step, parts: AwsParts, again: str, *, quiet: bool = False) -> None:
    """Carry out one step, saying what is done; a role that was made just now is waited for.

    Raises:
        DeploymentError: AWS refuses.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    from wren_backends.deploy.plan import carry_out

    doing = f"{step.what} {step.name}"

    def say(change: Change) -> None:
        nonlocal doing
        doing = f"{step.what} {step.name}: {change.says or change.operation}"
        if change.says and not quiet:
            click.echo(doing)

    try:
        carry_out(step, parts, patience_s=PATIENCE_S, before=say)
    except (BotoCoreError, ClientError) as error:
        raise refused(f"{doing}: that was refused", error, again) from error


def print_json(value: Any) -> None:
    """Print something as JSON."""
    click.echo(json.dumps(value, indent=2))
